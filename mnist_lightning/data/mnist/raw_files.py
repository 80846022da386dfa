"""Data files on disk: check their content, unpack them whole, keep damaged ones aside, recognise the user's own.

A digest is written with its algorithm: `sha256:…` or `md5:…`.
"""

import gzip
import hashlib
import itertools
import os
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

from filelock import FileLock

from mnist_lightning.console import print_stderr
from mnist_lightning.data.mnist import idx
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource, RawFile
from mnist_lightning.errors import DatasetError

CHUNK_BYTES = 1 << 20
NOT_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # raised for a file that is not gzip, or truncated
ALGORITHMS = {"sha256": "SHA-256", "md5": "MD5"}


class FetchError(Exception):
    """A file could not be downloaded, or does not have the expected content; its name is not in the message."""

    def __init__(self, reason: str, *, transient: bool = True) -> None:
        first_line = reason.strip().partition("\n")[0]
        super().__init__("".join(filter(str.isprintable, first_line)))
        self.transient = transient  # whether another attempt to download it may succeed


def difference(path: Path, size: int | None = None, digest: str | None = None) -> str:
    """Return how a file differs from the expected size and digest, where they are known; "" if it does not."""
    if not path.is_file():
        return "not a file"
    if size is not None and (found_size := path.stat().st_size) != size:
        return f"holds {'more' if found_size > size else 'fewer'} than {size} bytes"
    if digest:
        algorithm, _, wanted = digest.partition(":")
        if (found := digest_of(path, algorithm)) != wanted:
            return f"{ALGORITHMS[algorithm]} is {found[:8]}... instead of {wanted[:8]}..."
    return ""


def digest_of(path: Path, algorithm: str = "sha256") -> str:
    """Return the digest of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def keep_aside(path: Path, reason: str) -> None:
    """Rename a damaged file, so that it can be fetched again."""
    suffixes = itertools.chain([""], (f"-{number}" for number in itertools.count(1)))
    candidates = (path.with_name(f"{path.name}.damaged{suffix}") for suffix in suffixes)
    aside = next(candidate for candidate in candidates if not os.path.lexists(candidate))
    path.rename(aside)
    print_stderr(f"{path} is damaged ({reason}): kept as {aside.name}, fetching the file again")


def unpack(packed: Path | IO[bytes], target: Path, size: int, digest: str | None = None) -> None:
    """Unpack a gzip file into `target`, which appears under its name whole.

    It must have `size` bytes, which bounds what is unpacked, and the digest, if that is known.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        with gzip.open(packed) as source, part.open("wb") as out:
            # One byte more than expected, which also makes gzip verify its own checksum.
            while chunk := source.read(min(CHUNK_BYTES, size + 1 - out.tell())):
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        publish(part, target, size, digest)
    except NOT_GZIP as error:
        raise FetchError(f"not a complete gzip file: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def publish(part: Path, target: Path, size: int, digest: str | None) -> None:
    """Give a complete file its name, if it is the one expected."""
    if fault := difference(part, size, digest):
        raise FetchError(fault)
    part.replace(target)


def with_any_classes(dataset: DatasetSource) -> DatasetSource:
    """Return MNIST with all classes that a byte can number, as own files may have; other data sets as they are."""
    return replace(dataset, class_names=("",) * 256) if dataset.folder == MNIST.folder else dataset


def find_own(dataset: DatasetSource, folder: Path) -> list[str]:
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
