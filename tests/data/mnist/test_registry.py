import gzip
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mnist_lightning import MNISTDataModule
from mnist_lightning.data.mnist import fetch
from mnist_lightning.data.mnist.registry import (
    DATASETS,
    FASHION_MNIST,
    KMNIST,
    QMNIST,
    Archive,
    DatasetName,
    DatasetSource,
    RawFile,
)
from mnist_lightning.data.pixels import denormalise
from mnist_lightning.errors import ConfigError, DatasetError
from tests.conftest import skip_without_packages
from tests.data.conftest import Serve
from tests.data.mnist.mirror import FaultyMirror
from tests.data.mnist.published import FORMATS, TEST_COUNT, TRAIN_COUNT, files_of, make_split, write_dataset
from tests.data.small import contents

# Where the real files of Fashion-MNIST may be: a folder of one's own, this project's, Debian's dataset-fashion-mnist.
FASHION_FOLDERS = (
    Path(os.environ.get("FASHION_MNIST", "none")),
    Path(__file__).parents[3] / "data" / "FashionMNIST" / "raw",
    Path("/usr/share/datasets/fashion-mnist"),
)


def torchvision_reads(dataset: DatasetName, data_dir: Path, *, train: bool) -> Any:
    from torchvision import datasets  # it has no annotations

    if dataset.startswith("emnist"):
        return datasets.EMNIST(data_dir, split=dataset.removeprefix("emnist_"), train=train)
    return getattr(datasets, FORMATS[dataset][0])(data_dir, train=train)


def data_of(data_dir: Path, dataset: DatasetName) -> MNISTDataModule:
    return MNISTDataModule(str(data_dir), dataset=dataset, source="files", val_size=62)


@pytest.mark.parametrize("dataset", FORMATS)
def test_pixels_and_labels_are_those_that_torchvision_reads_upright_and_from_0(
    dataset: DatasetName, tmp_path: Path
) -> None:
    write_dataset(tmp_path, dataset)
    data = data_of(tmp_path, dataset)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    classes = FORMATS[dataset][2]
    for seed, split in enumerate(("train", "test")):
        images, labels = data.samples(split).inputs, data.samples(split).labels
        theirs = torchvision_reads(dataset, tmp_path, train=split == "train")
        turned = theirs.data.transpose(1, 2) if dataset.startswith("emnist") else theirs.data
        targets = theirs.targets[:, 0] if dataset == "qmnist" else theirs.targets
        assert torch.equal(images, turned)
        assert torch.equal(labels, targets - (1 if dataset == "emnist_letters" else 0))
        upright, from_0 = make_split(len(labels), classes, seed)
        np.testing.assert_array_equal(images, upright)
        np.testing.assert_array_equal(labels, from_0)
    served = torch.cat([denormalise(batch, data.schema.mean, data.schema.std) for batch, _ in data.test_dataloader()])
    assert torch.equal(served, data.samples("test").inputs)


@pytest.mark.parametrize("dataset", FORMATS)
def test_class_names_are_torchvisions(dataset: DatasetName, tmp_path: Path) -> None:
    write_dataset(tmp_path, dataset)
    names = [name.split(" - ")[0] for name in torchvision_reads(dataset, tmp_path, train=True).classes]
    assert list(DATASETS[dataset].class_names) == names[1 if dataset == "emnist_letters" else 0 :]
    assert len(DATASETS[dataset].class_names) == FORMATS[dataset][2]


@pytest.mark.parametrize("dataset", FORMATS)
def test_files_have_their_published_names_and_folders(dataset: DatasetName) -> None:
    folder, names, _ = FORMATS[dataset]
    assert DATASETS[dataset].folder == folder
    assert tuple(file.name for file in DATASETS[dataset].files) == names


def test_addresses_and_md5_are_those_that_torchvision_asks_for() -> None:
    from torchvision import datasets

    for split, files in (("train", QMNIST.files[:2]), ("test", QMNIST.files[2:])):
        for file, (address, md5) in zip(files, datasets.QMNIST.resources[split], strict=True):
            assert f"{QMNIST.mirrors[0]}{file.name}.gz" == address
            assert file.packed == f"md5:{md5}"
    emnist = DATASETS["emnist_letters"]
    assert emnist.archive is not None
    assert f"{emnist.mirrors[0]}{emnist.archive.name}" == datasets.EMNIST.url
    assert KMNIST.mirrors[0].partition("://")[2] == datasets.KMNIST.mirrors[0].partition("://")[2]


def test_every_checksum_is_well_formed_and_every_mirror_is_https() -> None:
    for dataset in DATASETS.values():
        digests = [file.digest or file.packed or (dataset.archive and dataset.archive.digest) for file in dataset.files]
        assert all(re.fullmatch("sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", digest or "") for digest in digests)
        assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in dataset.mirrors)


def test_mean_and_std_are_computed_from_the_training_images_where_they_are_not_known(tmp_path: Path) -> None:
    write_dataset(tmp_path, "kmnist")
    pixels = make_split(TRAIN_COUNT, 10, 0)[0] / 255
    schema = data_of(tmp_path, "kmnist").schema
    assert (schema.mean, schema.std) == (round(pixels.mean(), 4), round(pixels.std(), 4))


def test_blank_images_are_rejected(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, "kmnist")
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:16] + bytes(TRAIN_COUNT * 784))
    with pytest.raises(DatasetError, match="all their pixels are 0"):
        _ = data_of(tmp_path, "kmnist").schema


@pytest.mark.parametrize(("label", "stored"), [(0, 0), (27, 27)])
def test_labels_of_letters_are_1_to_26(tmp_path: Path, label: int, stored: int) -> None:
    path = write_dataset(tmp_path, "emnist_letters") / "emnist-letters-test-labels-idx1-ubyte"
    content = path.read_bytes()
    assert set(content[8:]) == set(range(1, 27))
    path.write_bytes(content[:-1] + bytes([stored]))
    with pytest.raises(DatasetError, match=rf"label {label} at byte {7 + TEST_COUNT} .*outside 1\.\.26"):
        data_of(tmp_path, "emnist_letters").prepare_data()


def test_an_invalid_label_of_qmnist_is_reported_with_its_position(tmp_path: Path) -> None:
    path = write_dataset(tmp_path, "qmnist") / "qmnist-test-labels-idx2-int"
    content = path.read_bytes()
    path.write_bytes(content[: 12 + 32] + b"\xff\xff\xff\xff" + content[12 + 36 :])
    with pytest.raises(DatasetError, match=r"label -1 at byte 44 \(item 1\) is outside 0\.\.9"):
        data_of(tmp_path, "qmnist").prepare_data()


def test_an_unknown_data_set_is_rejected_and_the_known_ones_listed() -> None:
    with pytest.raises(ConfigError, match=r"data.dataset must be one of mnist, fashion_mnist, .*, got cifar10"):
        MNISTDataModule(dataset="cifar10")  # type: ignore[arg-type]  # what the test is about


@pytest.mark.parametrize("dataset", [name for name in FORMATS if name != "mnist"])
def test_only_mnist_has_a_bundled_copy(dataset: DatasetName, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"no bundled copy of {FORMATS[dataset][0]}"):
        MNISTDataModule(str(tmp_path), dataset=dataset, source="bundled").prepare_data()


# Fashion-MNIST itself


@pytest.fixture(scope="module")
def fashion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with the real files, unpacked and verified."""
    found = [folder for folder in FASHION_FOLDERS if list(folder.glob("train-images-idx3-ubyte*"))]
    if not found:
        # 30 MB that cannot be downloaded in a test; small files in the same format are tested everywhere.
        skip_without_packages("dataset-fashion-mnist")
    data_dir = tmp_path_factory.mktemp("fashion")
    raw = data_dir / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in FASHION_MNIST.files:
        path = next(path for path in found[0].glob(f"{file.name}*") if path.suffix in ("", ".gz"))
        (raw / path.name).symlink_to(path.resolve())
    fetch.fetch(FASHION_MNIST, data_dir, mirrors=())
    return data_dir


def test_fashion_mnist_is_what_torchvision_reads_and_its_mean_and_std_are_right(fashion: Path) -> None:
    images, labels = fetch.read_split(FASHION_MNIST, fashion / "FashionMNIST" / "raw", "train")
    theirs = torchvision_reads("fashion_mnist", fashion, train=True)
    np.testing.assert_array_equal(images, theirs.data)
    np.testing.assert_array_equal(labels, theirs.targets)
    assert np.bincount(labels).tolist() == [6000] * 10
    pixels = images / np.float32(255)
    statistics = pixels.mean(dtype=np.float64), pixels.std(dtype=np.float64)
    assert tuple(round(float(number), 4) for number in statistics) == FASHION_MNIST.statistics


# Files put there by hand, and mirrors


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"gzip/{name}.gz", gzip.compress(content))
    return buffer.getvalue()


LETTERS, KANA, DIGITS_TOO = files_of("emnist_letters"), files_of("kmnist"), files_of("qmnist")
ARCHIVE = zipped(LETTERS)
SERVED = {"gzip.zip": ARCHIVE} | {
    f"{name}.gz": gzip.compress(content, mtime=0) for name, content in (KANA | DIGITS_TOO).items()
}


def small(dataset: DatasetName) -> DatasetSource:
    """Return a data set as if its small files were the published ones."""

    def published(file: RawFile) -> RawFile:
        content = files_of(dataset)[file.name]
        shape = tuple(np.frombuffer(content, ">u4", content[3], 4).tolist())
        algorithm = (file.packed or "").partition(":")[0]
        packed = SERVED.get(f"{file.name}.gz")
        digest = f"{algorithm}:{hashlib.new(algorithm, packed).hexdigest()}" if packed else None
        return replace(file, shape=shape, packed=digest)

    source = DATASETS[dataset]
    archive = Archive("gzip.zip", len(ARCHIVE), f"sha256:{hashlib.sha256(ARCHIVE).hexdigest()}")
    return replace(source, files=tuple(map(published, source.files)), archive=archive if source.archive else None)


@pytest.fixture
def mirror(serve: Serve) -> FaultyMirror:
    """A mirror of data sets whose files have no checksum of their own."""
    return serve(SERVED)


@pytest.mark.parametrize(("dataset", "files"), [("kmnist", KANA), ("qmnist", DIGITS_TOO)])
def test_packed_files_are_verified_by_their_own_checksum(
    dataset: DatasetName, files: dict[str, bytes], tmp_path: Path, mirror: FaultyMirror
) -> None:
    folder = fetch.fetch(small(dataset), tmp_path / "good", source="download", mirrors=(mirror.address(),))
    assert contents(folder) == files
    algorithm = "SHA-256" if dataset == "kmnist" else "MD5"
    with pytest.raises(DatasetError, match=rf"{algorithm} is [0-9a-f]{{8}}\.\.\. instead of"):
        fetch.fetch(small(dataset), tmp_path / "wrong", source="download", mirrors=(mirror.address("wrong"),))
    assert contents(tmp_path / "wrong" / FORMATS[dataset][0] / "raw") == {}


def test_an_archive_is_downloaded_once_and_stays_for_the_other_data_sets_in_it(
    tmp_path: Path, mirror: FaultyMirror
) -> None:
    letters = small("emnist_letters")
    folder = fetch.fetch(letters, tmp_path, mirrors=(mirror.address(),))
    assert contents(folder) == LETTERS | {"gzip.zip": ARCHIVE}
    assert mirror.requests == {"/good/gzip.zip": 1}
    for name in LETTERS:
        (folder / name).unlink()
    assert contents(fetch.fetch(letters, tmp_path, mirrors=())) == LETTERS | {"gzip.zip": ARCHIVE}


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: b"?" + content[1:]])
def test_a_damaged_archive_is_kept_aside_and_downloaded_again(
    damage: Callable[[bytes], bytes], tmp_path: Path, mirror: FaultyMirror
) -> None:
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "gzip.zip").write_bytes(damage(ARCHIVE))
    fetch.fetch(small("emnist_letters"), tmp_path, mirrors=(mirror.address(),))
    assert contents(folder) == LETTERS | {"gzip.zip": ARCHIVE, "gzip.zip.damaged": damage(ARCHIVE)}


@pytest.mark.parametrize("fault", ["html", "truncated", "404"])
def test_a_failed_download_names_the_data_set_the_folder_and_the_files_to_put_there(
    fault: str, tmp_path: Path, mirror: FaultyMirror
) -> None:
    with pytest.raises(DatasetError) as caught:
        fetch.fetch(small("emnist_letters"), tmp_path, mirrors=(mirror.address(fault),))
    assert re.fullmatch(
        rf"EMNIST could not be downloaded:\n  {mirror.address(fault)}gzip.zip: .+\n"
        rf"By hand: put {'.gz, '.join(LETTERS)}.gz \(or the same unpacked, without .gz\), "
        rf"or gzip.zip with all of them, into {tmp_path}/EMNIST/raw",
        str(caught.value),
    )
    assert contents(tmp_path / "EMNIST" / "raw") == {}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("dataset", "files"), [("kmnist", KANA), ("qmnist", DIGITS_TOO), ("emnist_letters", LETTERS)])
def test_files_put_there_by_hand_are_used_as_they_are_where_no_checksum_is_known(
    dataset: DatasetName, files: dict[str, bytes], packed: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / FORMATS[dataset][0] / "raw"
    folder.mkdir(parents=True)
    images = FORMATS[dataset][1][0]
    placed = files | {images: files[images][:-1] + b"\x07"}
    for name, content in placed.items():
        (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content, 1) if packed else content)
    assert fetch.fetch(small(dataset), tmp_path, mirrors=()) == folder
    assert {name: content for name, content in contents(folder).items() if name in placed} == placed
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "too short"),
        (lambda content: content + b"\0", "followed by other bytes"),
        (lambda content: b"<html>", "HTML"),
        (lambda content: content[:2] + b"\x0c" + content[3:], "item type 0x0c at byte 2 is not 0x08"),
    ],
)
def test_files_without_a_checksum_must_have_the_published_format_and_are_kept(
    damage: Callable[[bytes], bytes], message: str, tmp_path: Path, mirror: FaultyMirror
) -> None:
    folder = write_dataset(tmp_path, "kmnist")
    path = folder / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    before = contents(folder)
    with pytest.raises(DatasetError, match=f"{path}: .*{message}"):
        fetch.fetch(small("kmnist"), tmp_path, mirrors=(mirror.address(),))
    assert contents(folder) == before
    assert not mirror.requests
