"""With a stock Trainer: what `ExactResume` adds to the checkpoints of Lightning."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from tests.training.bits import assert_same


def random_number(seed: int, step: int, batch: int = 0, accumulate: int = 1) -> float:
    """Return the first random number that a training step draws."""
    trainer = SimpleNamespace(global_step=step, global_rank=0, accumulate_grad_batches=accumulate)
    ExactResume(seed).on_train_batch_start(cast(Any, trainer), Classifier(), cast(Any, None), batch)
    return torch.rand(()).item()


def test_random_numbers_are_a_function_of_seed_and_step() -> None:
    numbers = {(seed, step): random_number(seed, step) for seed in (0, 1) for step in (0, 1, 2)}
    assert len(set(numbers.values())) == 6
    assert random_number(1, 2) == numbers[1, 2]


def test_each_micro_batch_of_an_accumulated_step_draws_its_own_numbers() -> None:
    numbers = [random_number(0, 5, batch, accumulate=3) for batch in range(3)]
    assert len(set(numbers)) == 3
    assert numbers[0] == random_number(0, 5)


def trainer(root: Path, epochs: int, *callbacks: Callback) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=root, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ExactResume(3), *callbacks],
    )  # fmt: skip


def data(digits_dir: Path) -> MNISTDataModule:
    return MNISTDataModule(str(digits_dir), val_size=60, batch_size=32)


def classifier(schedule: Any = "plateau") -> Classifier:
    torch.manual_seed(1)
    options: dict[str, Any] = {"plateau_patience": 0} if schedule == "plateau" else {}
    return Classifier(lr=0.05, lr_scheduler=schedule, **options)


class SaveAt(Callback):
    """Save a checkpoint after a step or at the end of an epoch."""

    def __init__(self, path: Path, *, step: int = -1, epoch: int = -1) -> None:
        self.path, self.step, self.epoch = path, step, epoch

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
@pytest.mark.parametrize("where", [{"step": 11}, {"epoch": 1}])
def test_a_stock_trainer_resumes_exactly(
    digits_dir: Path, tmp_path: Path, where: dict[str, int], schedule: str
) -> None:
    path = tmp_path / "middle.ckpt"
    unbroken = classifier(schedule)
    first = trainer(tmp_path, 4, SaveAt(path, **where))
    first.fit(unbroken, data(digits_dir))
    resumed = classifier(schedule)
    second = trainer(tmp_path, 4)
    second.fit(resumed, data(digits_dir), ckpt_path=path)
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))
    assert_same(second.optimizers[0].state_dict(), first.optimizers[0].state_dict())
    assert_same(
        second.lr_scheduler_configs[0].scheduler.state_dict(), first.lr_scheduler_configs[0].scheduler.state_dict()
    )
    if schedule == "plateau":
        assert second.optimizers[0].param_groups[0]["lr"] < 0.05, "the schedule has acted"


def test_without_the_callback_lightning_loses_a_plateau_step(digits_dir: Path, tmp_path: Path) -> None:
    """The reason for the callback; if this fails, Lightning has learned to resume plateau schedules."""
    path = tmp_path / "middle.ckpt"
    bad_epochs = []
    for epochs, ckpt_path in ((3, None), (3, path)):
        plain = Trainer(
            max_epochs=epochs, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, callbacks=[SaveAt(path, epoch=1)],
        )  # fmt: skip
        plain.fit(classifier(), data(digits_dir), ckpt_path=ckpt_path)
        scheduler = plain.lr_scheduler_configs[0].scheduler
        assert isinstance(scheduler, ReduceLROnPlateau)
        bad_epochs.append(scheduler.last_epoch)
    assert bad_epochs == [3, 2]


def test_a_loaded_classifier_starts_a_new_fit_afresh(digits_dir: Path, tmp_path: Path) -> None:
    first = trainer(tmp_path, 3)
    first.fit(classifier(), data(digits_dir))
    first.save_checkpoint(tmp_path / "end.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "end.ckpt")
    second = trainer(tmp_path, 1)
    second.fit(loaded, data(digits_dir))
    scheduler = second.lr_scheduler_configs[0].scheduler
    assert scheduler.last_epoch == 1
    assert second.optimizers[0].param_groups[0]["lr"] == 0.05


def test_a_checkpoint_can_be_saved_before_any_fit(digits_dir: Path, tmp_path: Path) -> None:
    untrained = trainer(tmp_path, 1)
    untrained.validate(model := classifier(), data(digits_dir), verbose=False)
    untrained.save_checkpoint(tmp_path / "start.ckpt")
    loaded = Classifier.load_from_checkpoint(tmp_path / "start.ckpt")
    assert_same(dict(loaded.state_dict()), dict(model.state_dict()))


class LogsOwn(Classifier):
    """Logs a mean and a maximum of its own, and metrics whose states are counts and lists."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.log("mean", loss, on_step=False, on_epoch=True)
        self.log("most", loss, on_step=False, on_epoch=True, reduce_fx="max")
        return loss


@pytest.mark.parametrize("step", [9, 13])
def test_what_anybody_logs_resumes_exactly_in_mid_epoch(step: int, digits_dir: Path, tmp_path: Path) -> None:
    path, found = tmp_path / "middle.ckpt", []
    for ckpt_path, callbacks in ((None, [SaveAt(path, step=step)]), (path, [])):
        torch.manual_seed(1)
        each = trainer(tmp_path, 2, *callbacks)
        each.fit(LogsOwn(metrics=["macro_f1", "auroc"], lr=0.0001), data(digits_dir), ckpt_path=ckpt_path)
        found.append({name: value.item() for name, value in each.callback_metrics.items()})
    assert found[0] == found[1]
    assert {"mean", "most", "train_auroc", "train_macro_f1", "val_auroc"} <= found[0].keys()
    assert found[0]["mean"] == pytest.approx(found[0]["train_loss"], rel=1e-5)
