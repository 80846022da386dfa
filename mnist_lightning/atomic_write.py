"""Write files atomically: neither a kill nor a full disk leaves a partial file or loses the previous one.

A file is written under a temporary name in the same folder, flushed, read back, and only then renamed.
"""

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

from mnist_lightning.console import printable
from mnist_lightning.errors import StorageError


def replace_file(path: Path, data: bytes, before_rename: Callable[[], None] = lambda: None) -> None:
    """Replace the content of a file, completely or not at all.

    Args:
        path: The file.
        data: Its new content.
        before_rename: Called when the new content is on the disk and does not have its name yet.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the previous file is unchanged.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if part.read_bytes() != data:
            raise OSError(f"{part} does not contain the bytes that were written to it")
        before_rename()
        part.replace(path)
        _flush_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def check_output_file(path: Path) -> None:
    """Check before the work begins that a file can be written; else raise a StorageError."""
    if path.is_dir():
        raise StorageError(f"cannot write {printable(str(path))}: it is a folder")
    if not os.access(path.absolute().parent, os.W_OK):
        raise StorageError(f"cannot write {printable(str(path))}: its folder is missing or not writable")


def write_output_file(path: Path, data: bytes) -> None:
    """Write a file; if that fails, raise a StorageError and leave an earlier file of that name unchanged."""
    try:
        replace_file(path, data)
    except OSError as error:
        raise StorageError(f"cannot write {printable(str(path))}: {error.strerror or error}") from error


def check_writable(folder: Path) -> None:
    """Raise a StorageError unless files can be created in a folder; create it if it does not exist."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write into {folder}: {error.strerror}") from error


def remove_parts(folder: Path) -> None:
    """Remove the temporary files that a killed process has left in a folder."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some systems cannot flush a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
