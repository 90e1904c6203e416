"""A callback that stores each finished model: python callback.py STUDY.

With Lightning, derive it from ``lightning.Callback``; nothing else changes::

    for run in writer.pending():
        lightning.seed_everything(run.seed % 2**32)
        seen = torch.utils.data.Subset(dataset, run.mask.nonzero()[0])
        trainer = lightning.Trainer(max_epochs=4, callbacks=[StoreRun(writer, run, target_x, target_y)])
        trainer.fit(Module(), torch.utils.data.DataLoader(seen, batch_size=100, shuffle=True))
"""

import sys

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

import dmstore
from dmstore.training import RunWriter, margin


class StoreRun:
    """Appends what the trained module says on the targets."""

    def __init__(self, writer, run, x, y):
        self.writer, self.run, self.x, self.y = writer, run, x, y

    def on_train_end(self, trainer, module):
        """Ask the model about every target, and store what it says."""
        module.eval()
        with torch.no_grad():
            logit = module(self.x)
        self.writer.append(self.run, margin=margin(logit, self.y), epochs=trainer.max_epochs)


class Trainer:
    """As much of a trainer as this example needs."""

    def __init__(self, max_epochs, callbacks):
        self.max_epochs, self.callbacks = max_epochs, callbacks

    def fit(self, module, loader):
        """Train, then call back."""
        steps = torch.optim.SGD(module.parameters(), lr=0.3, momentum=0.9)
        for _ in range(self.max_epochs):
            for x, y in loader:
                steps.zero_grad()
                cross_entropy(module(x), y).backward()
                steps.step()
        for callback in self.callbacks:
            callback.on_train_end(self, module)


study = dmstore.open_study(sys.argv[1])
if "callback" not in study.algorithms:
    study.add_algorithm("callback", runs=10)
x, target_x = (
    torch.from_numpy(e.image.values).flatten(1) / 255 for e in (study.train, study.targets)
)
y, target_y = (torch.from_numpy(e.label.values) for e in (study.train, study.targets))
dataset = TensorDataset(x, y)

with RunWriter(study, "callback", part="1/1") as writer:
    for run in writer.pending():
        torch.manual_seed(run.seed)
        seen = Subset(dataset, run.mask.nonzero()[0])
        trainer = Trainer(max_epochs=4, callbacks=[StoreRun(writer, run, target_x, target_y)])
        module = torch.nn.Linear(x.shape[1], len(study.class_names))
        trainer.fit(module, DataLoader(seen, batch_size=100, shuffle=True))
