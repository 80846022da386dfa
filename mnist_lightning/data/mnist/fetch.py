"""Put the four files of a data set in place: from the data folder itself, from mirrors, or from the bundled copy.

What it leaves in the folder has the published checksum or, if none is known, the published format.
"""

import gzip
import re
import zipfile
from collections.abc import Callable, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.console import print_stderr
from mnist_lightning.data.mnist import idx, raw_files
from mnist_lightning.data.mnist.download import ContentError, MirrorError, download
from mnist_lightning.data.mnist.registry import Archive, DatasetSource, RawFile
from mnist_lightning.errors import ConfigError, DatasetError, StorageError

Source = Literal["auto", "download", "bundled", "files"]
Split = Literal["train", "test"]

PACKED_EXTRA_BYTES = 1 << 16  # by which a packed file may exceed the unpacked one: gzip adds far less


def fetch(
    dataset: DatasetSource, data_dir: Path, *, source: Source = "auto", mirrors: Sequence[str] | None = None
) -> Path:
    """Make sure that the four files of a data set are in their folder, unpacked and verified.

    A file in the folder is used if it has the published SHA-256 or, if that is unknown, the published format. If the
    dimensions in a header are not the published ones, the data are the user's own: all four files are used as they
    are. Any other file is damaged: it is kept under another name and replaced. Any number of processes may call this at
    once, without locks, because a file appears under its name whole and verified.

    Args:
        dataset: What to fetch.
        data_dir: The folder of all data sets; created if missing.
        source: Where missing files come from: `download` (mirrors only), `bundled` (the bundled copy only), `auto`
            (mirrors, then the bundled copy) or `files` (nowhere: the files are the user's own).
        mirrors: https addresses to use instead of the known mirrors.

    Returns:
        The folder that holds the four files: `<data_dir>/<folder>/raw`.

    Raises:
        ConfigError: If a mirror is not an https address, or there is no bundled copy.
        DatasetError: If a file is not available, or its SHA-256 is unknown and its format is not the published one.
        StorageError: If the folder, or a file in it, cannot be read or written.
    """
    supply = _Supply(dataset, source, dataset.mirrors if mirrors is None else mirrors)
    folder = Path(data_dir) / dataset.folder / "raw"
    try:
        own = [file.name for file in dataset.files if _is_own(folder, file)]
        if own and source != "files":
            print_stderr(f"{folder}: {own[0]} is not the published file: using the four files there as your own")
        if own or source == "files":
            _unpack_own(dataset, folder)
            _check_format(dataset, folder)
            return folder
        if missing := [file for file in dataset.files if _fault(folder / file.name, file)]:
            folder.mkdir(parents=True, exist_ok=True)
            raw_files.remove_stale_parts(folder, [file.name for file in missing])
            for file in missing:
                _complete(folder, file, supply)
        if not all(file.sha256 for file in dataset.files):
            _check_format(dataset, folder)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read or written: {error}") from error
    return folder


def read_split(dataset: DatasetSource, folder: Path, split: Split) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the images of a split, upright uint8 (N, H, W) mapped from the file, and labels from 0, int64 (N,).

    Raises:
        DatasetError: If a file is missing, or its format is not the published one.
    """
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


def _complete(folder: Path, file: RawFile, supply: "_Supply") -> None:
    """Put one file in place: unpacked from a `.gz` beside it if that is intact, else from the supply."""
    raw, packed = folder / file.name, folder / f"{file.name}.gz"
    if (seen := raw_files.identity(raw)) and (fault := _fault(raw, file)):
        raw_files.keep_aside(raw, seen, fault)
    if raw.exists():  # another process was faster
        return
    seen = raw_files.identity(packed)
    if seen and packed.is_file():
        try:
            raw_files.unpack_file(packed, raw, file.size, file.digest)
            return
        except FileNotFoundError:  # another process found it damaged
            pass
        except ContentError as error:
            raw_files.keep_aside(packed, seen, str(error))
    supply.put(file, raw)


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
        self.faults: dict[str, MirrorError] = {}

    def put(self, file: RawFile, target: Path) -> None:
        """Publish one file under its name, from the first place that delivers it."""
        if self.dataset.archive:
            self._put_from_archive(self.dataset.archive, file, target)
        elif not self._download(
            f"{file.name}.gz",
            lambda body: raw_files.unpack(body, target, file.size, file.digest, file.packed),
            file.size + PACKED_EXTRA_BYTES,
        ):
            self._put_bundled(file, target)

    def _put_bundled(self, file: RawFile, target: Path) -> None:
        if self.bundled is None:
            raise DatasetError(self._instructions(target.parent))
        if not self.silent:
            reasons = "; ".join(f"{urlsplit(url).netloc}: {fault}" for url, fault in self.faults.items())
            print_stderr(
                f"{self.dataset.folder}: no mirror delivers it ({reasons or 'none given'}): using the bundled copy"
            )
            self.silent, self.mirrors = True, []
        packed = self.bundled / f"{file.name}.gz"
        try:
            raw_files.unpack_file(packed, target, file.size, file.digest)
        except (FileNotFoundError, ContentError) as error:
            raise DatasetError(f"{packed}: the bundled copy is damaged: {error}; install the package again") from error

    def _put_from_archive(self, archive: Archive, file: RawFile, target: Path) -> None:
        """Unpack one file from the archive, which stays in the folder because it holds other data sets too."""
        path = target.with_name(archive.name)
        raw_files.remove_stale_parts(path.parent, [path.name])
        if (seen := raw_files.identity(path)) and (fault := raw_files.difference(path, archive.size, archive.digest)):
            raw_files.keep_aside(path, seen, fault)
        if not path.exists() and not self._download(
            archive.name, lambda body: raw_files.publish(body, path, archive.size, archive.digest), archive.size
        ):
            raise DatasetError(self._instructions(path.parent))
        with zipfile.ZipFile(path) as members, members.open(f"{archive.folder}/{file.name}.gz") as packed:
            raw_files.unpack(packed, target, file.size, file.digest)

    def _download(self, name: str, take: Callable[[BufferedReader], None], max_bytes: int) -> bool:
        for mirror in list(self.mirrors):
            url = f"{mirror.rstrip('/')}/{name}"
            try:
                download(url, take, max_bytes)
                return True
            except MirrorError as fault:
                self.faults[url] = fault
                if not fault.reachable:
                    self.mirrors.remove(mirror)
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


def _unpack_own(dataset: DatasetSource, folder: Path) -> None:
    """Check that the user's own four files are there, and unpack those that are packed."""
    paths = [folder / file.name for file in dataset.files]
    for path, file in zip(paths, dataset.files, strict=True):
        found = _raw_or_packed(path)
        if found is None:
            raise DatasetError(f"{path}: missing; your own data needs all four: {', '.join(p.name for p in paths)}")
        if found != path:
            try:
                raw_files.unpack_file(found, path, idx.file_size(_shape(found, file), file.item_type))
            except ContentError as error:
                raise DatasetError(f"{found}: {error}") from error


def _check_format(dataset: DatasetSource, folder: Path) -> None:
    """Check that the four files are valid IDX files of one size of images."""
    (train_images, _), (test_images, _) = (read_split(dataset, folder, split) for split in ("train", "test"))
    train_size, test_size = train_images.shape[1:], test_images.shape[1:]
    if train_size != test_size:
        path, train_name = folder / dataset.files[2].name, dataset.files[0].name
        raise DatasetError(f"{path}: images of {test_size} at byte 8, but {train_name} has {train_size}")


def _is_own(folder: Path, file: RawFile) -> bool:
    """Return whether a file is the user's own: a readable header with other dimensions, and another size."""
    path = _raw_or_packed(folder / file.name)
    if path is None:
        return False
    try:
        shape = _shape(path, file)
        size = idx.file_size(shape, file.item_type) if path.suffix == ".gz" else path.stat().st_size
    except (DatasetError, FileNotFoundError):  # the latter if another process has just kept a damaged file aside
        return False
    return shape != file.shape and size != file.size


def _raw_or_packed(path: Path) -> Path | None:
    """Return the file under this name if there is one, else the `.gz` beside it, else None."""
    candidates = (path, path.with_name(f"{path.name}.gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _shape(path: Path, file: RawFile) -> tuple[int, ...]:
    if path.suffix != ".gz":
        return idx.read_header(path, file.item_type)
    try:
        with gzip.open(path) as unpacked:
            return idx.parse_header(unpacked, path, file.item_type)
    except raw_files.NOT_GZIP as error:
        raise DatasetError(f"{path}: not a complete gzip file: {error}") from error


def _fault(path: Path, file: RawFile) -> str:
    """Return why a file has to be fetched, or an empty string; without a SHA-256, `_check_format` checks it."""
    if file.digest:
        return raw_files.difference(path, file.size, file.digest)
    return "" if path.is_file() else "not a file"
