"""A plain torch loop: python torch_loop.py STUDY. Run it again after a kill, or in several processes with other parts."""

import sys

import torch
from torch.nn.functional import cross_entropy

import dmstore
from dmstore.training import RunWriter, margin

RUNS, EPOCHS, BATCH = 20, 4, 100
device = "cuda" if torch.cuda.is_available() else "cpu"

study = dmstore.open_study(sys.argv[1])
if "torch-mlp" not in study.algorithms:
    study.add_algorithm("torch-mlp", runs=RUNS)


def load(examples):
    """Images as rows of floats, and labels, on the device."""
    image = torch.from_numpy(examples.image.values).to(device).flatten(1) / 255
    return image, torch.from_numpy(examples.label.values).to(device)


train_x, train_y = load(study.train)
target_x, target_y = load(study.targets)


def train(run):
    """A model of what the run may see: order and weights follow from its seed alone."""
    torch.manual_seed(run.seed)
    seen = torch.tensor(run.mask, device=device).nonzero()[:, 0]
    model = torch.nn.Sequential(
        torch.nn.Linear(train_x.shape[1], 32),
        torch.nn.ReLU(),
        torch.nn.Linear(32, len(study.class_names)),
    ).to(device)
    steps = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(EPOCHS):
        for batch in seen[torch.randperm(len(seen)).to(device)].split(BATCH):
            steps.zero_grad()
            cross_entropy(model(train_x[batch]), train_y[batch]).backward()
            steps.step()
    return model


with RunWriter(study, "torch-mlp", part="1/1") as writer:
    for run in writer.pending(progress=True):
        logit = train(run)(target_x)  # (target, class), with its gradient, on the device
        accuracy = (logit.argmax(-1) == target_y).float().mean()
        writer.append(run, margin=margin(logit, target_y), accuracy=accuracy)
