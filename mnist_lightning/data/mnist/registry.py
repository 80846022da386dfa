"""The registry of MNIST and related data sets: the files of each, their checksums and where to get them.

Checksums of MNIST are those of its files, and of Fashion-MNIST those of the files in Debian's package
dataset-fashion-mnist. The others are of what the mirrors serve: SHA-256 for KMNIST and EMNIST, as TensorFlow Datasets
4.9 lists them, and MD5 for QMNIST, as torchvision 0.29 lists them, which detects corruption but not forgery.
"""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mnist_lightning.data.image_schema import MNIST_SCHEMA, SIDE
from mnist_lightning.data.mnist import idx

DatasetName = Literal[
    "mnist", "fashion_mnist", "kmnist", "emnist_balanced", "emnist_letters", "emnist_digits", "emnist_byclass", "qmnist"
]


@dataclass(frozen=True)
class RawFile:
    """One published file as it is after unpacking; mirrors serve it as `<name>.gz`."""

    name: str  # without `.gz`
    shape: tuple[int, ...]  # the dimensions in its header
    sha256: str | None = None  # of its bytes, in hexadecimal, if known
    packed: str | None = None  # digest of `<name>.gz`, `sha256:…` or `md5:…`, where `sha256` is unknown

    @property
    def digest(self) -> str | None:
        """The digest of its bytes, `sha256:…`, if it is known."""
        return f"sha256:{self.sha256}" if self.sha256 else None

    @property
    def item_type(self) -> int:
        """The IDX type of its items, which the end of its name gives away."""
        return idx.INT if self.name.endswith("-int") else idx.UNSIGNED_BYTE

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return idx.file_size(self.shape, self.item_type)


@dataclass(frozen=True)
class Archive:
    """A zip file that holds the files of several data sets, each as `gzip/<name>.gz`; `digest` is `sha256:…`."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class DatasetSource:
    """A data set of four files, and where to get them."""

    folder: str  # inside `data_dir`, torchvision's name for the data set
    files: tuple[RawFile, ...]  # training images, training labels, test images, test labels
    mirrors: tuple[str, ...]  # https addresses of folders with the `.gz` files or the archive, in the order to try them
    class_names: tuple[str, ...]  # by label
    statistics: tuple[float, float] | None = None  # mean and std of the training pixels scaled to [0, 1], if known
    first_label: int = 0  # the label of the first class in the files
    transposed: bool = False  # whether rows and columns of the images are exchanged in the files
    made_as_mnist: bool = False  # whether its images were made from scans in MNIST's way, as `predict` prepares images
    archive: Archive | None = None  # that mirrors serve instead of the four files
    bundled: Path | None = None  # a folder in this package that holds the files
    own_sha256: str = ""  # of the training images and labels, if the files are the user's own


# The SHA-256 of a file as it is after unpacking or, with its algorithm in front, the digest of what mirrors serve.
_LINES = Path(__file__).with_name("checksums.txt").read_text().splitlines()
CHECKSUMS = {name: digest for digest, name in map(str.split, _LINES)}


def _files(
    folder: str,
    prefixes: tuple[str, str] = ("train", "t10k"),
    counts: tuple[int, int] = (60_000, 10_000),
    labels: tuple[str, tuple[int, ...]] = ("labels-idx1-ubyte", ()),
) -> tuple[RawFile, ...]:
    """Return the four files of a data set."""
    return tuple(
        RawFile(name, (count, *shape), CHECKSUMS.get(f"{folder}/{name}"), CHECKSUMS.get(f"{folder}/{name}.gz"))
        for prefix, count in zip(prefixes, counts, strict=True)
        for kind, shape in (("images-idx3-ubyte", (SIDE, SIDE)), labels)
        if (name := f"{prefix}-{kind}")
    )


CAPITALS = string.digits + string.ascii_uppercase  # as EMNIST counts them, the digits first

MNIST = DatasetSource(
    folder="MNIST",
    files=_files("MNIST"),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    class_names=MNIST_SCHEMA.class_names,
    statistics=(MNIST_SCHEMA.mean, MNIST_SCHEMA.std),
    made_as_mnist=True,
    bundled=Path(__file__).parent / "bundled",
)

# Xiao et al. 2017, https://arxiv.org/abs/1708.07747.
FASHION_MNIST = DatasetSource(
    folder="FashionMNIST",
    files=_files("FashionMNIST"),
    mirrors=(
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    class_names=(
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    statistics=(0.2860, 0.3530),
)

# Clanuwat et al. 2018, https://arxiv.org/abs/1812.01718.
KMNIST = DatasetSource(
    folder="KMNIST",
    files=_files("KMNIST"),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)

# Yadav and Bottou 2019, https://arxiv.org/abs/1905.10498. Each label is followed by seven numbers about the writer.
QMNIST = DatasetSource(
    folder="QMNIST",
    files=_files("QMNIST", ("qmnist-train", "qmnist-test"), (60_000, 60_000), labels=("labels-idx2-int", (8,))),
    mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
    class_names=tuple(string.digits),
    made_as_mnist=True,
)


def _emnist(split: str, counts: tuple[int, int], class_names: Sequence[str], first_label: int = 0) -> DatasetSource:
    """Return a split of EMNIST: Cohen et al. 2017, https://arxiv.org/abs/1702.05373, whose table II has the counts."""
    return DatasetSource(
        folder="EMNIST",
        files=_files("EMNIST", (f"emnist-{split}-train", f"emnist-{split}-test"), counts),
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
        class_names=tuple(class_names),
        first_label=first_label,
        transposed=True,
        archive=Archive("gzip.zip", 561_753_746, CHECKSUMS["EMNIST/gzip.zip"]),
    )


DATASETS: dict[DatasetName, DatasetSource] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "kmnist": KMNIST,
    # Capital and small letters that look alike are one class.
    "emnist_balanced": _emnist("balanced", (112_800, 18_800), CAPITALS + "abdefghnqrt"),
    "emnist_letters": _emnist("letters", (124_800, 20_800), string.ascii_lowercase, first_label=1),
    "emnist_digits": _emnist("digits", (240_000, 40_000), string.digits),
    "emnist_byclass": _emnist("byclass", (697_932, 116_323), CAPITALS + string.ascii_lowercase),
    "qmnist": QMNIST,
}


def trained_on(checkpoint: Mapping[str, Any]) -> DatasetName:
    """Return the data set that a checkpoint was trained on; MNIST if it does not name one."""
    options = checkpoint.get("datamodule_hyper_parameters")
    name = options.get("dataset") if isinstance(options, dict) else None
    return next((known for known in DATASETS if known == name), "mnist")
