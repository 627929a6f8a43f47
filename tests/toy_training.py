"""A small training as a code notebook does it; test_lab.py and test_launch.py copy it next to a lab.py and start it.

It has everything that a resume can get wrong: shuffled data, dropout, momentum, a schedule, an average of the weights,
a history. KILL_AT="2:3" dies by SIGKILL in epoch 2 (from 0) after batch 3; KILL_IN_SAVE="4" dies while the state after
4 epochs is being written.
"""

import os
import signal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import lab

SETTINGS = {"epochs": (6, 6, 6), "width": (8, 8, 8), "seed": (0, 0, 0)}


def die():
    os.kill(os.getpid(), signal.SIGKILL)


run = lab.start(SETTINGS)
cfg, accelerator = run.cfg, run.accelerator
kill_epoch, kill_batch = map(int, os.environ.get("KILL_AT", "-1:-1").split(":"))
kill_in_save = int(os.environ.get("KILL_IN_SAVE", "-1"))

x = torch.randn(64, 5)
y = (x.sum(1, keepdim=True) > 0).float()
run.use_data("toy", "embedded", {"train": 64}, [x.numpy(), y.numpy()])

model = nn.Sequential(nn.Linear(5, cfg.width), nn.ReLU(), nn.Dropout(0.3), nn.Linear(cfg.width, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=12, gamma=0.5)
loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=8, shuffle=True)
average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
history = []

model, optimizer, scheduler, loader = accelerator.prepare(model, optimizer, scheduler, loader)
checkpoint = run.checkpoint("toy", vars(cfg), average=average, history=history)
print("done before:", checkpoint.done, flush=True)

for epoch in range(checkpoint.done, cfg.epochs):
    model.train()
    total = 0.0
    for step, (inputs, targets) in enumerate(loader):
        loss = nn.functional.binary_cross_entropy_with_logits(model(inputs), targets)
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        average.update_parameters(accelerator.unwrap_model(model))
        total += loss.item()
        if (epoch, step) == (kill_epoch, kill_batch):
            die()
    history.append(total)
    if epoch + 1 == kill_in_save:

        def save_and_die(folder, save_state=accelerator.save_state):
            save_state(folder)
            die()

        accelerator.save_state = save_and_die
    checkpoint.save(epoch + 1)

average.eval()
with torch.no_grad():
    error = nn.functional.binary_cross_entropy_with_logits(average(x), y, reduction="none")[:, 0]
run.metric("loss", lab.over_items(error), "nats", "loss of the averaged weights", "toy")
for epoch, value in enumerate(history):
    run.metric(f"epoch_{epoch}", lab.over_items([value]), "nats", f"training loss, epoch {epoch}", "toy")
rate = optimizer.param_groups[0]["lr"]
run.metric("rate", lab.over_items([rate]), "", "learning rate at the end", "toy")
run.finish()
