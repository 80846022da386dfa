"""Put the four files of a data set in place: from the data folder itself, from mirrors, or from the bundled copy.

What it leaves in the folder has the published checksum or, if none is known, the published format.
"""

import os
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from mnist_lightning.console import print_stderr
from mnist_lightning.data.mnist import idx, raw_files
from mnist_lightning.data.mnist.download import download
from mnist_lightning.data.mnist.raw_files import FetchError, difference, keep_aside, publish, unpack
from mnist_lightning.data.mnist.registry import Archive, DatasetSource, RawFile
from mnist_lightning.errors import ConfigError, DatasetError, StorageError

Source = Literal["auto", "download", "bundled", "files"]
Split = Literal["train", "test"]

PACKED_EXTRA_BYTES = 1 << 16  # by which a packed file may exceed the unpacked one: gzip adds far less


def fetch(
    dataset: DatasetSource, data_dir: Path, *, source: Source = "auto", mirrors: Sequence[str] | None = None
) -> Path:
    """Make sure that the four files of a data set are in `<data_dir>/<folder>/raw`, unpacked and verified; return it.

    A file in the folder is used if it has the published SHA-256 or, if that is unknown, the published format. If the
    dimensions in a header are not the published ones, the data are the user's own: all four files are used as they
    are. Any other file is damaged: it is kept under another name and replaced. Any number of processes may call this at
    once: one of them fetches, and the others wait. `source` and `mirrors` are those of `MNISTDataModule`.

    Raises:
        ConfigError: If a mirror is not an https address, or there is no bundled copy.
        DatasetError: If a file is not available, or its SHA-256 is unknown and its format is not the published one.
        StorageError: If the folder, or a file in it, cannot be read or written.
    """
    supply = _Supply(dataset, source, dataset.mirrors if mirrors is None else mirrors)
    folder = Path(data_dir) / dataset.folder / "raw"
    files = {folder / file.name: file for file in dataset.files}
    try:
        own = raw_files.find_own(dataset, folder)
        if own and source != "files":
            print_stderr(f"{folder}: {own[0]} is not the published file: using the four files there as your own")
        if own or source == "files":
            for path, file in files.items():
                raw_files.unpack_own(path, file, dataset)
            dataset = raw_files.with_any_classes(dataset)
        elif any(_fault(path, file) for path, file in files.items()):
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(".lock")):
                for path, file in files.items():
                    supply.complete(path, file)
        if own or source == "files" or not all(file.digest for file in dataset.files):
            _check_format(dataset, folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read or written: {error}") from error
    return folder


def read_split(dataset: DatasetSource, folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images of a split, upright uint8 (N, H, W) mapped from the file, and labels from 0, int64 (N,)."""
    images, labels = dataset.files[:2] if split == "train" else dataset.files[2:]
    pixels, numbers = idx.read_split(
        folder / images.name,
        folder / labels.name,
        len(dataset.class_names),
        first_label=dataset.first_label,
        labels_type=labels.item_type,
    )
    return upright(dataset, pixels), numbers


def upright(dataset: DatasetSource, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images (N, H, W) of a data set's file as a person looks at them."""
    return images.transpose(0, 2, 1) if dataset.transposed else images


class _Supply:
    """Brings missing files during one `fetch`, and remembers which mirrors failed and why."""

    def __init__(self, dataset: DatasetSource, source: Source, mirrors: Sequence[str]) -> None:
        for mirror in mirrors:
            if not re.match(r"https://[\w.-]+", mirror):
                raise ConfigError(f"mirrors must be https addresses, got {mirror!r}")
        if source == "bundled" and dataset.bundled is None:
            raise ConfigError(f"source 'bundled': there is no bundled copy of {dataset.folder}; 'auto' downloads it")
        self.dataset = dataset
        self.bundled = None if source == "download" else dataset.bundled
        self.mirrors = [] if source == "bundled" else list(mirrors)
        self.silent = source == "bundled"
        self.faults: dict[str, FetchError] = {}

    def complete(self, path: Path, file: RawFile) -> None:
        """Put one file in place, unless it is: from a `.gz` beside it, a mirror, or the bundled copy."""
        if not (fault := _fault(path, file)):
            return
        if os.path.lexists(path):
            keep_aside(path, fault)
        packed = path.with_name(f"{path.name}.gz")
        if packed.is_file():
            try:
                unpack(packed, path, file.size, file.digest)
                return
            except FetchError as error:
                keep_aside(packed, str(error))
        max_bytes = file.size + PACKED_EXTRA_BYTES
        if self.dataset.archive:
            self._unpack_from_archive(self.dataset.archive, path, file)
        elif not self._download(packed, max_bytes, lambda part: _unpack_download(part, path, file)):
            self._unpack_bundled(path, file)

    def _unpack_bundled(self, path: Path, file: RawFile) -> None:
        if self.bundled is None:
            raise DatasetError(self._instructions(path.parent))
        if not self.silent:
            faults = [f"{urlsplit(url).netloc}: {fault}" for url, fault in self.faults.items()]
            reasons = "; ".join(faults) or "none given"
            print_stderr(f"{self.dataset.folder}: no mirror delivers it ({reasons}): using the bundled copy")
            self.silent = True
        packed = self.bundled / f"{file.name}.gz"
        try:
            unpack(packed, path, file.size, file.digest)
        except (FileNotFoundError, FetchError) as error:
            raise DatasetError(f"{packed}: the bundled copy is damaged: {error}; install the package again") from error

    def _unpack_from_archive(self, archive: Archive, path: Path, file: RawFile) -> None:
        """Unpack one file from the archive, which stays in the folder because it holds other data sets too."""
        zipped = path.with_name(archive.name)
        if (fault := difference(zipped, archive.size, archive.digest)) and os.path.lexists(zipped):
            keep_aside(zipped, fault)
        if not zipped.exists() and not self._download(
            zipped, archive.size, lambda part: publish(part, zipped, archive.size, archive.digest)
        ):
            raise DatasetError(self._instructions(path.parent))
        with zipfile.ZipFile(zipped) as members, members.open(f"gzip/{file.name}.gz") as packed:
            unpack(packed, path, file.size, file.digest)

    def _download(self, target: Path, max_bytes: int, use: Callable[[Path], object]) -> bool:
        """Return whether a mirror delivers a file; a mirror that fails is not asked again."""
        while self.mirrors:
            url = f"{self.mirrors[0].rstrip('/')}/{target.name}"
            try:
                download(url, target.with_name(f"{target.name}.part"), max_bytes, use)
                return True
            except FetchError as fault:
                self.faults[url] = fault
                del self.mirrors[0]
        return False

    def _instructions(self, folder: Path) -> str:
        tried = "".join(f"\n  {url}: {fault}" for url, fault in self.faults.items()) or " no mirrors given"
        names = ", ".join(f"{file.name}.gz" for file in self.dataset.files)
        archive = f", or {self.dataset.archive.name} with all of them," if self.dataset.archive else ""
        bundled = ", or use the bundled copy (source 'bundled')" if self.dataset.bundled else ""
        return (
            f"{self.dataset.folder} could not be downloaded:{tried}\n"
            f"By hand: put {names} (or the same unpacked, without .gz){archive} into {folder}{bundled}"
        )


def _unpack_download(packed: Path, path: Path, file: RawFile) -> None:
    if fault := difference(packed, digest=file.packed):
        raise FetchError(fault)
    unpack(packed, path, file.size, file.digest)


def _fault(path: Path, file: RawFile) -> str:
    """Return why a file has to be fetched; "" if it is in place. Without a SHA-256, `_check_format` checks it."""
    return difference(path, file.size, file.digest) if file.digest else difference(path)


def _check_format(dataset: DatasetSource, folder: Path) -> None:
    """Check that the four files are valid IDX files of one size of images."""
    train_size, test_size = (read_split(dataset, folder, split)[0].shape[1:] for split in ("train", "test"))
    if train_size != test_size:
        path, train_name = folder / dataset.files[2].name, dataset.files[0].name
        raise DatasetError(f"{path}: images of {test_size} at byte 8, but {train_name} has {train_size}")
