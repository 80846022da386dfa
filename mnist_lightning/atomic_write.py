"""Write files so that neither a kill nor a full disk leaves half of one, or costs what stood there before.

A file is written beside its name, flushed, read back, and only then given the name.
"""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from mnist_lightning.errors import StorageError


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content, whole or not at all.

    Raises:
        OSError: If the disk is full or the folder cannot be written; what was there before is untouched.
    """
    with written_beside(path, data) as publish:
        publish()


@contextlib.contextmanager
def written_beside(path: Path, data: bytes) -> Iterator[Callable[[], None]]:
    """Write data to a temporary file in the folder of `path`; the function yielded gives it its name.

    Raises:
        OSError: As `replace_file` does.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            part.chmod(0o666 & ~_umask())  # as any other new file: the temporary one is for its owner alone
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if part.read_bytes() != data:
            raise OSError(f"{part} reads back other bytes than were written")

        def publish() -> None:
            part.replace(path)
            _flush_folder(path.parent)

        yield publish
    finally:
        part.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check that a folder takes files; make it if it is not there.

    Raises:
        StorageError: If it does not, or cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write into {folder}: {error.strerror}") from error


def remove_parts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote into a folder has left there."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can flush a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
