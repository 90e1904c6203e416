"""Learning rates over a run. Pure functions of the config."""

from __future__ import annotations

from dmstore.training.config import TrainingConfig


def learning_rate(config: TrainingConfig, epoch: int, share: float) -> float:
    """Learning rate of a step (paper B.2).

    Parameters
    ----------
    config : TrainingConfig
    epoch : int
        From 0.
    share : float
        Of the epoch that is done, 0 to 1.
    """
    top = config.learning_rate
    if config.schedule == "step":
        return float(top * config.schedule_factor ** (epoch // config.schedule_epochs))
    at = epoch + share
    if config.schedule == "linear":
        return top * max(0.0, 1 - at / config.epochs)
    if config.schedule == "triangle":
        if at < config.peak_epoch:
            return top * at / config.peak_epoch
        return top * max(0.0, (config.epochs - at) / (config.epochs - config.peak_epoch))
    return top
