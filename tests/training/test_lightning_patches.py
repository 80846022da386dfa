"""Each patch of Lightning is still needed: without it, Lightning behaves as the patch says."""

import inspect
from pathlib import Path

import jsonargparse
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from torch.utils.data import DataLoader, TensorDataset

from mnist_lightning.training import lightning_patches


class Linear(LightningModule):
    """A small module that counts the ends of its epochs."""

    def __init__(self, log: str = "") -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.log_name = log
        self.ends: list[int] = []

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()  # type: ignore[no-any-return]

    def on_train_epoch_end(self) -> None:
        self.ends.append(self.current_epoch)
        if self.log_name:
            self.log(self.log_name, 0.25)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def make_trainer(root: Path, max_steps: int) -> Trainer:
    return Trainer(
        max_epochs=-1, max_steps=max_steps, accelerator="cpu", default_root_dir=root, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip


LOADER = DataLoader(TensorDataset(torch.randn(8, 2)), batch_size=2)


def ends_after_resuming(root: Path, *, patched: bool) -> list[int]:
    """Return the epochs that end in a run with `max_steps` after it was resumed from the end of its first epoch."""
    path = root / "first.ckpt"

    class Saves(Linear):
        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            if not path.exists():
                self.trainer.save_checkpoint(path)

    make_trainer(root, 4).fit(Saves(), LOADER)
    resumed, trainer = Linear(), make_trainer(root, 8)
    if patched:
        lightning_patches.patch_trainer(trainer)
    trainer.fit(resumed, LOADER, ckpt_path=path)
    return resumed.ends


def test_with_max_steps_lightning_ends_an_epoch_again(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "patched").mkdir()
    assert ends_after_resuming(tmp_path / "plain", patched=False) != [1]
    assert ends_after_resuming(tmp_path / "patched", patched=True) == [1]


def test_lightnings_sigterm_handler_broadcasts() -> None:
    assert "broadcast" in inspect.getsource(_SignalConnector._sigterm_notifier_fn)


def test_a_validation_that_is_due_is_known(tmp_path: Path) -> None:
    due = []

    class Asks(Linear):
        def on_train_batch_end(self, *args: object) -> None:
            due.append(lightning_patches.validation_is_due(self.trainer))

        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            pass

    trainer = Trainer(
        max_epochs=1, val_check_interval=2, accelerator="cpu", default_root_dir=tmp_path, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(Asks(), LOADER, LOADER)
    assert due == [False, True, False, True]


def test_what_lightning_logs_at_an_epochs_end_is_known_before(tmp_path: Path) -> None:
    known: dict[str, float] = {}

    class Asks(Linear):
        def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
            self.log("earlier", 0.5)

        def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
            known.update(lightning_patches.metrics_logged_at_epoch_end(self.trainer))

        def on_train_epoch_end(self) -> None:
            super().on_train_epoch_end()
            assert self.trainer.logged_metrics.keys() == {"earlier", "quarter"}, "the public property has too much"
            self.trainer.save_checkpoint(tmp_path / "any.ckpt")

    make_trainer(tmp_path, 4).fit(Asks(log="quarter"), LOADER, LOADER)
    assert known == {"quarter": 0.25}


def test_a_loader_made_early_does_not_get_its_state_by_itself() -> None:
    """`FitLoop.setup_data` is the only place that restores it, and returns early if the loader exists."""
    source = inspect.getsource(_FitLoop)
    assert source.count("self._load_combined_loader_states()") == 1


def test_lightning_does_not_step_plateau_schedules_while_restarting() -> None:
    assert "update_plateau_schedulers=not self.restarting" in inspect.getsource(_FitLoop.on_advance_end)


def test_the_parser_of_a_subcommand_is_found_and_its_options_are_listed() -> None:
    parser = LightningArgumentParser()
    subparser = LightningArgumentParser()
    subparser.add_argument("--inner", help="old")
    parser.add_argument("--outer")
    parser.add_subcommands().add_subcommand("fit", subparser)
    assert {"--outer", "--inner"} <= lightning_patches.option_names(parser, "fit")
    assert "--inner" not in lightning_patches.option_names(parser, "test")
    lightning_patches.set_help(subparser, "inner", "new text")
    assert "new text" in subparser.format_help()


def test_jsonargparse_cannot_put_back_its_settings_itself() -> None:
    before = jsonargparse.get_loader("yaml")
    with lightning_patches.jsonargparse_unchanged():
        jsonargparse.set_loader("yaml", lambda text: text)
        jsonargparse.set_parsing_settings(import_path_denylist=["*"])
    assert jsonargparse.get_loader("yaml") is before
    assert not [name for name in dir(jsonargparse) if "get" in name and "settings" in name]


def test_a_time_between_validations_leaves_lightning_without_an_attribute() -> None:
    trainer = Trainer(accelerator="cpu", logger=False, val_check_interval="00:00:00:01")
    assert not hasattr(trainer, "val_check_interval")
    lightning_patches.patch_trainer(trainer)
    assert trainer.val_check_interval != 1.0


def test_defaults_are_given_to_constructors_for_a_while() -> None:
    with pytest.raises(TypeError, match="save_dir"):
        CSVLogger()  # type: ignore[call-arg]
    assert isinstance(inspect.signature(Timer).parameters["interval"].default, Interval)
    with lightning_patches.default_arguments():
        assert CSVLogger().save_dir == TensorBoardLogger().save_dir == ""  # type: ignore[call-arg]
        assert type(inspect.signature(Timer).parameters["interval"].default) is str
    with pytest.raises(TypeError, match="save_dir"):
        TensorBoardLogger()  # type: ignore[call-arg]
