"""Learning-rate schedules as closed forms of the step."""

import math


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
