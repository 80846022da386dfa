"""Small files in the format that each data set of the family is published in, with images that can be learned."""

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.data.mnist.registry import DatasetName

# Folder, names of the four files and number of classes, as the data sets' own pages have them.
FOUR = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _emnist(split: str) -> tuple[str, str, str, str]:
    train, test = f"emnist-{split}-train", f"emnist-{split}-test"
    return (
        f"{train}-images-idx3-ubyte",
        f"{train}-labels-idx1-ubyte",
        f"{test}-images-idx3-ubyte",
        f"{test}-labels-idx1-ubyte",
    )


FORMATS: dict[DatasetName, tuple[str, tuple[str, str, str, str], int]] = {
    "mnist": ("MNIST", FOUR, 10),
    "fashion_mnist": ("FashionMNIST", FOUR, 10),
    "kmnist": ("KMNIST", FOUR, 10),
    "emnist_balanced": ("EMNIST", _emnist("balanced"), 47),
    "emnist_letters": ("EMNIST", _emnist("letters"), 26),
    "emnist_digits": ("EMNIST", _emnist("digits"), 10),
    "emnist_byclass": ("EMNIST", _emnist("byclass"), 62),
    "qmnist": (
        "QMNIST",
        (
            "qmnist-train-images-idx3-ubyte",
            "qmnist-train-labels-idx2-int",
            "qmnist-test-images-idx3-ubyte",
            "qmnist-test-labels-idx2-int",
        ),
        10,
    ),
}
TRAIN_COUNT, TEST_COUNT = 310, 124


def make_split(count: int, classes: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return upright images (count, 28, 28), a square whose position gives the label, in noise, and labels from 0."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = random.integers(0, 60, (count, 28, 28), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = 1 + 3 * (label // 8), 1 + 3 * (label % 8)
        image[row : row + 3, column : column + 3] = 250
    return images, labels


def images_file(images: NDArray[np.uint8]) -> bytes:
    return bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape) + images.tobytes()


def labels_file(labels: NDArray[np.int64]) -> bytes:
    return bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels)) + labels.astype(np.uint8).tobytes()


def qmnist_labels_file(labels: NDArray[np.int64]) -> bytes:
    """Rows of eight big-endian numbers, the class and seven on its writer: https://github.com/facebookresearch/qmnist."""
    rows = np.arange(len(labels) * 8).reshape(-1, 8)
    rows[:, 0] = labels
    return bytes([0, 0, 12, 2]) + struct.pack(">2I", *rows.shape) + rows.astype(">i4").tobytes()


def files_of(dataset: DatasetName) -> dict[str, bytes]:
    """Return the four files of a data set, by name."""
    _, names, classes = FORMATS[dataset]
    contents = []
    for count, seed in ((TRAIN_COUNT, 0), (TEST_COUNT, 1)):
        images, labels = make_split(count, classes, seed)
        transposed = dataset.startswith("emnist")
        contents.append(images_file(images.transpose(0, 2, 1) if transposed else images))
        write = qmnist_labels_file if dataset == "qmnist" else labels_file
        contents.append(write(labels + 1 if dataset == "emnist_letters" else labels))
    return dict(zip(names, contents, strict=True))


def write_dataset(data_dir: Path, dataset: DatasetName) -> Path:
    """Write the four files of a data set into its folder under `data_dir`, and return that folder."""
    folder = data_dir / FORMATS[dataset][0] / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files_of(dataset).items():
        (folder / name).write_bytes(content)
    return folder
