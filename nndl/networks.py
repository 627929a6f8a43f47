"""Pretrained networks as chains of stages, with the stored weights of the folder `weights`.

Two of the stored networks differ from torchvision's of the same name: the ResNet-50 has its strides where the first
paper has them, and MobileNetV2 was trained in TensorFlow, which pads strided convolutions on the right and bottom only.
"""

from typing import NamedTuple

import timm
import torch
import torchvision.models
from torch import nn

from nndl import files

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Stored(NamedTuple):
    """A network: who builds it, its name there, its file, and the mean and deviation of its pictures (of x / 255)."""

    library: str
    model: str
    file: str
    mean_std: tuple


NETWORKS = {
    "vgg16": Stored("torchvision", "vgg16", "vgg16_features.safetensors", IMAGENET),
    "alexnet": Stored("torchvision", "alexnet", "alexnet_features.safetensors", IMAGENET),
    "squeezenet1_1": Stored("torchvision", "squeezenet1_1", "squeezenet1_1.safetensors", IMAGENET),
    "mobilenet_v2": Stored("torchvision", "mobilenet_v2", "mobilenet_v2_int8.safetensors", HALVES),
    "resnet50": Stored("torchvision", "resnet50", "resnet50_v1_pruned_int8.safetensors.xz", IMAGENET),
    "efficientnet_lite0": Stored("timm", "tf_efficientnet_lite0", "efficientnet_lite0.safetensors", HALVES),
    "vit_tiny": Stored("timm", "vit_tiny_patch16_224", "vit_tiny_patch16_224.safetensors", HALVES),
}


def build(name, seed=0):
    """The library's network with random weights, drawn from a seed."""
    torch.manual_seed(seed)
    stored = NETWORKS[name]
    if stored.library == "timm":
        options = {"dynamic_img_size": True} if name == "vit_tiny" else {}
        return timm.create_model(stored.model, pretrained=False, **options)
    return torchvision.models.get_model(stored.model, weights=None)


class Tokens(nn.Module):
    """The first stage of a ViT: pictures to tokens with position vectors. (B, 3, S, S) -> (B, N, D)."""

    def __init__(self, net):
        super().__init__()
        self.patch_embed, self.position = net.patch_embed, net._pos_embed

    def forward(self, x):
        return self.position(self.patch_embed(x))


def stages_of(net):
    """A network without its classifier as a chain of stages, nn.Sequential, in evaluation mode as a whole."""
    if hasattr(net, "features"):  # VGG, AlexNet, SqueezeNet, MobileNetV2
        stages = net.features
    elif hasattr(net, "layer4"):
        stem = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool)
        stages = (stem, *net.layer1, *net.layer2, *net.layer3, *net.layer4)
    elif hasattr(net, "conv_stem"):
        stages = (nn.Sequential(net.conv_stem, net.bn1), *net.blocks, nn.Sequential(net.conv_head, net.bn2))
    else:
        stages = (Tokens(net), *net.blocks, net.norm)
    return nn.Sequential(*stages).eval()


def as_stored(net, name):
    """The changes that the stored weights need, made in place."""
    if name == "resnet50":
        for layer in (net.layer2, net.layer3, net.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        net.maxpool = nn.MaxPool2d(3, 2, padding=0, ceil_mode=True)
    if name == "mobilenet_v2":
        for module in list(net.modules()):
            for child, conv in list(module.named_children()):
                if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2):
                    conv.padding = (0, 0)
                    setattr(module, child, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv))
    return net


def pretrained(name, folder):
    """The network with the weights in `folder`, in evaluation mode; of VGG16 and AlexNet only `features` has them.

    DataError where the file is missing or damaged, or does not fit.
    """
    net, where = build(name), folder / NETWORKS[name].file
    state = {key: value.float() for key, value in files.load_weights(where).items()}
    if name in ("vgg16", "alexnet"):
        files.fit_weights(net.features, {key.removeprefix("features."): part for key, part in state.items()}, where)
    else:
        state |= {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
        files.fit_weights(net, state, where)
    return as_stored(net, name).eval()
