"""The learning-rate range test: a short training whose learning rate climbs, to see where the loss falls fastest.

Smith 2015, "Cyclical learning rates for training neural networks", https://arxiv.org/abs/1506.01186, section 3.3; here
with the loss in place of the accuracy, and a rate that grows by a factor and not by a sum.

It trains a network of its own in a Trainer of its own, and both are thrown away: the run that follows is the one of
whoever types the learning rate. Lightning's `Tuner.lr_find` works inside the run, after its config was saved. It reads
back a checkpoint of untrained weights, which this project refuses, and its rate is a scheduler's, which a module that
sets its own at each step overrules: with the schedule `cosine` it suggests 6e-6.
"""

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from numpy.typing import NDArray
from torch.optim import Optimizer

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.plots import as_png, range_test
from mnist_lightning.training.trainer import AutoTrainer

Numbers = NDArray[np.float64]

LOWEST_LR, HIGHEST_LR, STEPS = 1e-6, 1.0, 150
WINDOW = 13  # steps that a slope is fitted to: half a power of ten
NOTABLE = 0.1  # share of the first loss: a mean over `WINDOW` steps that moves by less has only trembled
DIVERGED = 4.0  # times the first loss; the rest of the climb would show nothing
PICTURE, TABLE = "find_lr.png", "find_lr.csv"


@dataclass(frozen=True)
class RangeTest:
    """What a range test measured.

    Args:
        lrs: The learning rate of each step.
        losses: The loss of each step's batch, in nats, before the step was taken.
    """

    lrs: list[float]
    losses: list[float]

    @property
    def suggestion(self) -> float:
        """The learning rate at which the loss fell fastest, to two digits, so that it can be typed.

        That is the middle of the steepest line through `WINDOW` steps, up to where the loss is lowest before it first
        rises: what leaps falls again, and faster than it learns.

        Raises:
            ConfigError: If the loss fell nowhere.
        """
        advice = "look at the data, or train with --model.lr"
        if len(self.losses) <= WINDOW:
            raise ConfigError(
                f"the loss diverged at step {len(self.losses)} of --find_lr, with a learning rate of "
                f"{self.lrs[-1]:.2g}; {advice}"
            )
        slopes, means = lines(np.log10(self.lrs), np.array(self.losses))
        has_risen = means > np.minimum.accumulate(means) + NOTABLE * means[0]
        end = int(has_risen.argmax()) if has_risen.any() else len(means)
        lowest = int(means[:end].argmin())
        if means[0] - means[lowest] < NOTABLE * means[0]:
            raise ConfigError(
                f"the loss hardly fell in {len(self.losses)} steps of --find_lr, up to a learning rate of "
                f"{self.lrs[-1]:.2g}; {advice}"
            )
        return float(f"{self.lrs[int(slopes[: lowest + 1].argmin()) + WINDOW // 2]:.1e}")

    def write(self, folder: Path) -> str:
        """Write picture and table into a folder; return what to say of it."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("lr", "loss"), *zip(self.lrs, self.losses, strict=True)])
        replace_file(folder / TABLE, table.getvalue().encode())
        replace_file(folder / PICTURE, as_png(range_test(self.lrs, self.losses, self.suggestion)))
        return (
            f"learning rate: {self.suggestion:g}, where the loss fell fastest in {len(self.losses)} steps "
            f"from {self.lrs[0]:.2g} to {self.lrs[-1]:.2g}; {folder / PICTURE}"
        )


class Climb(Callback):
    """Raise the learning rate by the same factor at each step, note the loss, and stop where it diverges."""

    def __init__(self) -> None:
        self.lrs: list[float] = []
        self.losses: list[float] = []
        self._parts: list[torch.Tensor] = []  # of a step that accumulates the gradients of several batches

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Set the learning rate: here, for the module sets its own before the batch."""
        lr = LOWEST_LR * (HIGHEST_LR / LOWEST_LR) ** (trainer.global_step / (STEPS - 1))
        for group in optimizer.param_groups:
            group["lr"] = lr

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss, which Lightning has divided by the batches of a step: the mean over them and all processes."""
        self._parts.append(outputs["loss"] * trainer.accumulate_grad_batches)
        if trainer.global_step == len(self.losses):
            return
        together = trainer.strategy.reduce(torch.stack(self._parts).mean(), reduce_op="mean")
        assert isinstance(together, torch.Tensor)
        self._parts.clear()
        loss = together.item()
        if math.isfinite(loss):
            self.lrs.append(trainer.optimizers[0].param_groups[0]["lr"])
            self.losses.append(loss)
        if not math.isfinite(loss) or loss > DIVERGED * self.losses[0]:
            trainer.should_stop = True


def find_lr(model: LightningModule, datamodule: LightningDataModule, options: dict[str, Any]) -> RangeTest:
    """Train a model, which is of no use afterwards, with a learning rate that climbs.

    Batches are those that the run would train on; where an epoch has too few, the next one goes on.

    Args:
        model: A new one.
        datamodule: Its data.
        options: The run's options of the Trainer; those that decide how a step is computed are obeyed.

    Raises:
        ConfigError: If there is nothing to train on, or the loss is not finite from the start.
    """
    climb = Climb()
    own = {
        "callbacks": [climb],
        "max_epochs": -1,
        "max_steps": STEPS,
        "limit_val_batches": 0,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        **dict.fromkeys(("min_epochs", "min_steps", "max_time", "profiler")),
    }
    AutoTrainer(**options | own).fit(model, datamodule)
    if not climb.losses:
        raise ConfigError(
            "--find_lr found nothing to learn from: trainer.limit_train_batches leaves no batch, or the loss is not "
            "finite from the start"
        )
    return RangeTest(climb.lrs, climb.losses)


def lines(places: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Return the slopes and the means (N - WINDOW + 1,) of the least-squares lines through `WINDOW` points in a row.

    Args:
        places: Where the points are, (N,).
        values: What they are, (N,).

    >>> slopes, means = lines(np.arange(20.0), 3 * np.arange(20.0))
    >>> slopes.round(9).tolist() == [3.0] * 8, means[0].item()
    (True, 18.0)
    """
    x, y = (np.lib.stride_tricks.sliding_window_view(array, WINDOW) for array in (places, values))
    x = x - x.mean(axis=1, keepdims=True)
    return (x * y).sum(axis=1) / (x * x).sum(axis=1), y.mean(axis=1)
