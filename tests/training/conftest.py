"""A run to look at: trained and tested once, for all tests that only read what it left."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mnist_lightning import SimpleCNN
from mnist_lightning.data.mnist import idx
from tests.conftest import DIGITS_MEAN, DIGITS_STD, run_in

VAL_SIZE, EPOCHS = 60, 3

LR = 3e-5  # at six steps an epoch: wrong often enough to have something to show

OPTIONS = (
    *("--data.val_size", str(VAL_SIZE), "--data.batch_size", "40", "--data.rotation", "10", "--data.shift", "1"),
    *("--trainer.max_epochs", str(EPOCHS), "--trainer.precision", "32-true"),
    *("--model.lr", str(LR), "--early_stopping.min_delta", "100", "--early_stopping.patience", "2"),
)


def read_events(folder: Path) -> EventAccumulator:
    """Return everything in the event files of a folder."""
    everything = {"scalars": 0, "images": 0, "tensors": 0, "histograms": 0}
    return EventAccumulator(str(folder), size_guidance=everything).Reload()


@dataclass(frozen=True)
class FinishedRun:
    """A run, trained and tested.

    Args:
        root: The folder that it was typed in.
        data_dir: The folder of its data.
    """

    root: Path
    data_dir: Path

    @property
    def logs(self) -> Path:
        """The log folder."""
        return self.root / "lightning_logs" / "version_0"

    def images_and_labels(self, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Return the images and labels of `val` or `test`, in the order of their file."""
        prefix = "t10k" if split == "test" else "train"
        folder = self.data_dir / "MNIST" / "raw"
        images, labels = idx.read_split(folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte")
        if split == "val":
            chosen = np.sort(np.random.default_rng(0).permutation(len(labels))[:VAL_SIZE])
            images, labels = images[chosen], labels[chosen]
        return np.asarray(images), labels.astype(np.int64)

    def logits(self, checkpoint: str, split: str) -> NDArray[np.float64]:
        """Return the logits of a checkpoint's network for the images of a split, without this project's code."""
        (path,) = (self.root / "checkpoints" / "version_0").glob(checkpoint)
        weights = torch.load(path, weights_only=True)["state_dict"]
        network = SimpleCNN().eval()
        network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
        pixels = self.images_and_labels(split)[0].astype(np.float32) / 255
        with torch.inference_mode():
            logits: torch.Tensor = network(torch.from_numpy((pixels - DIGITS_MEAN) / DIGITS_STD)[:, None])
        return logits.double().numpy()

    def confusion(self, checkpoint: str, split: str) -> NDArray[np.int64]:
        """Return the images of a split by label (rows) and predicted class (columns)."""
        counts = np.zeros((10, 10), np.int64)
        np.add.at(counts, (self.images_and_labels(split)[1], self.logits(checkpoint, split).argmax(axis=1)), 1)
        return counts


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, digits_dir: Path) -> FinishedRun:
    """Train for three epochs, the last of which early stopping ends, and test."""
    root = tmp_path_factory.mktemp("finished")
    run_in(root, ["fit", "--data.data_dir", str(digits_dir), *OPTIONS], ["test"])
    return FinishedRun(root, digits_dir)


@pytest.fixture(scope="session")
def events(finished_run: FinishedRun) -> EventAccumulator:
    """Return what TensorBoard reads of the run."""
    return read_events(finished_run.logs)
