"""One trial: `fit` in a process of its own, so that a crash or a lack of memory costs a single trial."""

import contextlib
import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import optuna
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.cli import main
from mnist_lightning.cli.lightning_cli import TrainerCLI
from mnist_lightning.cli.output import silence_libraries
from mnist_lightning.errors import ConfigError
from mnist_lightning.tuning.leaderboard import REASON, RUN
from mnist_lightning.tuning.search_space import SweepConfig


def log_of(trial: optuna.Trial, config: SweepConfig) -> Path:
    """Return the file with everything that a trial printed."""
    return config.folder / "trials" / f"{trial.number}.txt"


class ScoreReporter(Callback):
    """Record the run's name and each validation's score in the study; stop training after the epoch if it is pruned.

    Args:
        trial: The trial that trains.
        metric: `val_acc` or `val_loss`.
    """

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric
        self.validations = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the run's name."""
        self.trial.set_user_attr(RUN, Path(trainer.checkpoint_callback.dirpath).name)  # type: ignore[union-attr]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record the score; a pruned trial still finishes its epoch and saves its checkpoint."""
        if trainer.sanity_checking:
            return
        self.trial.report(float(trainer.callback_metrics[self.metric]), self.validations)
        self.validations += 1
        if self.trial.should_prune():
            self.trial.set_user_attr(REASON, f"pruned after epoch {trainer.current_epoch}")
            trainer.should_stop = True


def start_trial(trial: optuna.Trial, config: SweepConfig, threads: int, gpu: str | None) -> BaseProcess:
    """Start the process of a trial.

    Args:
        trial: The trial.
        config: The sweep's config.
        threads: CPU threads to compute with.
        gpu: The GPU to use, as in `CUDA_VISIBLE_DEVICES`; None leaves the environment as it is.
    """
    # A fork server imports torch and Lightning once and not for each trial.
    context: Any = multiprocessing.get_context("forkserver" if hasattr(os, "fork") else "spawn")
    context.set_forkserver_preload(["mnist_lightning.tuning.trial"])
    log_of(trial, config).touch()
    process: BaseProcess = context.Process(target=_fit, args=(trial, config, threads, gpu))
    process.start()
    return process


def _fit(trial: optuna.Trial, config: SweepConfig, threads: int, gpu: str | None) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C reaches the sweep alone, which then terminates this process
    with log_of(trial, config).open("w") as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    torch.set_num_threads(threads)
    threading.Thread(target=_terminate_after_parent, daemon=True).start()
    main.main(config.command_line(trial.params), callbacks=[ScoreReporter(trial, config.study.metric)])


def _terminate_after_parent() -> None:
    """Wait until the sweep has ended, which may have been killed; then terminate this trial."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


class _Accepted(Exception):  # noqa: N818  # not an error
    """The options are valid."""


class _OptionCheck(TrainerCLI):
    """Parse a command line and build the model, the data and the callbacks, but no Trainer."""

    def instantiate_classes(self) -> None:
        """Build what the options describe, check that a sweep can use it, and stop there."""
        self.parser.instantiate_classes(self.config)
        options = self.config["fit"]
        if 0 in (options.data.get("val_size"), options.trainer.limit_val_batches):
            raise ConfigError("a sweep needs validation images: data.val_size or trainer.limit_val_batches leaves none")
        raise _Accepted


def check_trials(config: SweepConfig) -> None:
    """Check the options of trials at both ends of every range and with every choice; train nothing.

    Raises:
        ConfigError: If `fit` would refuse one of them; what its parser refuses exits with 2.
    """
    silence_libraries()
    for params in config.corners():
        with contextlib.suppress(_Accepted):
            _OptionCheck(config.command_line(params))
