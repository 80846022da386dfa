"""What a data folder holds: a published data set, or own IDX files, which are a data set of their own."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.data.image_schema import SIDE, ImageSchema, read_schema
from mnist_lightning.data.mnist import fetch, raw_files
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource
from mnist_lightning.data.statistics import mean_and_std
from mnist_lightning.errors import CheckpointError, DatasetError


def described(dataset: DatasetSource, data_dir: Path, source: fetch.Source) -> DatasetSource:
    """Return what is in the data folder: the published data set, or the user's own with their classes and statistics.

    Own files that are not complete, have a single class, or a label that cannot be, are a DatasetError.
    """
    folder = data_dir / dataset.folder / "raw"
    paths = {folder / file.name: file for file in dataset.files[:2]}  # of the training images and labels
    if not raw_files.find_own(dataset, folder) and source != "files":
        return dataset
    if not all(raw_files.raw_or_packed(path).is_file() for path in paths):
        return dataset  # `fetch` reports what is missing
    for path, file in paths.items():
        raw_files.unpack_own(path, file, dataset)
    images, labels = read_split(raw_files.with_any_classes(dataset), folder, "train")
    digests = [raw_files.digest_of(path) for path in paths]
    if digests == [file.sha256 for file in paths.values()]:
        return dataset
    names = dataset.class_names if dataset.folder != MNIST.folder else _counted(labels, [*paths][1])
    own_sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
    return replace(dataset, class_names=names, statistics=mean_and_std(images), own_sha256=own_sha256)


def _counted(labels: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    """Return the names of the classes that the labels count from 0; a label far above the others is a mistake."""
    highest, found = int(labels.max()), len(np.unique(labels))
    if not highest:
        raise DatasetError(f"{path}: all labels are 0; at least two classes needed")
    if highest >= len(MNIST.class_names) and 2 * found < highest:
        place = f"label {highest} at byte {8 + int(labels.argmax())}"
        raise DatasetError(f"{path}: {place}, but only {found} of the classes 0 to {highest} have images")
    return tuple(map(str, range(highest + 1)))


def schema_of(dataset: DatasetSource, folder: Path) -> ImageSchema:
    """Return what a network has to know of the images; read the training file if their statistics are not known."""
    mean, std = dataset.statistics or mean_and_std(fetch.read_split(dataset, folder, "train")[0])
    return ImageSchema(SIDE, SIDE, mean, std, dataset.class_names, own_sha256=dataset.own_sha256)


def restored(inputs: object, dataset: DatasetSource) -> ImageSchema | None:
    """Return the schema of a trained network if its classes are those of the data; own files may lack the last ones."""
    schema, names = read_schema({"inputs": inputs}), dataset.class_names
    count = len(names) if dataset.own_sha256 else None
    return schema if schema and schema.class_names[:count] == names else None


def check_same(schema: ImageSchema, dataset: DatasetSource, folder: Path) -> None:
    """Check that training continues on the data set that a network was trained on: the published one, or the own."""
    if schema.own_sha256 != dataset.own_sha256:
        trained = "other IDX files" if schema.own_sha256 else f"the published {dataset.folder}"
        raise CheckpointError(f"the checkpoint was trained on {trained}, not on the files in {folder}")


def read_split(dataset: DatasetSource, folder: Path, split: fetch.Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images of a split, uint8 (N, 28, 28), and their labels from 0, int64 (N,)."""
    images, labels = fetch.read_split(dataset, folder, split)
    if images.shape[1:] != (SIDE, SIDE):
        size = f"{images.shape[1]}×{images.shape[2]}"
        raise DatasetError(f"{folder}: {split} images are {size} pixels, the network takes {SIDE}×{SIDE}")
    return images, labels
