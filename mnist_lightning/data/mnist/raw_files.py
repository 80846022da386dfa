"""One data file on disk: is it the right one, how does it appear whole, and where does a damaged one go.

A digest is written with its algorithm: `sha256:…` or `md5:…`.
"""

import gzip
import hashlib
import io
import os
import secrets
import time
import zlib
from collections.abc import Iterable
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from mnist_lightning.console import print_stderr
from mnist_lightning.data.mnist.download import ContentError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 1 << 20
NOT_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # what Python raises for a file that is not gzip, or not all of it
STALE_PART_S = 3600  # a part file that old belongs to no download that is still running
ALGORITHMS = {"sha256": "SHA-256", "md5": "MD5"}


def difference(path: Path, size: int, digest: str) -> str:
    """Say how a file differs from one of this size and digest; nothing when it does not."""
    if not path.is_file():
        return "not a file"
    algorithm, _, wanted = digest.partition(":")
    try:
        with open(path, "rb") as raw:
            found_size = os.fstat(raw.fileno()).st_size
            if found_size != size:
                return f"{found_size} bytes instead of {size}"
            found = hashlib.file_digest(raw, algorithm).hexdigest()
    except FileNotFoundError:
        return "kept aside by another process"
    return "" if found == wanted else _other_digest(algorithm, found, wanted)


def identity(path: Path) -> os.stat_result | None:
    """Return what tells a file from another of the same name; nothing where there is none."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def keep_aside(path: Path, seen: os.stat_result, reason: str) -> None:
    """Rename a damaged file; `seen` is its identity from before it was judged."""
    names = (f"{path.name}.damaged{suffix}" for suffix in chain([""], (f"-{n}" for n in count(1))))
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(path, aside)
        if os.path.samestat(seen, os.lstat(aside)):
            print_stderr(f"{path} is damaged ({reason}): kept as {aside.name}, fetching the file again")
        else:
            os.replace(aside, path)  # what another process had just published


def unpack_file(packed_path: Path, target: Path, size: int, digest: str | None = None) -> None:
    """Unpack a gzip file on disk, as `unpack` does."""
    with open(packed_path, "rb") as packed:
        unpack(packed, target, size, digest)


def unpack(
    packed: IO[bytes], target: Path, size: int, digest: str | None = None, packed_digest: str | None = None
) -> None:
    """Unpack gzip into a file which appears under its name whole.

    Args:
        packed: The gzip file.
        target: The file to make.
        size: Bytes that it must have.
        digest: Digest of these bytes, if it is known.
        packed_digest: Digest of the gzip file, if it is known.

    Raises:
        ContentError: It is not a gzip file, or another one.
    """
    try:
        with gzip.GzipFile(fileobj=_checked(packed, packed_digest, "its"), mode="rb") as unpacked:
            publish(_checked(cast(IO[bytes], unpacked), digest, "unpacked, its"), target, size)
    except NOT_GZIP as error:
        raise ContentError(f"not a whole gzip file: {error}") from error


def save(source: IO[bytes], target: Path, size: int, digest: str) -> None:
    """Save a stream as a file which appears under its name whole.

    Raises:
        ContentError: The bytes are not those of this size and digest.
    """
    publish(_checked(source, digest, "its"), target, size)


def publish(source: IO[bytes], target: Path, size: int) -> None:
    """Write exactly `size` bytes, up to the end of a stream, into a file which appears under its name whole.

    Raises:
        ContentError: There are more bytes, or fewer.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    written = 0
    try:
        with open(part, "xb") as out:
            while chunk := source.read(min(CHUNK_BYTES, size + 1 - written)):
                written += out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if written != size:
            raise ContentError(f"unpacks to {'more' if written > size else 'fewer'} than {size} bytes")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def remove_stale_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove what processes that were killed have left behind of files of these names."""
    for part in (part for name in names for part in folder.glob(f"{name}.*.part")):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_PART_S:
                part.unlink()


class _Checked(io.RawIOBase):
    """A stream whose end is reached only if its bytes have the digest that they should have."""

    def __init__(self, source: IO[bytes], digest: str, subject: str) -> None:
        self._source, self._subject = source, subject
        self._algorithm, _, self._wanted = digest.partition(":")
        self._digest = hashlib.new(self._algorithm, usedforsecurity=False)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer)
        chunk = self._source.read(len(view))
        self._digest.update(chunk)
        if not chunk and len(view) and (found := self._digest.hexdigest()) != self._wanted:
            raise ContentError(f"{self._subject} {_other_digest(self._algorithm, found, self._wanted)}")
        view[: len(chunk)] = chunk
        return len(chunk)


def _checked(source: IO[bytes], digest: str | None, subject: str) -> IO[bytes]:
    return io.BufferedReader(_Checked(source, digest, subject)) if digest else source


def _other_digest(algorithm: str, found: str, wanted: str) -> str:
    return f"{ALGORITHMS[algorithm]} is {found[:8]}... instead of {wanted[:8]}..."
