"""The file that a command writes its result to."""

import os
from pathlib import Path

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.console import printable
from mnist_lightning.errors import StorageError


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
