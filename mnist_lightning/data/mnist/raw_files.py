"""Data files on disk: check their content, make them appear whole, keep damaged ones aside.

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
from typing import IO, cast

from mnist_lightning.console import print_stderr
from mnist_lightning.data.mnist.download import ContentError

CHUNK_BYTES = 1 << 20
NOT_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # raised for a file that is not gzip, or truncated
STALE_PART_S = 3600  # an older part file does not belong to a running download
ALGORITHMS = {"sha256": "SHA-256", "md5": "MD5"}


def difference(path: Path, size: int, digest: str) -> str:
    """Return how a file differs from the expected size and digest; an empty string if it does not."""
    if not path.is_file():
        return "not a file"
    try:
        with open(path, "rb") as raw:
            found_size = os.fstat(raw.fileno()).st_size
            if found_size != size:
                return f"{found_size} bytes instead of {size}"
            return _digest_difference(hashlib.file_digest(raw, _algorithm(digest)).hexdigest(), digest)
    except FileNotFoundError:
        return "kept aside by another process"


def identity(path: Path) -> os.stat_result | None:
    """Return what distinguishes a file from another of the same name; None if there is no file."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def keep_aside(path: Path, seen: os.stat_result, reason: str) -> None:
    """Rename a damaged file; `seen` is its identity from before it was checked."""
    names = (f"{path.name}.damaged{suffix}" for suffix in chain([""], (f"-{n}" for n in count(1))))
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(path, aside)
        if os.path.samestat(seen, os.lstat(aside)):
            print_stderr(f"{path} is damaged ({reason}): kept as {aside.name}, fetching the file again")
        else:
            os.replace(aside, path)  # the file that another process has just published


def unpack_file(packed_path: Path, target: Path, size: int, digest: str | None = None) -> None:
    """Unpack a gzip file on disk, as `unpack` does."""
    with open(packed_path, "rb") as packed:
        unpack(packed, target, size, digest)


def unpack(
    packed: IO[bytes], target: Path, size: int, digest: str | None = None, packed_digest: str | None = None
) -> None:
    """Unpack gzip into a file that appears under its name whole.

    Args:
        packed: The gzip file.
        target: The file to make.
        size: The size that it must have, in bytes.
        digest: Digest of these bytes, if it is known.
        packed_digest: Digest of the gzip file, if it is known; the file is then read into memory.

    Raises:
        ContentError: If it is not a gzip file, or not the one expected.
    """
    if packed_digest:
        packed = io.BytesIO(packed.read())
        _check_digest(hashlib.file_digest(packed, _algorithm(packed_digest)).hexdigest(), packed_digest)
        packed.seek(0)
    try:
        with gzip.GzipFile(fileobj=packed, mode="rb") as unpacked:
            publish(cast(IO[bytes], unpacked), target, size, digest)
    except NOT_GZIP as error:
        raise ContentError(f"not a complete gzip file: {error}") from error


def publish(source: IO[bytes], target: Path, size: int, digest: str | None = None) -> None:
    """Write a stream into a file that appears under its name whole, and only with the expected content.

    Raises:
        ContentError: If the stream does not have exactly `size` bytes, or another digest.
    """
    part = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    written, found = 0, hashlib.new(_algorithm(digest), usedforsecurity=False)
    try:
        with open(part, "xb") as out:
            while chunk := source.read(min(CHUNK_BYTES, size + 1 - written)):
                written += out.write(chunk)
                found.update(chunk)
            out.flush()
            os.fsync(out.fileno())
        if written != size:
            raise ContentError(f"holds {'more' if written > size else 'fewer'} than {size} bytes")
        if digest:
            _check_digest(found.hexdigest(), digest)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def remove_stale_parts(folder: Path, names: Iterable[str]) -> None:
    """Remove parts of files of these names that killed processes have left behind."""
    for part in (part for name in names for part in folder.glob(f"{name}.*.part")):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_PART_S:
                part.unlink()


def _algorithm(digest: str | None) -> str:
    return digest.partition(":")[0] if digest else "sha256"


def _check_digest(found: str, wanted: str) -> None:
    if fault := _digest_difference(found, wanted):
        raise ContentError(fault)


def _digest_difference(found: str, digest: str) -> str:
    algorithm, _, wanted = digest.partition(":")
    return "" if found == wanted else f"{ALGORITHMS[algorithm]} is {found[:8]}... instead of {wanted[:8]}..."
