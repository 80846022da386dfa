"""Learning-rate schedules that are closed forms of the step, and so need no state to resume exactly."""

import math
from typing import Literal

from lightning.pytorch import Trainer

from mnist_lightning.errors import ConfigError

Schedule = Literal["plateau", "linear", "cosine"]


def lr_factor(progress: float, *, schedule: Schedule, warmup: float) -> float:
    """Return what to multiply the learning rate by, in [0, 1].

    With a warm-up of about 0.3 it is the one-cycle policy, here from 0 and back to 0: Smith and Topin 2017,
    "Super-Convergence", https://arxiv.org/abs/1708.07120.

    Args:
        progress: Share of all steps that are done, in [0, 1].
        schedule: `plateau` leaves the rate to the validation loss, so its factor is 1.
        warmup: Share of the steps over which the factor rises from 0 to 1, in [0, 1).

    >>> [lr_factor(step / 4, schedule="linear", warmup=0.5) for step in range(5)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    >>> round(lr_factor(0.5, schedule="cosine", warmup=0.0), 6)
    0.5
    """
    if schedule == "plateau":
        return 1.0
    if progress < warmup:
        return progress / warmup
    left = (1 - progress) / (1 - warmup)
    return left if schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def total_steps(trainer: Trainer) -> int:
    """Return how many optimizer steps a training takes, once its batches are known.

    Lightning's own count would forget where a resumed epoch goes on (issue 20550 of its repository).

    Raises:
        ConfigError: If the training has no end.
    """
    ends = [trainer.max_steps] if trainer.max_steps > 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        ends.append(trainer.max_epochs * math.ceil(int(trainer.num_training_batches) / trainer.accumulate_grad_batches))
    if not ends:
        raise ConfigError("this model.schedule needs an end to fall to: set trainer.max_epochs or trainer.max_steps")
    return min(ends)
