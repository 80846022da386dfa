"""IDX files of the user's own, under the names of a published data set: recognised, checked and unpacked."""

import gzip
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from mnist_lightning.data.mnist import idx
from mnist_lightning.data.mnist.raw_files import NOT_GZIP, FetchError, unpack
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource, RawFile
from mnist_lightning.errors import DatasetError


def with_any_classes(dataset: DatasetSource) -> DatasetSource:
    """Return MNIST with all classes that a byte can number, as own files may have; other data sets as they are."""
    return replace(dataset, class_names=("",) * 256) if dataset.folder == MNIST.folder else dataset


def find(dataset: DatasetSource, folder: Path) -> list[str]:
    """Return the names of the files in a folder that are the user's own.

    A file that was placed as `train-images.idx3-ubyte`, another published spelling, gets its usual name.
    """
    for name in (f"{file.name}{suffix}" for file in dataset.files for suffix in ("", ".gz")):
        dotted = folder / name.replace("-idx", ".idx")
        if dotted.is_file() and not os.path.lexists(folder / name):
            with suppress(FileNotFoundError):  # another process was faster
                dotted.rename(folder / name)
    return [file.name for file in dataset.files if _is_own(folder / file.name, file)]


def _is_own(path: Path, file: RawFile) -> bool:
    """Return whether a file has a readable header with other dimensions than the published one, and another size."""
    try:
        found = raw_or_packed(path)
        shape = _shape(found, file)
        size = path.stat().st_size if found == path else idx.file_size(shape, file.item_type)
    except (DatasetError, OSError):  # missing, damaged, or just kept aside by another process
        return False
    return shape != file.shape and size != file.size


def unpack_own(path: Path, file: RawFile, dataset: DatasetSource) -> None:
    """Check that one of the user's own four files is there, and unpack it if it is packed."""
    found = raw_or_packed(path)
    if not found.is_file():
        raise DatasetError(f"{path}: missing; your own data needs all four: {', '.join(f.name for f in dataset.files)}")
    if found != path:
        shape = _shape(found, file)
        with FileLock(path.parent.with_name(".lock")):
            try:
                unpack(found, path, idx.file_size(shape, file.item_type))
            except FetchError as error:
                raise DatasetError(f"{found}: {error}") from error


def raw_or_packed(path: Path) -> Path:
    """Return the path of a file if it exists, else that of the `.gz` beside it."""
    return path if path.is_file() else path.with_name(f"{path.name}.gz")


def _shape(path: Path, file: RawFile) -> tuple[int, ...]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as content:
            return idx.parse_header(content, path, file.item_type)
    except NOT_GZIP as error:
        raise DatasetError(f"{path}: not a complete gzip file: {error}") from error
