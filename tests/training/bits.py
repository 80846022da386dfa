"""What runs leave behind, to be compared bit for bit, and stopping one in the middle."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mnist_lightning import Classifier
from mnist_lightning.data.samples import Batch

TAGS = ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Learning rate")


def content(folder: Path, name: str = "last.ckpt") -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return checkpoint


def comparable(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what must be equal in the last checkpoints of an unbroken and a resumed run; event files have names."""
    parts = ("state_dict", "optimizer_states", "lr_schedulers", "resume", "metrics", "epoch", "global_step")
    averaging = {"current_model_state", "averaging_state"} & checkpoint.keys()
    found = {part: checkpoint[part] for part in (*parts, *averaging)}
    return found | {"resume": {name: value for name, value in found["resume"].items() if name != "event_files"}}


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


def stop_at(batch: int, patch: pytest.MonkeyPatch, number: signal.Signals = signal.SIGTERM) -> None:
    """Send a signal to this process while it computes the batch, counted from the start of training."""
    original, seen = Classifier.training_step, iter(range(10**6))

    def training_step(self: Classifier, images_and_labels: Batch, batch_idx: int) -> Tensor:
        if next(seen) == batch:
            os.kill(os.getpid(), number)
        return original(self, images_and_labels, batch_idx)

    patch.setattr(Classifier, "training_step", training_step)
