"""Learning-rate schedules: `plateau`, any of torch's, and the closed forms `linear` and `cosine` with a warm-up.

Lightning steps them, as `lr_scheduler_config` says; a run that is resumed catches up in `callbacks/exact_resume.py`.
"""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from mnist_lightning.errors import ConfigError
from mnist_lightning.models.class_path import build, with_arguments


def lr_scheduler_config(
    optimizer: Optimizer, options: Mapping[str, Any], trainer: Trainer | None
) -> LRSchedulerConfigType | None:
    """Return the learning-rate schedule of an optimizer and when it is stepped; None if it could never act.

    Args:
        optimizer: The optimizer.
        options: Hyper-parameters, as `Classifier` has them.
        trainer: The Trainer, which knows the number of steps and when it validates; None in a plain loop.
    """
    scheduler = _make_lr_scheduler(optimizer, options, trainer)
    interval = "step" if options["lr_scheduler"] in ("linear", "cosine") else options["lr_scheduler_interval"]
    if not isinstance(scheduler, ReduceLROnPlateau):
        return {"scheduler": scheduler, "interval": interval}
    monitor = getattr(scheduler, "monitor", "val_loss")  # Lightning's own ReduceLROnPlateau names one
    if trainer and not trainer.enable_validation and monitor.startswith("val"):
        return None
    every = ((trainer and trainer.check_val_every_n_epoch) or 1) if interval == "epoch" else 1
    return {"scheduler": scheduler, "interval": interval, "monitor": monitor, "frequency": every, "strict": False}


def _make_lr_scheduler(
    optimizer: Optimizer, options: Mapping[str, Any], trainer: Trainer | None
) -> LRScheduler | ReduceLROnPlateau:
    schedule: Any = options["lr_scheduler"]
    if schedule == "plateau":
        factor, patience = options["plateau_factor"], options["plateau_patience"]
        return ReduceLROnPlateau(optimizer, mode="min", factor=factor, patience=patience)
    if not isinstance(schedule, str):
        if schedule["init_args"].get("total_steps", 0) is None:  # of OneCycleLR, for example
            schedule = with_arguments(schedule, {"total_steps": _all_steps(trainer)})
        return build(schedule, object, optimizer)  # type: ignore[return-value]  # schedules have no common base class
    total, warmup = _all_steps(trainer), options["warmup"]
    if not 0 < total < math.inf:
        raise ConfigError("model.lr_scheduler needs to know the last step: set trainer.max_epochs or trainer.max_steps")
    return LambdaLR(optimizer, lambda step: lr_factor((step + 1) / (total + 1), schedule=schedule, warmup=warmup))


def _all_steps(trainer: Trainer | None) -> float:
    return trainer.estimated_stepping_batches if trainer else math.inf


def lr_factor(progress: float, *, schedule: str, warmup: float) -> float:
    """Return the factor to multiply the learning rate by, in [0, 1].

    With a warm-up of about 0.3 this is the one-cycle policy, from 0 and back to 0: Smith and Topin 2017,
    "Super-Convergence", https://arxiv.org/abs/1708.07120.

    Args:
        progress: Fraction of all steps that have been taken, in [0, 1].
        schedule: Shape of the decay after the warm-up, `linear` or `cosine`.
        warmup: Fraction of the steps over which the factor rises from 0 to 1, in [0, 1).

    >>> [lr_factor(step / 4, schedule="linear", warmup=0.5) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> round(lr_factor(0.5, schedule="cosine", warmup=0.0), 6)
    0.5
    """
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2
