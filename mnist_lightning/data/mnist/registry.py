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


def _files(
    *digests: str,
    prefixes: tuple[str, str] = ("train", "t10k"),
    counts: tuple[int, int] = (60_000, 10_000),
    labels: tuple[str, tuple[int, ...]] = ("labels-idx1-ubyte", ()),
) -> tuple[RawFile, ...]:
    """Return the four files; a digest is the SHA-256 of a file or, with its algorithm in front, that of `<name>.gz`."""
    files = [
        (f"{prefix}-{kind}", (count, *shape))
        for prefix, count in zip(prefixes, counts, strict=True)
        for kind, shape in (("images-idx3-ubyte", (SIDE, SIDE)), labels)
    ]
    return tuple(
        RawFile(*file, packed=digest) if ":" in digest else RawFile(*file, digest or None)
        for file, digest in zip(files, digests or [""] * 4, strict=True)
    )


CAPITALS = string.digits + string.ascii_uppercase  # as EMNIST counts them, the digits first

MNIST = DatasetSource(
    folder="MNIST",
    files=_files(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
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
    files=_files(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
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
    files=_files(
        "sha256:51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "sha256:e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "sha256:edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "sha256:20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    class_names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)

# Yadav and Bottou 2019, https://arxiv.org/abs/1905.10498. Each label is followed by seven numbers about the writer.
QMNIST = DatasetSource(
    folder="QMNIST",
    files=_files(
        "md5:ed72d4157d28c017586c42bc6afe6370",
        "md5:0058f8dd561b90ffdd0f734c6a30e5e4",
        "md5:1394631089c404de565df7b7aeaf9412",
        "md5:5b5b05890a5e13444e108efe57b788aa",
        prefixes=("qmnist-train", "qmnist-test"),
        counts=(60_000, 60_000),
        labels=("labels-idx2-int", (8,)),
    ),
    mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
    class_names=tuple(string.digits),
    made_as_mnist=True,
)


def _emnist(split: str, counts: tuple[int, int], class_names: Sequence[str], first_label: int = 0) -> DatasetSource:
    """Return a split of EMNIST: Cohen et al. 2017, https://arxiv.org/abs/1702.05373, whose table II has the counts."""
    digest = "sha256:fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"
    return DatasetSource(
        folder="EMNIST",
        files=_files(prefixes=(f"emnist-{split}-train", f"emnist-{split}-test"), counts=counts),
        mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",),
        class_names=tuple(class_names),
        first_label=first_label,
        transposed=True,
        archive=Archive("gzip.zip", 561_753_746, digest),
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
