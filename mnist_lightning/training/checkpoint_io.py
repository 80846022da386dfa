"""DurableCheckpointIO: a CheckpointIO plugin with which neither a kill nor a full disk loses a good checkpoint.

After each save the folder of a run holds a file for this save, `last.ckpt`, and `best.ckpt` if it is the best so far.
The manifest entry of a file is written before the file gets its name, so each listed file is either complete or not
there yet.
"""

import hashlib
import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.errors import CheckpointError, DivergenceError, StorageError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.checkpoint_verification import matches, read_checkpoint, read_entries, sha256
from mnist_lightning.runs.manifest import BEST, LAST, MANIFEST, Entry, by_rank, entry_of, manifest_text, read_manifest

TEMPORARY = (".lr_find_", ".scale_batch_size_")  # files of BatchSizeFinder, LearningRateFinder and Tuner
STEP_FILES = "epoch=*-step=*.ckpt"  # of checkpoints from within epochs


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints durably, and read only those that verify."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary: set[Path] = set()

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint; in a run's folder, update `last.ckpt`, `best.ckpt` and the manifest.

        Raises:
            CheckpointError: If it contains something other than plain values and tensors.
            DivergenceError: If a weight is not finite.
            StorageError: If the disk is full or the folder is not writable; existing files are not lost.
        """
        path = Path(path)
        if path.name.startswith(TEMPORARY):
            self._temporary.add(path)
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
            # Found now rather than when the run is resumed.
            raise CheckpointError(
                f"{path} cannot be saved: a state is not a plain value or tensor ({error})"
            ) from error
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if run_folders.run_of(path):
                _save_in_run(path, data, entry_of(path.name, hashlib.sha256(data).hexdigest(), checkpoint))
            else:  # of another ModelCheckpoint, which manages its own files
                replace_file(path, data)
        except OSError as error:
            raise StorageError(f"cannot save {path} ({len(data):,} bytes): {error.strerror or error}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint as `read_checkpoint` does: plain values and tensors only, whatever `weights_only` is."""
        return read_checkpoint(Path(path), trained=False)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        super().remove_checkpoint(path)
        self._temporary.discard(Path(path))

    def teardown(self) -> None:
        """Remove what Lightning's tuner leaves if it is interrupted: the state from before it tried values."""
        for path in self._temporary:
            path.unlink(missing_ok=True)


def repair(folder: Path) -> None:
    """Update a run's manifest, `last.ckpt` and `best.ckpt` after a kill between a checkpoint and its copies.

    Raises:
        StorageError: If the disk is full or the folder is not writable; existing files are not lost.
    """
    try:
        entries = _listed_entries(folder)
        if entries and not read_manifest(folder):
            replace_file(folder / MANIFEST, manifest_text(entries).encode())
        newest = sorted(entries, key=lambda entry: -entry.global_step)
        for name, ranked in ((LAST, newest), (BEST, by_rank(entries))):
            for entry in ranked[:1]:
                own = folder / entry.file
                if not matches(folder / name, entry.sha256) and matches(own, entry.sha256):
                    replace_file(folder / name, own.read_bytes())
    except OSError as error:
        raise StorageError(f"cannot repair {folder}: {error.strerror or error}") from error


def remove_older(folder: Path, *, step_files: int, keep: float) -> None:
    """Remove checkpoints of a run, and then their entries; the best and the last stay, as copies if not as files.

    Args:
        folder: The run's checkpoint folder.
        step_files: How many of the newest from within epochs stay.
        keep: How many of the newest from the end of an epoch stay; infinity keeps all.
    """
    steps = sorted(folder.glob(STEP_FILES), key=lambda path: path.stem.split("=")[-1])
    for path in steps[: len(steps) - step_files]:
        path.unlink()
    if keep == math.inf:
        return
    repair(folder)  # so that both copies are complete
    step_names = {path.name for path in steps}
    entries = [entry for entry in _listed_entries(folder) if entry.file not in step_names]
    entries.sort(key=lambda entry: -entry.global_step)
    kept = entries[: int(keep)] + (by_rank(entries)[:1] if keep else [])
    if removed := [path for entry in entries if entry not in kept and (path := folder / entry.file).exists()]:
        for path in removed:
            path.unlink()
        replace_file(folder / MANIFEST, manifest_text(_listed_entries(folder)).encode())


def _save_in_run(path: Path, data: bytes, entry: Entry) -> None:
    folder = path.parent
    entries = [*_listed_entries(folder, but=path.name), entry]
    manifest = manifest_text(entries).encode()
    replace_file(path, data, before_rename=lambda: replace_file(folder / MANIFEST, manifest))
    replace_file(folder / LAST, data)
    if entry in by_rank(entries)[:1]:
        replace_file(folder / BEST, data)


def _listed_entries(folder: Path, *, but: str | None = None) -> list[Entry]:
    """Return the manifest entries of files that exist; `best.ckpt` or `last.ckpt` may be the only copy left."""
    copies = [sha256(path) for path in (folder / BEST, folder / LAST) if path.exists()]
    return [
        entry
        for entry in read_entries(folder)
        if entry.file != but and (entry.sha256 in copies or (folder / entry.file).exists())
    ]
