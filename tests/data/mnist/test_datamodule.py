from pathlib import Path

import numpy as np
import pytest
import torch

from mnist_lightning import MNISTDataModule
from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.data.mnist import idx
from mnist_lightning.errors import ConfigError, DatasetError
from tests.conftest import TEST_COUNT, TRAIN_COUNT


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> MNISTDataModule:
    """MNIST itself, from the bundled copy."""
    data = MNISTDataModule(str(tmp_path_factory.mktemp("mnist")), source="bundled")
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def test_mean_and_std_are_those_of_the_training_images(real: MNISTDataModule) -> None:
    pixels = real.samples("train").inputs.numpy() / np.float32(255)
    assert round(float(pixels.mean(dtype=np.float64)), 4) == MNIST_SCHEMA.mean
    assert round(float(pixels.std(dtype=np.float64)), 4) == MNIST_SCHEMA.std


def test_the_loaders_normalise_to_mean_0_and_std_1(real: MNISTDataModule) -> None:
    real.setup("validate")
    loader = real.val_dataloader()
    assert not isinstance(loader, list)
    pixels = torch.cat([images.flatten() for images, _ in loader]).double()
    # 5,000 images stand for 60,000: their mean and deviation differ by less than a hundredth.
    assert abs(pixels.mean()) < 0.01
    assert abs(pixels.std() - 1) < 0.01


def test_printing_a_data_module_shows_the_sizes_of_its_splits(digits_dir: Path) -> None:
    data = MNISTDataModule(str(digits_dir), val_size=60)
    assert str(data) == "MNISTDataModule (not set up)"
    data.setup("fit")
    assert str(data) == f"MNISTDataModule ({TRAIN_COUNT - 60} train, 60 val)"


def test_training_images_are_shuffled_by_the_seed(digits_dir: Path) -> None:
    def order(seed: int) -> list[int]:
        data = MNISTDataModule(str(digits_dir), val_size=60, seed=seed)
        data.setup("fit")
        indices: list[int] = data.train_dataloader().order().tolist()
        return indices

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert order(1) != sorted(order(1))


def test_images_of_another_size_are_rejected(digits_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        idx.write(raw / f"{prefix}-images-idx3-ubyte", np.zeros((20, 14, 14), np.uint8))
        idx.write(raw / f"{prefix}-labels-idx1-ubyte", np.zeros(20, np.uint8))
    with pytest.raises(DatasetError, match=r"train images are 14×14 pixels"):
        MNISTDataModule(str(tmp_path), val_size=5).setup("fit")


def test_mnist_is_cut_into_55000_5000_and_10000(real: MNISTDataModule) -> None:
    assert len(real.samples("train").indices) == 55_000
    assert len(real.samples("val").indices) == 5_000
    assert sum(len(labels) for _, labels in real.test_dataloader()) == 10_000
    assert len(real.train_dataloader()) == 860  # 55,000 / 64, the last batch short


def test_training_and_validation_images_are_all_of_the_training_file_and_disjoint(real: MNISTDataModule) -> None:
    both = torch.cat([real.samples("train").indices, real.samples("val").indices])
    assert torch.equal(both.sort().values, torch.arange(60_000))


def test_the_split_has_its_own_seed(digits_dir: Path) -> None:
    def cut(*, seed: int, split_seed: int) -> list[int]:
        _, val = MNISTDataModule(str(digits_dir), val_size=60, seed=seed, split_seed=split_seed).split(TRAIN_COUNT)
        indices: list[int] = val.tolist()
        return indices

    assert cut(seed=1, split_seed=0) == cut(seed=2, split_seed=0)
    assert cut(seed=0, split_seed=1) != cut(seed=0, split_seed=2)


def test_training_never_reads_the_test_file(digits_dir: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (digits_dir / "MNIST" / "raw").glob("train-*"):
        (raw / file.name).write_bytes(file.read_bytes())
    data = MNISTDataModule(str(tmp_path), val_size=60)
    data.setup("fit")
    assert sum(len(labels) for _, labels in data.train_dataloader()) == TRAIN_COUNT - 60


def test_the_test_loader_serves_every_image_in_file_order(digits_dir: Path) -> None:
    data = MNISTDataModule(str(digits_dir))
    data.setup("test")
    labels = torch.cat([labels for _, labels in data.test_dataloader()])
    assert labels.tolist() == [index % 10 for index in range(TEST_COUNT)]


@pytest.mark.parametrize(("option", "value"), [("batch_size", 0), ("val_size", -1), ("split_seed", -1), ("seed", -1)])
def test_options_out_of_range_are_rejected(option: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"{option} must be at least"):
        MNISTDataModule(**{option: value})  # type: ignore[arg-type]  # the value fits each of these


@pytest.mark.parametrize("stage", [None, "fit", "validate", "test"])
def test_setup_without_files_names_the_call_that_is_missing(stage: str | None, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"idx3-ubyte does not exist; MNISTDataModule\.prepare_data\(\) puts"):
        MNISTDataModule(str(tmp_path)).setup(stage)
