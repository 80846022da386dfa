"""Each run says why it ended: the callback that stopped it, or the limit that it reached."""

import re
import shlex
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, LambdaCallback, Timer

from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.training.trainer import AutoTrainer, reason_of_end
from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("undrawn")


class StopsAtStep(Callback):
    """A callback as anybody may write it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step:
            self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        trainer.should_stop = True


class StopsItself(Classifier):
    """A module that stops its own training."""

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.trainer.should_stop = True


def stop(trainer: Trainer, _: LightningModule) -> None:
    """Stop, as the hook of a LambdaCallback."""
    trainer.should_stop = True


def never() -> EarlyStopping:
    """Early stopping that has no reason to stop."""
    return EarlyStopping("val_loss", patience=100)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: [], "ended after 3 epochs (trainer.max_epochs)"),
        (lambda: [never(), StopsAtStep(2)], "stopped by StopsAtStep"),
        (lambda: [StopsAtStep(99), LambdaCallback(on_train_epoch_end=stop)], "stopped by LambdaCallback"),
        (lambda: [never(), Timer(timedelta(seconds=0))], "stopped by Timer: time limit of 0:00:00"),
        (
            lambda: [never(), EarlyStopping("val_acc", mode="max", min_delta=2, patience=1), Timer("00:01:00:00")],
            "stopped early: val_acc did not improve for 1 epoch",
        ),
        (
            lambda: [EarlyStopping("train_loss", stopping_threshold=1e9, check_on_train_epoch_end=True)],
            "stopped early by train_loss: Stopping threshold reached: train_loss = ",
        ),
    ],
)
def test_the_reason_is_that_of_the_callback_that_stopped_the_training(
    make: Callable[[], list[Callback]], reason: str, digits_dir: Path
) -> None:
    assert _reason(Classifier(), digits_dir, make()).startswith(reason)


def test_a_module_that_stops_is_named(digits_dir: Path) -> None:
    assert _reason(StopsItself(), digits_dir, []) == "stopped by StopsItself"


def test_a_limit_of_steps_and_the_unit_of_patience_are_named(digits_dir: Path) -> None:
    assert _reason(Classifier(), digits_dir, [], max_steps=2) == "ended after 2 steps (trainer.max_steps)"
    callbacks: list[Callback] = [EarlyStopping("val_loss", min_delta=99, patience=2)]
    reason = _reason(Classifier(), digits_dir, callbacks, val_check_interval=1)
    assert reason == "stopped early: val_loss did not improve for 2 validations"


def test_a_resumed_run_that_had_stopped_early_says_why_it_ended_this_time(fit: Command) -> None:
    stopping = ("--early_stopping.min_delta", "99", "--early_stopping.patience")
    assert "stopped early: val_loss did not improve for 1 epoch" in fit(*stopping, "1").out
    resumed = fit("--ckpt_path", "last", *stopping, "9", "--trainer.max_epochs", "3")
    assert "ended after 3 epochs (trainer.max_epochs)" in resumed.out
    assert "stopped" not in resumed.out


def test_resuming_a_run_whose_time_is_used_up_says_so(fit: Command) -> None:
    assert (
        "stopped by Timer: time limit of 0:00:01"
        in fit("--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", "999").out
    )
    again = fit("--ckpt_path", "last")
    assert (again.code, again.out) == (0, "version_0 has finished: stopped by Timer: time limit of 0:00:01\n")


@pytest.mark.slow
def test_the_next_command_scores_this_run(fit: Command, command: Command, tmp_path: Path) -> None:
    root = tmp_path / "with a space"
    options = ("--trainer.default_root_dir", str(root), "--trainer.limit_train_batches", "1", "--trainer.max_epochs")
    for run, args in (
        ("version_0", ["1"]),
        ("version_1", ["1"]),
        ("version_0", ["2", "--ckpt_path", "version_0/last"]),
    ):
        outcome = fit(*options, *args)
        (line,) = re.findall(r"next: python -m mnist_lightning (.*)", outcome.out)
        assert f"checkpoints/{run}/best.ckpt: test accuracy" in command(*shlex.split(line)).out


def _reason(model: Classifier, data_dir: Path, callbacks: list[Callback], **options: Any) -> str:
    data = MNISTDataModule(str(data_dir), batch_size=100, val_size=60, source="files")
    off: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = AutoTrainer(accelerator="cpu", max_epochs=3, callbacks=callbacks, **off, **options)
    trainer.fit(model, datamodule=data)
    return reason_of_end(trainer)
