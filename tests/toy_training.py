"""A small training as a code notebook does it; test_resume.py and test_launch.py start a copy of it.

It has everything that a resume can get wrong: shuffled data, dropout, momentum, a schedule, an average of the weights,
a history. KILL_AT="2:3" dies by SIGKILL in epoch 2 (from 0) after batch 3; KILL_IN_SAVE="4" dies while the state after
4 epochs is being written; PAUSE="0.1" makes an epoch take so many seconds more.
"""

import os
import signal
import time

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nndl import lab

SETTINGS = {"epochs": (6, 6, 6), "width": (8, 8, 8), "compile": (False, False, False), "seed": (0, 0, 0)}


def asked(name, value):
    """Whether a variable of the environment has this value."""
    return os.environ.get(name) == value


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def loss_of(model, x, y):
    return nn.functional.binary_cross_entropy_with_logits(model(x), y)


def train(x, y):
    """Returns the averaged weights, the history and the last learning rate."""
    accelerator = run.accelerator
    model = nn.Sequential(nn.Linear(5, cfg.width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(cfg.width, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=12, gamma=0.5)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, shuffle=True)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    history = []
    if cfg.compile:
        model = torch.compile(model, backend="eager")

    model, optimizer, scheduler, loader = accelerator.prepare(model, optimizer, scheduler, loader)
    checkpoint = run.checkpoint("toy", [lab.fingerprint(x, y)], average=average, history=history)
    print("done before:", checkpoint.done, flush=True)
    for epoch in range(checkpoint.done, cfg.epochs):
        model.train()
        total = 0.0
        for step, (inputs, targets) in enumerate(loader):
            loss = loss_of(model, inputs, targets)
            optimizer.zero_grad()
            accelerator.backward(loss)
            optimizer.step()
            scheduler.step()
            average.update_parameters(accelerator.unwrap_model(model))
            total += loss.item()
            if asked("KILL_AT", f"{epoch}:{step}"):
                die()
        history.append(total)
        time.sleep(float(os.environ.get("PAUSE", "0")))
        if asked("KILL_IN_SAVE", str(epoch + 1)):
            accelerator.save_state = saving_then_dying(accelerator.save_state)
        checkpoint.save(epoch + 1)
    return average, history, optimizer.param_groups[0]["lr"]


def saving_then_dying(save_state):
    def save_and_die(folder):
        save_state(folder)
        die()

    return save_and_die


run = lab.start(SETTINGS)
cfg = run.cfg
inputs = torch.randn(64, 5)
targets = (inputs.sum(1, keepdim=True) > 0).float()
run.use_data("toy", "embedded", {"train": 64}, [inputs.numpy(), targets.numpy()])
with run.stage("training"):
    average, history, rate = train(inputs, targets)

average.eval()
with torch.no_grad():
    error = nn.functional.binary_cross_entropy_with_logits(average(inputs), targets, reduction="none")[:, 0]
run.metric("loss", lab.over_items(error), "nats", "loss of the averaged weights", "toy", headline=True)
for epoch, value in enumerate(history):
    run.metric(f"epoch_{epoch}", lab.over_items([value]), "nats", f"training loss, epoch {epoch}", "toy")
run.metric("rate", lab.over_items([rate]), "", "learning rate at the end", "toy")
run.finish()
