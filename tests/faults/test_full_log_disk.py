"""Fill the disk that the curves and figures of a training are written to: it fails with a line, and loses nothing."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mnist_lightning.runs import checkpoint_verification, run_folders
from tests.conftest import Command
from tests.faults.disks import mount
from tests.training.conftest import read_events

TAGS = ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Learning rate")
FIGURES = ("Training images", "Validation/confusion matrix", "Validation/worst images")
EPOCHS = 4


@pytest.fixture
def grow(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Put the log folder on a file system with room for the figures of some epochs; return what gives it more."""
    disk = tmp_path / "lightning_logs"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk))
    yield lambda: mount("-o", "remount,size=16m", str(disk))
    subprocess.run(["umount", str(disk)], check=True)


def points(run: run_folders.Run) -> dict[str, list[tuple[int, object]]]:
    events = read_events(run.logs)
    curves = {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in TAGS}
    return curves | {tag: [(drawn.step, drawn.encoded_image_string) for drawn in events.Images(tag)] for tag in FIGURES}


@pytest.mark.slow
def test_a_training_resumes_exactly_after_its_log_disk_was_full(
    fit: Command, command: Command, grow: Callable[[], None], tmp_path: Path
) -> None:
    options = (
        *("--trainer.max_epochs", str(EPOCHS), "--data.rotation", "10", "--early_stopping.enabled", "false"),
        *("--tensorboard.figures", "epoch"),
    )
    outcome = fit(*options)
    assert outcome.code == 5
    assert "No space left on device" in outcome.err
    assert "Traceback" not in outcome.err
    run = run_folders.Run(tmp_path, 0)
    epochs = [entry.epoch for entry in run.entries()]
    assert epochs == list(range(len(epochs)))
    assert 1 <= len(epochs) < EPOCHS
    assert all(checkpoint_verification.read_checkpoint(run.checkpoints / entry.file) for entry in run.entries())

    grow()
    assert command("fit", "--ckpt_path", "last").code == 0
    assert fit(*options).code == 0
    unbroken = run_folders.Run(tmp_path, 1)
    resumed_weights, weights = (
        checkpoint_verification.read_checkpoint(each.checkpoints / "last.ckpt")["state_dict"]
        for each in (run, unbroken)
    )
    assert all(torch.equal(resumed_weights[name], value) for name, value in weights.items())
    assert points(run) == points(unbroken)
