from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.conftest import Command

TAGS = ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Learning rate")


def content(folder: Path, name: str = "last.ckpt") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return checkpoint


def assert_same(left: Any, right: Any, where: str = "") -> None:
    """Compare what two checkpoints hold, tensors bit for bit."""
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    elif isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same(left[key], right[key], f"{where}/{key}")
    elif isinstance(left, list | tuple):
        assert len(left) == len(right), where
        for index, (a, b) in enumerate(zip(left, right, strict=True)):
            assert_same(a, b, f"{where}/{index}")
    else:
        assert left == right, where


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    written = events.Tags()["scalars"]
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in TAGS if tag in written}


@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_a_run_resumed_at_an_epochs_end_is_the_unbroken_run(
    fit: Command, command: Command, tmp_path: Path, epochs_before: int
) -> None:
    # A patience of 0 and an unreachable improvement make the schedule cut within the run.
    options = ("--model.plateau_patience", "0", "--model.lr", "0.02", "--early_stopping.enabled", "false")
    assert fit("--trainer.max_epochs", "5", *options).code == 0
    assert fit("--trainer.max_epochs", str(epochs_before), *options).code == 0
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "5")
    assert resumed.code == 0, resumed.err

    unbroken, again = tmp_path / "checkpoints" / "version_0", tmp_path / "checkpoints" / "version_1"
    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in unbroken.iterdir())
    ours, theirs = content(again), content(unbroken)
    for part in ("state_dict", "optimizer_states", "classifier", "metrics", "epoch", "global_step"):
        assert_same(ours[part], theirs[part], part)
    assert ours["optimizer_states"][0]["param_groups"][0]["lr"] < 0.02
    logs = tmp_path / "lightning_logs"
    assert scalars(logs / "version_1") == scalars(logs / "version_0")
    assert [step for step, _ in scalars(logs / "version_1")["Loss/val"]] == [0, 1, 2, 3, 4]
    assert_same(content(again, "best.ckpt")["state_dict"], content(unbroken, "best.ckpt")["state_dict"])


def test_early_stopping_counts_on_after_resuming(fit: Command, command: Command, tmp_path: Path) -> None:
    # No loss improves by 100, so every epoch after the first counts.
    options = ("--early_stopping.min_delta", "100", "--early_stopping.patience", "3")
    assert fit("--trainer.max_epochs", "9", *options).code == 0
    assert fit("--trainer.max_epochs", "2", *options).code == 0
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "9").code == 0
    unbroken, again = tmp_path / "checkpoints" / "version_0", tmp_path / "checkpoints" / "version_1"
    assert content(unbroken)["epoch"] == content(again)["epoch"] == 3
    assert_same(content(again)["state_dict"], content(unbroken)["state_dict"])


def test_resuming_what_has_finished_says_so(fit: Command, command: Command) -> None:
    fit("--trainer.max_epochs", "1")
    outcome = command("fit", "--ckpt_path", "last")
    assert outcome.code == 0
    assert "version_0 has finished: trained 1 epochs" in outcome.out


def test_another_learning_rate_is_obeyed_when_resuming(fit: Command, command: Command, tmp_path: Path) -> None:
    fit("--trainer.max_epochs", "1")
    outcome = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--model.lr", "0.0003")
    assert outcome.code == 0
    assert "model.lr: 0.001 so far, 0.0003 from here on" in outcome.out
    checkpoint = content(tmp_path / "checkpoints" / "version_0")
    assert checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] == 0.0003


def test_going_on_from_another_checkpoint_than_the_last_makes_a_run_of_its_own(
    fit: Command, command: Command, tmp_path: Path
) -> None:
    fit("--trainer.max_epochs", "3")
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*.ckpt")}
    first = next(path for path in before if path.name.startswith("epoch=00"))
    assert command("fit", "--ckpt_path", str(first), "--trainer.max_epochs", "3").code == 0
    assert {path: path.read_bytes() for path in before} == before
    assert_same(
        content(tmp_path / "checkpoints" / "version_1")["state_dict"],
        content(tmp_path / "checkpoints" / "version_0")["state_dict"],
    )


def test_copies_that_a_kill_left_behind_catch_up_with_the_run(fit: Command, command: Command, tmp_path: Path) -> None:
    # Killed between the last epoch's own file and its copies: the run has finished, the copies are an epoch old.
    assert fit("--trainer.max_epochs", "2", "--early_stopping.enabled", "false").code == 0
    run = tmp_path / "checkpoints" / "version_0"
    first, second = sorted(run.glob("epoch=*.ckpt"))
    scores = [content(run, file.name)["metrics"] for file in (first, second)]
    assert scores[0]["val_acc"] == scores[1]["val_acc"]
    assert scores[0]["val_loss"] > scores[1]["val_loss"], "of equals, the lower loss is best"
    for copy in ("last.ckpt", "best.ckpt"):
        (run / copy).write_bytes(first.read_bytes())
    assert "has finished" in command("fit", "--ckpt_path", "last").out
    for copy in ("last.ckpt", "best.ckpt"):
        assert (run / copy).read_bytes() == second.read_bytes()
