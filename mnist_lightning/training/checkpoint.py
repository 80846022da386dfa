"""Checkpoints made durable: when they are saved, and how their bytes reach the disk.

After each save the run's folder holds the epoch's own file, `last.ckpt`, and `best.ckpt` when this one is the best.
Every file is written beside its name, flushed, read back, and only then given the name; the manifest that vouches for
it is replaced first. So at any instant each listed file is either whole or the one before.
"""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_lightning import runs
from mnist_lightning.errors import StorageError


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints so that no kill and no full disk costs a good one; read only what verifies."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint and bring `last.ckpt`, `best.ckpt` and the manifest of its folder up to date.

        Raises:
            StorageError: If the disk is full or the folder cannot be written; nothing that was there is lost.
        """
        path = Path(path)
        buffer = io.BytesIO()
        torch.save(dict(checkpoint), buffer)
        data = buffer.getvalue()
        entry = runs.Entry(
            file=path.name,
            sha256=hashlib.sha256(data).hexdigest(),
            epoch=checkpoint["epoch"],
            global_step=checkpoint["global_step"],
            metrics=checkpoint.get("metrics", {}),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = [known for known in runs.read_manifest(path.parent) if known.file != path.name] + [entry]
            with _beside(path, data) as publish:
                replace_file(path.parent / runs.MANIFEST, runs.manifest_text(entries).encode())
                publish()
            replace_file(path.parent / runs.LAST, data)
            if runs.best_of(entries) is entry:
                replace_file(path.parent / runs.BEST, data)
        except OSError as error:
            raise StorageError(f"cannot save {path} ({len(data):,} bytes): {error.strerror or error}") from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint that verifies, plain values and tensors only, whatever was asked for.

        Raises:
            CheckpointError: If it is damaged or not a checkpoint.
        """
        return runs.read_checkpoint(Path(path))


class EpochCheckpoint(ModelCheckpoint):
    """Save a checkpoint at the end of every epoch.

    Args:
        every_n_epochs: Save after every n-th epoch, at least 1.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(
            filename="{epoch:02d}-{val_loss:.4f}",
            monitor="val_acc",
            mode="max",
            save_top_k=-1,
            every_n_epochs=every_n_epochs,
            # After the schedule and the early stopper have looked, so that their states in the file are final.
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """Return a name that does not depend on settings: one callback saves the checkpoints of a run."""
        return type(self).__qualname__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Without validation, name files by their epoch alone."""
        super().on_train_start(trainer, pl_module)
        if not any(trainer.num_val_batches):
            self.monitor, self.filename = None, "{epoch:02d}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, also where the folder has another path than when the checkpoint was saved."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content, whole or not at all."""
    with _beside(path, data) as publish:
        publish()


@contextlib.contextmanager
def _beside(path: Path, data: bytes) -> Any:
    """Write data to a temporary file in the folder of `path`, verified; the function yielded gives it its name."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
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


def _flush_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can flush a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
