"""The arguments of a Trainer, so that Lightning's options and callbacks work beside this project's, or are refused."""

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, callbacks
from lightning.pytorch.plugins import CheckpointIO, Precision

from mnist_lightning.errors import ConfigError
from mnist_lightning.training.callbacks.early_stopping import RunEarlyStopping
from mnist_lightning.training.callbacks.figures import TensorBoardFigures
from mnist_lightning.training.callbacks.progress_bar import RunProgressBar
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from mnist_lightning.training.logger import RunLogger

# Callbacks that cannot do here what they promise, each with what does the same.
REFUSED: dict[type[Callback], str] = {
    callbacks.StochasticWeightAveraging: "checkpoints would not contain its average; --model.ema_decay 0.999 averages "
    "the weights, and the average is validated, saved and tested",
    callbacks.ModelPruning: "a pruned network could not be resumed; train, then use torch.nn.utils.prune",
    callbacks.OnExceptionCheckpoint: "every epoch is saved, and a signal saves the run before it ends; "
    "--checkpoint.every_n_steps saves more often",
    callbacks.BasePredictionWriter: "no command runs Trainer.predict; `predict` labels images and rows, and `test` "
    "writes predictions.csv",
}
BASE_CLASSES = (Callback, callbacks.BaseFinetuning, callbacks.Checkpoint, callbacks.ProgressBar)
LOG_STEPS = 50  # Lightning's default of log_every_n_steps, for callbacks that log at each of these steps
# Set where one of several machines is told about the others.
CLUSTER = ("MASTER_ADDR", "NODE_RANK", "GROUP_RANK", "SLURM_JOB_ID", "LSB_JOBID", "KUBERNETES_PORT", "PMI_SIZE")


def trainer_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with which Lightning's Trainer does what the options ask for.

    This project's checkpoints, early stopping and progress bar make way for the user's. A single callback or plugin
    becomes a list. An option or callback that would do nothing, or the opposite of what it promises, is a ConfigError.
    """
    given = {**options, "callbacks": as_list(options.get("callbacks")), "plugins": as_list(options.get("plugins"))}
    _check(given)
    if given.get("barebones"):
        given["enable_checkpointing"] = given["enable_progress_bar"] = False
        loggers = [each for each in as_list(given.get("logger")) if not isinstance(each, RunLogger | bool)]
        given["logger"] = loggers or None
        warnings.filterwarnings("ignore", message="You are trying to `self.log")  # which then does nothing
    unused: list[type[Callback]] = [] if given.get("enable_checkpointing") is not False else [RunCheckpoint]
    own_bar = _any_of(given["callbacks"], callbacks.ProgressBar, but=RunProgressBar)
    shows_bar = given.get("enable_progress_bar")
    if shows_bar is None:
        shows_bar = own_bar or sys.stderr.isatty()
    given["enable_progress_bar"] = shows_bar
    unused += [RunProgressBar] if own_bar or not shows_bar else []
    unused += [TensorBoardFigures] if given.get("barebones") else []
    unused += [RunEarlyStopping] if _any_of(given["callbacks"], callbacks.EarlyStopping, but=RunEarlyStopping) else []
    given["callbacks"] = [each for each in given["callbacks"] if not isinstance(each, tuple(unused))]
    if given.get("log_every_n_steps") == 0 and any(map(_logs_steps, given["callbacks"])):
        given["log_every_n_steps"] = LOG_STEPS
    if _any_of(given["plugins"], Precision) and given.get("precision") == "auto":
        given["precision"] = None
    return given


def as_list(value: Any) -> list[Any]:
    """Return a list of what is given singly, as a list, or not at all."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def without_finders(values: list[Callback]) -> list[Callback]:
    """Return callbacks without those that try values before training: a trained network has them already."""
    return [each for each in values if not isinstance(each, callbacks.LearningRateFinder | callbacks.BatchSizeFinder)]


def _any_of(values: list[Any], kind: type, but: type | tuple[type, ...] = ()) -> bool:
    return any(isinstance(value, kind) and not isinstance(value, but) for value in values)


def _logs_steps(callback: Callback) -> bool:
    if isinstance(callback, callbacks.LearningRateMonitor):
        return callback.logging_interval != "epoch"
    return isinstance(callback, callbacks.DeviceStatsMonitor | callbacks.ThroughputMonitor)


def _check(given: Mapping[str, Any]) -> None:
    for callback in given["callbacks"]:
        if type(callback) in BASE_CLASSES:
            raise ConfigError(f"trainer.callbacks: {type(callback).__name__} does nothing itself; name a subclass")
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise ConfigError(f"trainer.callbacks cannot contain {type(callback).__name__}: {reason}")
    if _any_of(given["plugins"], CheckpointIO, but=DurableCheckpointIO):
        raise ConfigError(
            "trainer.plugins cannot contain a CheckpointIO: DurableCheckpointIO keeps a run's best, last and manifest; "
            "another ModelCheckpoint in trainer.callbacks saves elsewhere"
        )
    if given.get("gradient_clip_algorithm") and given.get("gradient_clip_val") is None:
        raise ConfigError("trainer.gradient_clip_algorithm does nothing without trainer.gradient_clip_val")
    if given.get("model_registry"):
        raise ConfigError("trainer.model_registry is not supported; upload the run's best.ckpt with litmodels")
    if (nodes := given.get("num_nodes") or 1) > 1 and not any(name in os.environ for name in CLUSTER):
        raise ConfigError(
            f"trainer.num_nodes is {nodes}, but nothing names the other machines; start each with torchrun, or set "
            "MASTER_ADDR, MASTER_PORT and NODE_RANK"
        )
