"""Any logged metric can be monitored, and decides which checkpoints are best and which stay."""

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mnist_lightning import Classifier
from mnist_lightning.errors import ConfigError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.manifest import read_manifest
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO, remove_older
from mnist_lightning.training.monitor import mode_of
from tests.conftest import Command, folders
from tests.runs.test_run_folders import epoch_of, make_checkpoint
from tests.training.bits import content
from tests.training.conftest import read_events

pytestmark = pytest.mark.usefixtures("undrawn")

VALUES = [0.3, 0.7, 0.5, 0.4]  # what validation logs, epoch by epoch


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("val_acc", "max"), ("val_loss", "min"), ("train_loss_epoch", "min"), ("val_MulticlassAUROC", "max"),
        ("val_MeanSquaredError", "min"), ("macro_f1", "max"), ("val/accuracy", "max"), ("calibration_error", "min"),
    ],
)  # fmt: skip
def test_the_name_of_a_metric_tells_its_mode(metric: str, mode: str) -> None:
    assert mode_of(metric, None, "checkpoint.mode") == mode
    assert mode_of(metric, "min", "checkpoint.mode") == "min"


def test_a_metric_of_unknown_mode_needs_one() -> None:
    with pytest.raises(ConfigError, match=r"checkpoint\.mode is needed: whether a higher val_thing is better"):
        mode_of("val_thing", None, "checkpoint.mode")


@pytest.fixture
def logs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Classifier.on_validation_epoch_end

    def on_validation_epoch_end(self: Classifier) -> None:
        original(self)
        self.log("own", VALUES[self.current_epoch])

    monkeypatch.setattr(Classifier, "on_validation_epoch_end", on_validation_epoch_end)


@pytest.mark.usefixtures("logs_own")
@pytest.mark.parametrize(("mode", "best"), [("max", 1), ("min", 0)])
def test_best_follows_a_metric_that_anybody_logs(
    fit: Command, command: Command, tmp_path: Path, mode: str, best: int
) -> None:
    outcome = fit(
        "--trainer.max_epochs", "3", "--checkpoint.monitor", "own", "--checkpoint.mode", mode, "--checkpoint.keep", "1",
        "--early_stopping.monitor", "own", "--early_stopping.mode", "max", "--early_stopping.patience", "1",
        "--model.metrics", "[macro_f1]",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert f"best epoch {best}: own {VALUES[best]:.4f}" in outcome.out
    assert "early_stopping" in outcome.out or "stopped early" in outcome.out
    run = run_folders.Run(tmp_path, 0)
    assert (epoch_of(run.best()), epoch_of(run.last())) == (best, 2)
    assert {entry.epoch for entry in run.entries()} == {best, 2}
    assert all((run.checkpoints / entry.file).exists() for entry in run.entries())
    if mode == "max":
        points = read_events(run.logs)
        assert [point.value for point in points.Scalars("own")] == pytest.approx(VALUES[:3])
        assert len(points.Scalars("val_macro_f1")) == 3
        assert command("test").code == 0
        result = json.loads((run.logs / "test.json").read_text())
        assert (result["epoch"], result["metrics"].keys()) == (1, {"macro_f1"})


@pytest.mark.usefixtures("logs_own")
@pytest.mark.parametrize(("first", "then", "best"), [("max", "min", 0), ("min", "max", 1)])
def test_a_resumed_run_is_scored_by_the_metric_that_it_monitors_now(
    fit: Command, command: Command, tmp_path: Path, first: str, then: str, best: int
) -> None:
    options = ("--early_stopping.enabled", "false", "--checkpoint.mode")
    assert fit("--trainer.max_epochs", "2", "--checkpoint.monitor", "own", *options, first).code == 0
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3", *options, then)
    assert f"best epoch {best}: own {VALUES[best]:.4f}" in resumed.out
    callback = content(tmp_path / "checkpoints" / "version_0")["callbacks"]["RunCheckpoint"]
    assert float(callback["best_model_score"]) == pytest.approx(VALUES[best])
    again = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "4", "--checkpoint.monitor", "train_loss",
                    "--checkpoint.mode", "min")  # fmt: skip
    assert "best epoch 3: train_loss" in again.out, again.err
    callback = content(tmp_path / "checkpoints" / "version_0")["callbacks"]["RunCheckpoint"]
    losses = [entry.metrics["train_loss"] for entry in read_manifest(tmp_path / "checkpoints" / "version_0")]
    assert float(callback["best_model_score"]) == pytest.approx(min(losses))
    assert sorted(map(float, callback["best_k_models"].values())) == pytest.approx(sorted(losses))


@pytest.mark.parametrize("option", ["checkpoint.monitor", "early_stopping.monitor"])
def test_a_metric_that_never_comes_is_one_line_with_the_nearest(option: str, fit: Command, tmp_path: Path) -> None:
    outcome = fit("--trainer.max_epochs", "3", f"--{option}", "val_accuracy")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1] == f"error: {option}: val_accuracy was not logged; did you mean val_acc?"
    assert "Traceback" not in outcome.err
    assert not folders(tmp_path / "checkpoints"), "a run that has saved nothing is removed"


def fill(run: run_folders.Run, accuracies: list[float]) -> None:
    for epoch, accuracy in enumerate(accuracies):
        checkpoint = make_checkpoint(epoch, val_acc=accuracy, val_loss=0.1)
        DurableCheckpointIO().save_checkpoint(checkpoint, run.checkpoints / f"epoch={epoch:02d}.ckpt")


@pytest.mark.parametrize(("keep", "files"), [(math.inf, [0, 1, 2, 3]), (2, [1, 2, 3]), (1, [1, 3]), (0, [])])
def test_the_newest_and_the_best_stay(keep: float, files: list[int], tmp_path: Path) -> None:
    run = run_folders.create(tmp_path)
    fill(run, [0.5, 0.9, 0.6, 0.7])
    (run.checkpoints / "best.ckpt").unlink()  # as if killed before it was written
    remove_older(run.checkpoints, step_files=0, keep=keep)
    assert sorted(run.checkpoints.glob("epoch*")) == [run.checkpoints / f"epoch={epoch:02d}.ckpt" for epoch in files]
    assert (epoch_of(run.best()), epoch_of(run.last())) == (1, 3)
    assert {entry.epoch for entry in read_manifest(run.checkpoints)} == {*files, 1, 3}


def test_what_a_kill_left_is_removed_when_the_run_resumes(fit: Command, command: Command, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "2").code == 0
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--checkpoint.keep", "best_last")
    assert resumed.code == 0, resumed.err
    folder = tmp_path / "checkpoints" / "version_0"
    assert sorted(path.name for path in folder.glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert command("test").code == 0


@pytest.mark.parametrize(("keep", "warns"), [("all", True), ("best_last", False)])
def test_a_disk_that_may_not_hold_the_run_is_reported_before_the_first_step(
    keep: str, warns: bool, fit: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A checkpoint of SimpleCNN with Adam's state has 421,642 · 3 · 4 bytes = 5.06 MB: room for 20.
    usage: Any = SimpleNamespace(free=100_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    outcome = fit(
        "--trainer.max_epochs", "100", "--early_stopping.patience", "1", "--model.lr", "1e-9", "--checkpoint.keep", keep
    )
    assert ("saves up to 0.521 GB of checkpoints, but 0.1 GB are free" in outcome.out) == warns
