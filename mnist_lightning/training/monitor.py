"""What can be monitored: by early stopping, for the best checkpoint, in a sweep."""

import re
from typing import Literal

from lightning.pytorch import Trainer

from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError

Mode = Literal["min", "max"]

# The last of these words in a metric's name decides: `val_acc` and `MulticlassF1Score` up, `val_acc_loss` down.
MAX = "acc accuracy f auc auroc precision recall sensitivity specificity kappa matthews mcc jaccard iou dice map score"
MIN = "loss error err mse mae rmse nll entropy perplexity ece brier distance"
MODES: dict[str, Mode] = {**dict.fromkeys(MAX.split(), "max"), **dict.fromkeys(MIN.split(), "min")}

BEST_BY = "val_acc"  # unless an option names another metric


def mode_of(metric: str, mode: Mode | None, option: str) -> Mode:
    """Return whether a higher or a lower value of a metric is better: `mode` if given, else as its name says.

    If neither tells, that is a ConfigError, which asks for the option that sets the mode.

    >>> mode_of("val_loss", None, ""), mode_of("val_MulticlassF1Score", None, ""), mode_of("val_top5_acc", None, "")
    ('min', 'max', 'max')
    """
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)
    known = [MODES[word.lower()] for word in words if word.lower() in MODES]
    if mode is None and not known:
        raise ConfigError(f"{option} is needed: whether a higher {metric} is better (max) or a lower one (min)")
    return mode or known[-1]


def require_logged(metric: str, trainer: Trainer, option: str) -> None:
    """Raise a ConfigError at the end of an epoch without this metric, unless the first validation is still to come."""
    validated = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.completed
    if metric not in trainer.callback_metrics and (validated or not trainer.enable_validation):
        nearest = did_you_mean(metric, sorted(trainer.callback_metrics))
        raise ConfigError(f"{option}: {metric} was not logged{nearest}")


def logged_or_default(metric: str, mode: Mode, trainer: Trainer) -> tuple[str, Mode]:
    """Return the metric by which a checkpoint is best, and its mode; a model that logs no `val_acc` has `val_loss`."""
    if metric != BEST_BY:
        require_logged(metric, trainer, "checkpoint.monitor")
    elif BEST_BY not in trainer.callback_metrics and "val_loss" in trainer.callback_metrics:
        return "val_loss", "min"
    return metric, mode
