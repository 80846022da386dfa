"""Lightning's CheckpointIO, made durable: no kill and no full disk costs a good checkpoint.

After each save a run's folder holds a file of its own for that moment, `last.ckpt`, and `best.ckpt` when this one is
the best. The manifest that vouches for a file is replaced before the file gets its name, so at any instant each listed
file is either whole or not there yet.
"""

import hashlib
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_lightning.atomic_write import replace_file, written_beside
from mnist_lightning.errors import CheckpointError, DivergenceError, StorageError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.manifest import BEST, LAST, MANIFEST, Entry, by_rank, entry_of, manifest_text, read_manifest
from mnist_lightning.runs.verification import matches, read_checkpoint, read_entries, sha256


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints durably; read only what verifies."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; in a run's folder, bring `last.ckpt`, `best.ckpt` and the manifest up to date.

        Raises:
            CheckpointError: If a state in it is no plain value or tensor.
            DivergenceError: If a weight is not finite.
            StorageError: If the disk is full or the folder cannot be written; nothing that was there is lost.
        """
        path = Path(path)
        for name, value in checkpoint["state_dict"].items():
            if value.is_floating_point() and not value.isfinite().all():
                raise DivergenceError(
                    f"{name} is not finite at step {checkpoint['global_step']}; {path} is not written"
                )
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        data = buffer.getvalue()
        try:
            torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            # Found now, and not when the run is to be resumed.
            raise CheckpointError(
                f"{path} could never be read: a state is no plain value or tensor ({error})"
            ) from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if run_folders.run_of(path):
                _save_in_run(path, data, entry_of(path.name, hashlib.sha256(data).hexdigest(), checkpoint))
            else:  # where another ModelCheckpoint of the user's keeps its files, in its own way
                replace_file(path, data)
        except OSError as error:
            raise StorageError(f"cannot save {path} ({len(data):,} bytes): {error.strerror or error}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint that verifies, plain values and tensors only, whatever was asked for.

        Raises:
            CheckpointError: If it is damaged or not a checkpoint.
        """
        return read_checkpoint(Path(path))


def mend(folder: Path) -> None:
    """Bring a run's manifest, `last.ckpt` and `best.ckpt` up to date, after a kill between a checkpoint and its copies.

    Raises:
        StorageError: If the disk is full or the folder cannot be written; nothing that was there is lost.
    """
    try:
        entries = _still_there(folder)
        if entries and not read_manifest(folder):
            replace_file(folder / MANIFEST, manifest_text(entries).encode())
        newest = sorted(entries, key=lambda entry: -entry.global_step)
        for name, ranked in ((LAST, newest), (BEST, by_rank(entries))):
            for entry in ranked[:1]:
                own = folder / entry.file
                if not matches(folder / name, entry.sha256) and matches(own, entry.sha256):
                    replace_file(folder / name, own.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot mend {folder}: {error.strerror or error}") from error


def _save_in_run(path: Path, data: bytes, entry: Entry) -> None:
    folder = path.parent
    entries = [*_still_there(folder, but=path.name), entry]
    with written_beside(path, data) as publish:
        replace_file(folder / MANIFEST, manifest_text(entries).encode())
        publish()
    replace_file(folder / LAST, data)
    if entry in by_rank(entries)[:1]:
        replace_file(folder / BEST, data)


def _still_there(folder: Path, *, but: str | None = None) -> list[Entry]:
    """Return the entries that vouch for a file; `best.ckpt` or `last.ckpt` may be the only copy left."""
    copies = [sha256(path) for path in (folder / BEST, folder / LAST) if path.exists()]
    return [
        entry
        for entry in read_entries(folder)
        if entry.file != but and (entry.sha256 in copies or (folder / entry.file).exists())
    ]
