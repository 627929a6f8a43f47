"""Data and drawing for the Vision Transformer assignment: no model, no loss, no method.

Pictures are uint8 arrays of shape (N, H, W, 3), labels int64 arrays of shape (N,).
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import hsv_to_rgb
from sklearn.datasets import load_digits as sklearn_digits
from sklearn.model_selection import train_test_split

from nndl import files
from nndl.figures import BLUE, GREEN, GREY, ORANGE, style  # noqa: F401 (notebooks take them from here)
from nndl.files import DataError
from nndl.lab import LabError

CIFAR10_CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@dataclass
class Pictures:
    """A picture data set: (images, labels) for each part, class names, and where it comes from."""

    name: str
    source: str  # "real" or "embedded"
    classes: list
    train: tuple
    val: tuple
    test: tuple
    note: str = ""

    def counts(self):
        """Number of pictures in each part."""
        return {part: len(getattr(self, part)[1]) for part in ("train", "val", "test")}

    def arrays(self):
        """All arrays, for a fingerprint."""
        return (*self.train, *self.val, *self.test)


# ---------------------------------------------------------------- embedded: find the twin

CELL, GRID = 8, 3  # a picture has GRID x GRID cells of CELL x CELL pixels
SHAPES = {  # every shape has the same ink: 20 of 36 pixels
    "plus": "..##.. ..##.. ###### ###### ..##.. ..##..",
    "ring": "###### #....# #....# #....# #....# ######",
    "cross": "##..## ##..## ..##.. ..##.. ##..## ##..##",
    "tee": "###### ###### ..##.. ..##.. ..##.. ..##..",
}
GLYPHS = np.array([[[p == "#" for p in row] for row in s.split()] for s in SHAPES.values()], dtype=np.float32)


def make_twins(n, seed, fewest=4, shift=0):
    """Pictures of the task "find the twin", with its ground truth.

    One cell, in a white frame, is filled with the cue's colour. `fewest` to four other cells hold glyphs of different
    shapes and different colours; one of them, the twin, has the cue's colour, and its shape is the label. Hues are
    drawn anew for every picture, a quarter of the colour circle apart (give or take 0.08), so no colour has a meaning.
    shift: glyphs are moved by up to so many pixels within their cell (0 or 1).

    Returns images (n, 24, 24, 3) uint8, labels (n,), cue cell (n,), twin cell (n,); cells count row by row from 0.
    """
    rng = np.random.default_rng(seed)
    every = np.arange(n)
    images = rng.normal(30, 12, (n, GRID * CELL, GRID * CELL, 3)).astype(np.float32)
    view = images.reshape(n, GRID, CELL, GRID, CELL, 3)
    shown = rng.integers(fewest, 5, n)  # glyphs in each picture
    cells = rng.random((n, GRID * GRID)).argsort(1)[:, :5]  # four for the glyphs, the last for the cue
    shape = rng.random((n, 4)).argsort(1)
    hue = rng.random((n, 1)) + rng.random((n, 4)).argsort(1) / 4 + rng.uniform(-0.04, 0.04, (n, 4))
    colour = 255 * hsv_to_rgb(np.stack([hue % 1, np.full_like(hue, 0.75), np.full_like(hue, 0.9)], axis=-1))
    twin = (rng.random(n) * shown).astype(int)

    def draw(which, cell, glyphs, colours, shift):
        row, column = cell // GRID, cell % GRID
        masks = np.pad(glyphs, ((0, 0), (1, 1), (1, 1)))  # (m, CELL, CELL)
        moves = rng.integers(-shift, shift + 1, (len(which), 2))
        for move in itertools.product(range(-shift, shift + 1), repeat=2):
            moved = (moves == move).all(1)
            masks[moved] = np.roll(masks[moved], move, axis=(1, 2))
        masks = masks[..., None]
        view[which, row, :, column] = view[which, row, :, column] * (1 - masks) + colours[:, None, None] * masks

    cue = cells[:, 4]
    draw(every, cue, np.ones((n, 6, 6), dtype=np.float32), colour[every, twin], 0)
    tile = view[every, cue // GRID, :, cue % GRID]
    tile[:, [0, -1]] = 255
    tile[:, :, [0, -1]] = 255
    view[every, cue // GRID, :, cue % GRID] = tile
    for slot in range(4):
        which = np.flatnonzero(slot < shown)
        draw(which, cells[which, slot], GLYPHS[shape[which, slot]], colour[which, slot], shift)
    return images.clip(0, 255).astype(np.uint8), shape[every, twin], cue, cells[every, twin]


def load_twins(n_train, n_test, seed=0):
    """The twin task as a data set: training pictures show 1 to 4 glyphs, validation and test pictures always 4."""
    return Pictures(
        name="find the twin",
        source="embedded",
        classes=list(SHAPES),
        train=make_twins(n_train, seed + 1, fewest=1)[:2],
        val=make_twins(n_test, seed + 2)[:2],
        test=make_twins(n_test, seed + 3)[:2],
        note="drawn by make_twins",
    )


# ---------------------------------------------------------------- pictures of things


def load_digits(seed=0):
    """scikit-learn's handwritten digits, 8x8 enlarged to 16x16: small, and part of an installed package."""
    bunch = sklearn_digits()
    grey = (bunch.images * (255 / 16)).astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    images, labels = np.stack([grey] * 3, axis=-1), bunch.target.astype(np.int64)
    train, rest = train_test_split(np.arange(len(labels)), test_size=800, stratify=labels, random_state=seed)
    val, test = train_test_split(rest, test_size=500, stratify=labels[rest], random_state=seed)
    parts = [(images[index], labels[index]) for index in (train, val, test)]
    note = "scikit-learn's digits, 8x8 enlarged to 16x16"
    return Pictures("digits", "embedded", [str(digit) for digit in range(10)], *parts, note=note)


BY_HAND = "hf download uoft-cs/cifar10 --repo-type dataset --local-dir <NNDL_DATA>/cifar10 brings it by hand"


def load_cifar10(folder, n_val=5000, limit=None, download=False, seed=0):
    """CIFAR-10 in any of its three layouts: Hugging Face parquet, torchvision's batches, or a folder for each class.

    folder: holds plain_text/*.parquet, or cifar-10-batches-py/, or train/<class>/ and test/<class>/.
    n_val: pictures taken from the training part for validation, stratified. limit: keep so many of each part.
    download: bring torchvision's batches where none of the three is there.
    Raises DataError naming the file or class at fault, LabError for a limit that does not fit.
    """
    folder = Path(folder)
    if any(folder.glob("**/train-*.parquet")):
        read, classes, note = _read_parquet, CIFAR10_CLASSES, "Hugging Face parquet"
    elif (folder / "cifar-10-batches-py").is_dir():
        read, classes, note = _read_torchvision, CIFAR10_CLASSES, "torchvision's batches"
    elif (folder / "train").is_dir() and (folder / "test").is_dir():
        read, classes, note = _read_class_folders, _class_names(folder), "a folder for each class"
    elif download:
        files.download(folder / "cifar-10-batches-py", _fetch_batches, BY_HAND)
        read, classes, note = _read_torchvision, CIFAR10_CLASSES, "torchvision's batches"
    else:
        layouts = "neither plain_text/*.parquet, cifar-10-batches-py/ nor train/ and test/ is there"
        raise DataError(f"{folder}: {layouts}; NNDL_DOWNLOAD=1 fetches CIFAR-10, or {BY_HAND}")

    pictures, labels, skipped = read(folder, "train", classes)
    fewest, n_val = np.bincount(labels, minlength=len(classes)), min(n_val, len(labels) // 5)
    if fewest.min() < 2:
        raise DataError(f"{folder}: train has {fewest.min()} picture of class {classes[fewest.argmin()]}, 2 are needed")
    if n_val < len(classes):
        raise DataError(
            f"{folder}: {len(labels)} pictures in train, {5 * len(classes)} are needed to split a fifth off"
        )
    train, val = train_test_split(np.arange(len(labels)), test_size=n_val, stratify=labels, random_state=seed)
    test = read(folder, "test", classes)
    for name, n in (("train", len(train)), ("validation", len(val)), ("test", len(test[1]))):
        if limit and (limit < len(classes) or n - len(classes) < limit < n):
            fits = f"from {len(classes)} to {n - len(classes)}, or {n} and more"
            raise LabError(f"setting limit={limit}: {n} pictures for {name} in {len(classes)} classes; take {fits}")
    parts = [_decoded(pictures, labels, index, limit, seed) for index in (train, val)]
    parts.append(_decoded(*test[:2], np.arange(len(test[1])), limit, seed))
    size = parts[0][0].shape[1:3]
    if parts[2][0].shape[1:3] != size or size[0] != size[1]:
        raise DataError(f"{folder}: train and test need one square size: {size}, {parts[2][0].shape[1:3]}")
    kind = files.picture_format(test[0][0][1])
    note += f", {kind} pictures" + (" (lossy)" if kind in ("WEBP", "JPEG") else "") if kind else ""
    note = "; ".join(filter(None, (note, files.skipped_note(skipped + test[2]))))
    return Pictures("CIFAR-10", "real", classes, *parts, note=note)


def _decoded(pictures, labels, index, limit, seed):
    """Decode the pictures of an index, a stratified choice of at most `limit` of them: (images, labels)."""
    if limit and limit < len(index):
        index, _ = train_test_split(index, train_size=limit, stratify=labels[index], random_state=seed)
    chosen = [pictures[i] for i in index]
    images = [data if isinstance(data, np.ndarray) else files.decode_rgb(data, where) for where, data in chosen]
    for image, (where, _) in zip(images, chosen, strict=True):
        if image.shape != images[0].shape:
            raise DataError(f"{where}: size {image.shape}, others have {images[0].shape}")
    return np.stack(images), labels[index].astype(np.int64)


# Each reader returns [(where, bytes or array), ...], labels (N,), and the paths of files that are not read.
# Pictures are decoded only when they are chosen.


def _read_parquet(folder, part, classes):
    pictures, labels = [], []
    shards = files.shards(folder, part)
    for shard in shards:
        table = files.read_parquet(shard, ("img", "label"))
        rows = [row["bytes"] if isinstance(row, dict) else row for row in table["img"].to_pylist()]
        pictures += [(f"{shard}, row {i}", row or b"") for i, row in enumerate(rows)]
        labels.append(table["label"].to_numpy())
    labels = np.concatenate(labels)
    found = np.unique(labels).tolist()
    if found != list(range(len(classes))):
        raise DataError(f"{shards[0]}: labels {found}, expected 0 to {len(classes) - 1}")
    return pictures, labels.astype(np.int64), []


def _fetch_batches(folder):
    from torchvision.datasets import CIFAR10

    CIFAR10(folder, download=True)
    return folder / "cifar-10-batches-py"


def _read_torchvision(folder, part, classes):
    from torchvision.datasets import CIFAR10

    try:  # torchvision compares the files' MD5 before it unpickles them
        pictures = CIFAR10(folder, train=part == "train")
    except RuntimeError as error:
        raise DataError(f"{folder}/cifar-10-batches-py: {files.one_line(error)}; delete it, then {BY_HAND}") from None
    return [(f"{part} picture {i}", image) for i, image in enumerate(pictures.data)], np.array(pictures.targets), []


def _class_names(folder):
    names = {part: files.class_folders(folder / part)[0] for part in ("train", "test")}
    if names["train"] != names["test"]:
        differ = sorted(set(names["train"]) ^ set(names["test"]))
        raise DataError(f"{folder}: classes in only one of train and test: {', '.join(differ)}")
    if len(names["train"]) < 2:
        raise DataError(f"{folder / 'train'}: {len(names['train'])} class folders, at least 2 are needed")
    return names["train"]


def _read_class_folders(folder, part, classes):
    pictures, labels, skipped = [], [], files.class_folders(folder / part)[1]
    if part == "train":  # val/ and whatever else lies beside the two
        skipped += [path for path in files.entries(folder) if path.name not in ("train", "test")]
    for label, name in enumerate(classes):
        found, others = files.list_pictures(folder / part / name)
        if not found:
            raise DataError(f"{folder / part / name}: no picture in this class folder")
        pictures += [(str(file), files.read_bytes(file)) for file in found]
        labels += [label] * len(found)
        skipped += others
    return pictures, np.array(labels), skipped


def load_imagenet_val(folder, size=224):
    """ImageNet validation pictures listed in labels.csv: images (N, size, size, 3), labels (N,), by centre crop."""
    return files.labelled_pictures(folder, size)


# ---------------------------------------------------------------- settings


def check_settings(cfg):
    """LabError naming a setting that cannot work, whatever the data."""
    counts = ("twin_epochs", "epochs", "ablation_epochs", "transfer_epochs", "final_epochs", "twin_test", "twin_width",
              "resnet_width", "patch_size", "ablation_patch", "dim", "depth", "heads", "transfer_size", "final_size",
              "ablation_train", "probe_train", "data_steps")  # fmt: skip
    least = dict.fromkeys(counts, 1) | dict.fromkeys(("batch_size", "transfer_batch"), 2)
    least |= {"twin_train": 128, "limit": 0, "pretrain_size": 0, "imagenet": 0, "randaugment": 0, "seed": 0}
    for name, lowest in least.items():
        if getattr(cfg, name) < lowest:
            raise LabError(f"setting {name}={getattr(cfg, name)}: at least {lowest} is needed")
    for name in ("lr", "transfer_lr", "final_lr"):
        if not getattr(cfg, name) > 0:
            raise LabError(f"setting {name}={getattr(cfg, name)}: it must be above 0")
    for name in ("drop_path", "ema", "ablation_ema", "transfer_ema"):
        if not 0 <= getattr(cfg, name) < 1:
            raise LabError(f"setting {name}={getattr(cfg, name)}: a share from 0 to below 1 is needed")
    if not 0 <= cfg.mix <= 1:
        raise LabError(f"setting mix={cfg.mix}: a share from 0 to 1 is needed")
    if len(set(cfg.twin_seeds)) < 2 or len(set(cfg.twin_seeds)) < len(cfg.twin_seeds):
        raise LabError(f"setting twin_seeds={cfg.twin_seeds}: an interval over seeds needs two at least, all different")
    for name in ("other_patches", "other_depths"):
        if not all(isinstance(value, int) and value >= 1 for value in getattr(cfg, name)):
            raise LabError(f"setting {name}={getattr(cfg, name)}: whole numbers from 1 on are needed")
    if cfg.dim % cfg.heads:
        raise LabError(f"setting heads={cfg.heads} does not divide dim={cfg.dim}")


def check_fit(cfg, data, pretrained_patch=None):
    """LabError naming a setting that does not fit the pictures.

    pretrained_patch: patch size of the pretrained network; None where the network that is transferred is trained here.
    """
    size, n, k = data.train[0].shape[1], len(data.train[1]), len(data.classes)
    for name in ("patch_size", "ablation_patch", "other_patches"):
        for patch in np.atleast_1d(getattr(cfg, name)).tolist():
            if size % patch:
                raise LabError(f"setting {name}: patches of {patch} do not tile pictures of {size} pixels")
    names = ("transfer_size", "final_size") + (() if pretrained_patch else ("pretrain_size",))
    for name in names:
        patch = pretrained_patch or cfg.patch_size
        if getattr(cfg, name) < patch or getattr(cfg, name) % patch:
            raise LabError(f"setting {name}={getattr(cfg, name)}: patches of {patch} do not tile it")
    target = n if pretrained_patch else min(100, int((data.train[1] >= k // 2).sum()))
    source = n if pretrained_patch else int((data.train[1] < k // 2).sum())
    for name, there in (("batch_size", min(n, source)), ("transfer_batch", target)):
        if getattr(cfg, name) > there:
            raise LabError(f"setting {name}={getattr(cfg, name)}: there are only {there} training pictures for it")
    for name in ("ablation_train", "probe_train"):
        if getattr(cfg, name) < k:
            raise LabError(
                f"setting {name}={getattr(cfg, name)}: at least one picture for each of {k} classes is needed"
            )


# ---------------------------------------------------------------- drawing


def show_pictures(images, titles, columns=8, size=1.3, title=None):
    """A grid of pictures with a title each."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * size, rows * (size + 0.3)), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, text in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image)
        axis.set_title(text, fontsize=9)
    if title:
        figure.suptitle(title)
    figure.tight_layout()
    plt.show()


def show_curves(curves, title, ylabel="validation accuracy (%)", xlabel="epoch"):
    """Lines over epochs: {name: values}, one value an epoch."""
    figure, axis = plt.subplots(figsize=(6.5, 3.4))
    for (name, values), marker in zip(curves.items(), itertools.cycle("os^Dv")):
        axis.plot(np.arange(1, len(values) + 1), values, marker=marker, markersize=4, label=name)
    axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(frameon=False, fontsize=9)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_bars(metrics, title, xlabel, chance=None, chance_label="chance"):
    """Results with their intervals as points on a line: {label: dict(value, low, high)}."""
    figure, axis = plt.subplots(figsize=(7.5, 0.9 + 0.36 * len(metrics)))
    for row, m in enumerate(metrics.values()):
        axis.plot([m["low"], m["high"]], [row, row], color=BLUE, linewidth=2)
        axis.plot(m["value"], row, "o", color=BLUE)
        axis.annotate(f"{m['value']:.1f}", (m["value"], row), (0, 6), textcoords="offset points", ha="center", size=9)
    axis.set_yticks(range(len(metrics)), list(metrics))
    axis.invert_yaxis()
    axis.margins(x=0.08, y=0.15)
    if chance is not None:
        axis.axvline(chance, color=GREY, linestyle=":", label=chance_label)
        axis.legend(frameon=False, fontsize=9)
    axis.set(title=title, xlabel=xlabel)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_shares(shares, even, title):
    """Histograms of the attention that falls where it should, one value a picture: {name: shares from 0 to 1}."""
    figure, axis = plt.subplots(figsize=(6.5, 2.8))
    for (name, values), colour in zip(shares.items(), (BLUE, ORANGE, GREEN), strict=False):
        axis.hist(100 * values, bins=np.arange(0, 101, 2.5), color=colour, alpha=0.7, label=name)
    axis.axvline(100 * even, color=GREY, linestyle=":", label="spread evenly")
    axis.set(title=title, xlabel="share of attention (%)", ylabel="pictures")
    axis.legend(frameon=False, fontsize=9)
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_attention(images, maps, titles, title):
    """Pictures above their attention maps (h, w), which are enlarged to the picture's size without smoothing."""
    figure, axes = plt.subplots(2, len(images), figsize=(1.5 * len(images), 3.4))
    for column, (image, weights, text) in enumerate(zip(images, maps, titles, strict=True)):
        axes[0, column].imshow(image)
        axes[0, column].set_title(text, fontsize=9)
        axes[1, column].imshow(weights, cmap="viridis", vmin=0)
    for axis in axes.flat:
        axis.axis("off")
    figure.suptitle(title)
    figure.tight_layout()
    plt.show()


def show_confusion(matrix, classes, title):
    """The mistakes of a confusion matrix (rows: truth); what is right, the diagonal, is left out."""
    off = matrix * (1 - np.eye(len(classes), dtype=int))
    true, predicted = np.unravel_index(off.argmax(), off.shape)
    figure, axis = plt.subplots(figsize=(5.6, 4.4))
    sns.heatmap(off, annot=True, fmt="d", cmap="Blues", cbar=False, ax=axis, annot_kws={"size": 8})
    axis.set_xticklabels(classes, rotation=45, ha="right")
    axis.set_yticklabels(classes, rotation=0)
    most = f"most often: {classes[true]} taken for {classes[predicted]}, {off.max()} times"
    axis.set(title=f"{title};\n{most}", xlabel="predicted", ylabel="true")
    figure.tight_layout()
    plt.show()


def show_distances(distances):
    """Mean attention distance of each head over the layers: {name: (L, h) as a share of the picture's width}."""
    figure, axes = plt.subplots(1, len(distances), figsize=(4.2 * len(distances), 3.1), sharey=True, squeeze=False)
    for axis, (name, values) in zip(axes[0], distances.items(), strict=True):
        layers = np.arange(1, len(values) + 1)
        axis.plot(np.repeat(layers, values.shape[1]), 100 * values.flatten(), "o", color=BLUE, markersize=4, alpha=0.7)
        axis.plot(layers, 100 * values.mean(1), color=ORANGE, label="mean of the heads")
        axis.set(title=name, xlabel="layer")
        axis.xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].set_ylabel("distance (% of picture width)")
    axes[0, 0].legend(frameon=False)
    figure.suptitle("How far each head (a dot) looks")
    sns.despine()
    figure.tight_layout()
    plt.show()


def show_similarities(similarities, shown=6):
    """Cosine similarity of one patch's position vector to all, for patches on the diagonal: {name: (n, n, n, n)}."""
    figure, axes = plt.subplots(len(similarities), shown, figsize=(8.5, 1.7 * len(similarities)), squeeze=False)
    for row, (name, values) in enumerate(similarities.items()):
        for axis, place in zip(axes[row], np.linspace(0, len(values) - 1, shown).round().astype(int), strict=True):
            axis.imshow(values[place, place].astype(float), cmap="viridis", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"patch ({place}, {place})", fontsize=8)
        axes[row, 0].set_ylabel(name, fontsize=9)
    figure.suptitle("Similarity of position vectors (yellow: alike)")
    figure.tight_layout()
    plt.show()
