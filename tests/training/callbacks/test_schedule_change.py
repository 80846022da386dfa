"""Resuming with more epochs stretches a schedule over all steps; a line says what the learning rate was and will be."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LambdaCallback
from torch.optim import SGD
from torch.optim.lr_scheduler import OneCycleLR

from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.training.callbacks.schedule_change import ScheduleChange
from mnist_lightning.training.trainer import AutoTrainer
from tests.conftest import Command

COMMON = ("--data.batch_size", "80", "--model.lr", "0.001")  # three steps an epoch
LINE = r"learning rate rises from (\S+) to (\S+): its schedule .* after 12 steps"


def test_linear_decay_is_stretched_over_a_longer_training(fit: Command) -> None:
    options = (*COMMON, "--model.lr_scheduler", "linear")
    assert fit(*options, "--trainer.max_epochs", "2").code == 0
    resumed = fit(*options, "--ckpt_path", "last", "--trainer.max_epochs", "4")
    ((before, after),) = re.findall(LINE, resumed.out)
    expected = (1 - 7 / 7, 1 - 8 / 13)  # after 6 of 6 steps, and after 7 of 12
    assert (float(before), float(after)) == pytest.approx([1e-3 * factor for factor in expected], rel=1e-4, abs=1e-9)


def test_one_cycle_is_stretched_over_a_longer_training(
    digits_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rates: list[float] = []
    record = LambdaCallback(on_train_batch_end=lambda trainer, *_: rates.append(_rate(trainer)))
    for epochs, checkpoint in ((2, None), (4, tmp_path / "a.ckpt")):
        schedule = partial(OneCycleLR, max_lr=0.1, total_steps=None)
        model = Classifier(lr=0.1, optimizer=SGD, lr_scheduler=schedule, lr_scheduler_interval="step")
        data = MNISTDataModule(str(digits_dir), batch_size=80, val_size=60, source="files")
        off: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        callbacks = [ScheduleChange(), record]
        trainer = AutoTrainer(
            accelerator="cpu", max_epochs=epochs, callbacks=callbacks, enable_checkpointing=False, **off
        )
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
    expected = [_one_cycle(step, 6) for step in range(1, 7)] + [_one_cycle(step, 12) for step in range(7, 13)]
    assert rates == pytest.approx(expected)
    assert len(re.findall(LINE, capsys.readouterr().out)) == 1


def test_a_schedule_of_the_same_length_is_not_mentioned(fit: Command) -> None:
    options = (*COMMON, "--model.lr_scheduler", "cosine", "--trainer.max_epochs", "3")
    assert fit(*options).code == 0
    (first,) = Path("checkpoints/version_0").glob("epoch=00*")
    resumed = fit(*options, "--ckpt_path", str(first))
    assert resumed.code == 0
    assert "learning rate" not in resumed.out


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])


def _one_cycle(step: int, total: int) -> float:
    """Return the learning rate that torch's OneCycleLR has after some steps."""
    optimizer = SGD([torch.zeros(1)], lr=0.1)
    schedule = OneCycleLR(optimizer, max_lr=0.1, total_steps=total, cycle_momentum=False)
    for _ in range(step):
        optimizer.step()
        schedule.step()
    return float(optimizer.param_groups[0]["lr"])
