"""A trial: `fit` in a process of its own, which tells its scores and is told when to give up.

In a process of its own, so that running out of memory or crashing costs one trial. The processes are forked from a
server that has imported everything, where the system has fork.
"""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.cli import main
from mnist_lightning.training.classifier import Classifier


class Score(NamedTuple):
    """The score of an epoch, as a trial tells it."""

    epoch: int
    value: float


class Reporter(Callback):
    """Tell the run's name and each validation's score; stop after an epoch when told to, and when nobody listens.

    Args:
        connection: Where to tell it: the name as str, then each `Score`, which is answered by whether to stop.
        metric: `val_acc` or `val_loss`.
    """

    def __init__(self, connection: "Connection[Any, Any]", metric: str) -> None:
        self.connection = connection
        self.metric = metric

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the run's name."""
        self.connection.send(Path(trainer.checkpoint_callback.dirpath).name)  # type: ignore[union-attr]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the score and hear whether to stop; the epoch then ends, and the run is saved as any other."""
        assert isinstance(pl_module, Classifier)
        if trainer.sanity_checking:
            return
        self.connection.send(Score(trainer.current_epoch, pl_module.metrics[self.metric]))
        try:
            trainer.should_stop = trainer.should_stop or self.connection.recv()
        except EOFError:
            raise SystemExit(1) from None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End when the sweep is gone: unasked, it says nothing else."""
        if self.connection.poll():
            raise SystemExit(1)


def start(args: Sequence[str], metric: str, log: Path, threads: int) -> "tuple[BaseProcess, Connection[Any, Any]]":
    """Start a trial; the connection gives what a `Reporter` tells, and ends with the process.

    Args:
        args: The command line, from `fit` on.
        metric: The score to tell.
        log: File for what it prints.
        threads: Threads that it computes with.
    """
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload(["mnist_lightning.cli.lightning_cli", "mnist_lightning.tuning.sweep.trial"])
    ours, theirs = context.Pipe()
    process = context.Process(target=_train, args=(list(args), metric, theirs, log, threads))
    process.start()
    theirs.close()
    return process, ours


def _train(args: list[str], metric: str, connection: "Connection[Any, Any]", log: Path, threads: int) -> None:
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the sweep, which then ends this process
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(handle, stream)
    torch.set_num_threads(threads)
    main.main(args, callbacks=[Reporter(connection, metric)])
