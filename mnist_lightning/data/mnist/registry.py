"""MNIST and its family: what each data set consists of, and where it can be had.

Checksums are those of the files themselves where the files were at hand: MNIST's, and Fashion-MNIST's from Debian's
package dataset-fashion-mnist. The others are of what the mirrors serve: KMNIST's and EMNIST's SHA-256, as TensorFlow
Datasets 4.9 lists them, and QMNIST's MD5, as torchvision 0.29 lists them, which finds damage but no forgery.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.data.mnist import idx

DatasetName = Literal[
    "mnist",
    "fashion_mnist",
    "kmnist",
    "emnist_balanced",
    "emnist_letters",
    "emnist_digits",
    "emnist_byclass",
    "qmnist",
]


@dataclass(frozen=True)
class RawFile:
    """One published file as it is after unpacking; mirrors serve it as `<name>.gz`.

    Args:
        name: The file name, without `.gz`.
        shape: The dimensions in its header.
        sha256: Digest of its bytes, in hexadecimal; None where it is not known.
        packed: Digest of `<name>.gz` as mirrors serve it, `sha256:…` or `md5:…`; None where the one above, or an
            archive's, says enough.
    """

    name: str
    shape: tuple[int, ...]
    sha256: str | None = None
    packed: str | None = None

    @property
    def digest(self) -> str | None:
        """The digest of its bytes with its algorithm, if it is known."""
        return f"sha256:{self.sha256}" if self.sha256 else None

    @property
    def item_type(self) -> int:
        """The type of its items, which published names end in."""
        return idx.INT if self.name.endswith("-int") else idx.UNSIGNED_BYTE

    @property
    def size(self) -> int:
        """Bytes."""
        return idx.file_size(self.shape, self.item_type)


@dataclass(frozen=True)
class Archive:
    """A zip file that holds a data set's files, each as `<folder>/<name>.gz`.

    Args:
        name: Its name.
        size: Bytes.
        digest: Digest of these bytes, `sha256:…`.
        folder: The folder inside it.
    """

    name: str
    size: int
    digest: str
    folder: str


@dataclass(frozen=True)
class DatasetSource:
    """A data set of four files, and where they can be had.

    Args:
        folder: The folder inside `data_dir`, torchvision's name for the data set.
        files: Training images, training labels, test images, test labels.
        mirrors: https addresses of folders that hold the four `.gz` files or the archive, in the order to try them.
        class_names: The name of each class, by label.
        statistics: Mean and standard deviation of the pixels of the training images, scaled to [0, 1]; None where no
            files were at hand to compute them from.
        first_label: What the first class is called in the files.
        transposed: Whether rows and columns of the images are exchanged in the files.
        made_as_mnist: Whether its images were made of scans in MNIST's way, which is how `data.pictures` makes them.
        archive: What the mirrors serve in place of the four files, if they do.
        bundled: A folder on this machine that holds the files, if there is one.
    """

    folder: str
    files: tuple[RawFile, RawFile, RawFile, RawFile]
    mirrors: tuple[str, ...]
    class_names: tuple[str, ...]
    statistics: tuple[float, float] | None = None
    first_label: int = 0
    transposed: bool = False
    made_as_mnist: bool = False
    archive: Archive | None = None
    bundled: Path | None = None


DIGITS = tuple(string.digits)

MNIST = DatasetSource(
    folder="MNIST",
    files=(
        RawFile(
            name="train-images-idx3-ubyte",
            shape=(60_000, 28, 28),
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        RawFile(
            name="train-labels-idx1-ubyte",
            shape=(60_000,),
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        RawFile(
            name="t10k-images-idx3-ubyte",
            shape=(10_000, 28, 28),
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        RawFile(
            name="t10k-labels-idx1-ubyte",
            shape=(10_000,),
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    class_names=MNIST_SCHEMA.class_names,
    statistics=(MNIST_SCHEMA.mean, MNIST_SCHEMA.std),
    made_as_mnist=True,
    bundled=Path(__file__).parent / "bundled",
)

# Xiao et al. 2017, https://arxiv.org/abs/1708.07747.
FASHION_MNIST = DatasetSource(
    folder="FashionMNIST",
    files=(
        RawFile(
            name="train-images-idx3-ubyte",
            shape=(60_000, 28, 28),
            sha256="c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        RawFile(
            name="train-labels-idx1-ubyte",
            shape=(60_000,),
            sha256="bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        RawFile(
            name="t10k-images-idx3-ubyte",
            shape=(10_000, 28, 28),
            sha256="5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        RawFile(
            name="t10k-labels-idx1-ubyte",
            shape=(10_000,),
            sha256="0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    statistics=(0.2860, 0.3530),
)

# Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718.
KMNIST = DatasetSource(
    folder="KMNIST",
    files=(
        RawFile(
            name="train-images-idx3-ubyte",
            shape=(60_000, 28, 28),
            packed="sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        ),
        RawFile(
            name="train-labels-idx1-ubyte",
            shape=(60_000,),
            packed="sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        ),
        RawFile(
            name="t10k-images-idx3-ubyte",
            shape=(10_000, 28, 28),
            packed="sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        ),
        RawFile(
            name="t10k-labels-idx1-ubyte",
            shape=(10_000,),
            packed="sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    ),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)

# Yadav and Bottou 2019, https://arxiv.org/abs/1905.10498. Beside its class, a label has seven numbers on the writer.
QMNIST = DatasetSource(
    folder="QMNIST",
    files=(
        RawFile(
            name="qmnist-train-images-idx3-ubyte",
            shape=(60_000, 28, 28),
            packed="md5:ed72d4157d28c017586c42bc6afe6370",
        ),
        RawFile(
            name="qmnist-train-labels-idx2-int",
            shape=(60_000, 8),
            packed="md5:0058f8dd561b90ffdd0f734c6a30e5e4",
        ),
        RawFile(
            name="qmnist-test-images-idx3-ubyte",
            shape=(60_000, 28, 28),
            packed="md5:1394631089c404de565df7b7aeaf9412",
        ),
        RawFile(
            name="qmnist-test-labels-idx2-int",
            shape=(60_000, 8),
            packed="md5:5b5b05890a5e13444e108efe57b788aa",
        ),
    ),
    mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
    class_names=DIGITS,
    made_as_mnist=True,
)


def _emnist(
    split: str, train_count: int, test_count: int, class_names: tuple[str, ...], first_label: int = 0
) -> DatasetSource:
    """Return a part of EMNIST: Cohen et al. 2017, https://arxiv.org/abs/1702.05373, whose table II has the counts."""
    train, test = f"emnist-{split}-train", f"emnist-{split}-test"
    return DatasetSource(
        folder="EMNIST",
        files=(
            RawFile(f"{train}-images-idx3-ubyte", (train_count, 28, 28)),
            RawFile(f"{train}-labels-idx1-ubyte", (train_count,)),
            RawFile(f"{test}-images-idx3-ubyte", (test_count, 28, 28)),
            RawFile(f"{test}-labels-idx1-ubyte", (test_count,)),
        ),
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
        class_names=class_names,
        first_label=first_label,
        transposed=True,
        archive=Archive(
            name="gzip.zip",
            size=561_753_746,
            digest="sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e",
            folder="gzip",
        ),
    )


DATASETS: dict[DatasetName, DatasetSource] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "kmnist": KMNIST,
    # Of the letters whose two cases look alike, both are one class.
    "emnist_balanced": _emnist("balanced", 112_800, 18_800, (*DIGITS, *string.ascii_uppercase, *"abdefghnqrt")),
    "emnist_letters": _emnist("letters", 124_800, 20_800, tuple(string.ascii_lowercase), first_label=1),
    "emnist_digits": _emnist("digits", 240_000, 40_000, DIGITS),
    "emnist_byclass": _emnist("byclass", 697_932, 116_323, (*DIGITS, *string.ascii_uppercase, *string.ascii_lowercase)),
    "qmnist": QMNIST,
}


def trained_on(checkpoint: Mapping[str, Any]) -> DatasetName:
    """Return which data set a checkpoint was trained on: MNIST where it does not say."""
    options = checkpoint.get("datamodule_hyper_parameters")
    name = options.get("dataset") if isinstance(options, dict) else None
    return next((known for known in DATASETS if known == name), "mnist")
