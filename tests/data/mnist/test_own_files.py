"""Own IDX files are a data set of their own: their statistics, their classes, and no mixing with MNIST."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_lightning import MNISTDataModule
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.data.mnist import idx
from mnist_lightning.errors import CheckpointError, DatasetError
from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("undrawn")


def write(data_dir: Path, classes: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Write own files in which a bright row determines the class; return the training images."""
    random, raw = np.random.default_rng(seed), data_dir / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("t10k", 60), ("train", 240)):
        labels = (np.arange(count) % classes).astype(np.uint8)
        images = random.integers(0, 50, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), labels * 28 // classes] = 255
        idx.write(raw / f"{prefix}-images-idx3-ubyte", images)
        idx.write(raw / f"{prefix}-labels-idx1-ubyte", labels)
    return images


@pytest.mark.parametrize("source", ["files", "auto"])
@pytest.mark.parametrize("classes", [2, 10, 28])
def test_statistics_and_classes_are_those_of_the_training_file(tmp_path: Path, classes: int, source: Any) -> None:
    pixels = write(tmp_path, classes) / 255
    data = MNISTDataModule(str(tmp_path), val_size=60, source=source)
    assert data.model_arguments["num_classes"] == classes
    data.prepare_data()
    data.setup("fit")
    assert (data.schema.mean, data.schema.std) == pytest.approx((pixels.mean(), pixels.std()), abs=5e-5)
    assert data.schema.class_names == tuple(str(label) for label in range(classes))
    with pytest.raises(CheckpointError, match="was trained on the published MNIST, not on the files in"):
        _restored(tmp_path).setup("fit")


def test_training_continues_on_the_same_files_only(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        write(tmp_path / name, 3, seed)
    inputs = vars(MNISTDataModule(str(tmp_path / "one"), source="files").schema)
    for name, allowed in (("same", True), ("other", False)):
        data = MNISTDataModule(str(tmp_path / name), val_size=60, source="files")
        data.restore(inputs)
        if allowed:
            data.setup("fit")
        else:
            with pytest.raises(CheckpointError, match="was trained on other IDX files"):
                data.setup("fit")
        data.setup("test")


def test_files_with_one_class_and_labels_that_training_lacks_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "one", 1)
    with pytest.raises(DatasetError, match="all labels are 0; at least two classes needed"):
        assert MNISTDataModule(str(tmp_path / "one"), source="files").model_arguments
    write(tmp_path / "three", 3)
    idx.write(tmp_path / "three/MNIST/raw/t10k-labels-idx1-ubyte", np.full(60, 3, np.uint8))
    data = MNISTDataModule(str(tmp_path / "three"), source="files")
    data.prepare_data()
    with pytest.raises(DatasetError, match=r"label 3 at byte 8 \(item 0\) is outside 0\.\.2"):
        data.setup("test")


@pytest.mark.parametrize("classes", [2, pytest.param(28, marks=pytest.mark.slow)])
def test_a_run_on_own_files_is_tested_predicted_and_exported(command: Command, tmp_path: Path, classes: int) -> None:
    images = write(tmp_path / "own", classes)
    files = ("--data.data_dir", "own", "--data.source", "files", "--data.val_size", "60")
    trained = command("fit", *files, "--trainer.max_epochs", "3", "--data.batch_size", "30", "--model.lr", "0.003")
    assert trained.code == 0, trained.err
    assert command("test").code == 0
    result = json.loads(Path("lightning_logs/version_0/test.json").read_text())
    assert (result["total"], len(result["confusion"])) == (60, classes)
    assert command("export", "--format", "safetensors").code == 0
    write(tmp_path / "other", classes, seed=1)
    refused = command("fit", "--ckpt_path", "last", "--data.data_dir", "other", "--trainer.max_epochs", "4")
    assert refused.code == 6
    assert "the checkpoint was trained on other IDX files, not on the files in other/MNIST/raw" in refused.err
    checkpoint = torch.load("checkpoints/version_0/last.ckpt", weights_only=True)
    assert checkpoint["inputs"]["mean"] == pytest.approx((images / 255).mean(), abs=5e-5)


def _restored(data_dir: Path) -> MNISTDataModule:
    """Return a data module with the schema of a network that was trained on MNIST."""
    data = MNISTDataModule(str(data_dir), val_size=60, source="files")
    data.restore(vars(MNIST_SCHEMA) | {"class_names": data.dataset.class_names})
    return data
