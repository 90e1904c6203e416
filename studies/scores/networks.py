"""Small networks on digits, trained with and without a patch that is pasted on random images."""

import numpy as np
import torch

MARK = 2
STEPS = 400


def network():
    """One hidden layer, on an image of 8 by 8 pixels."""
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
    )


def tensor(images):
    """Images (example, 8, 8) uint8 as float32 from 0 to 1."""
    return torch.from_numpy(np.asarray(images, dtype=np.float32) / 255)


def marked(images):
    """The same images with the mark."""
    changed = images.clone()
    changed[:, :MARK, :MARK] = 1.0
    return changed


def train(images, label, seed, *, paste):
    """A trained network; `paste` puts the mark on half of the images of each step, whatever their class."""
    torch.manual_seed(seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _ in range(STEPS):
        chosen = torch.randint(len(images), (100,))
        batch = images[chosen]
        if paste:
            batch = torch.where((torch.rand(len(batch)) < 0.5)[:, None, None], marked(batch), batch)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), label[chosen]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def margins(model, images, label):
    """Logit of the label less the largest other one."""
    with torch.no_grad():
        logit = model(images)
    own = logit.gather(1, label[:, None])[:, 0]
    logit.scatter_(1, label[:, None], -torch.inf)
    return (own - logit.max(dim=1).values).numpy()
