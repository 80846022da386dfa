"""Checkpoints made durable: when they are saved, and how their bytes reach the disk.

After each save the run's folder holds a file of its own for that moment, `last.ckpt`, and `best.ckpt` when this one is
the best. Every file is written beside its name, flushed, read back, and only then given the name; the manifest that
vouches for it is replaced first. So at any instant each listed file is either whole or not there yet.
"""

import contextlib
import hashlib
import io
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from mnist_lightning import runs
from mnist_lightning.errors import CheckpointError, ConfigError, DivergenceError, StorageError

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STEP_FILES = "epoch=*-step=*.ckpt"


class DurableCheckpointIO(TorchCheckpointIO):
    """Write checkpoints so that no kill and no full disk costs a good one; read only what verifies."""

    def save_checkpoint(self, checkpoint: Mapping[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint and bring `last.ckpt`, `best.ckpt` and the manifest of its folder up to date.

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
        entry = runs.Entry(
            file=path.name,
            sha256=hashlib.sha256(data).hexdigest(),
            epoch=checkpoint["epoch"],
            global_step=checkpoint["global_step"],
            metrics=checkpoint.get("metrics", {}),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            entries = [*_still_there(path.parent, but=path.name), entry]
            with _beside(path, data) as publish:
                replace_file(path.parent / runs.MANIFEST, runs.manifest_text(entries).encode())
                publish()
            replace_file(path.parent / runs.LAST, data)
            if entry in runs.by_rank(entries)[:1]:
                replace_file(path.parent / runs.BEST, data)
        except OSError as error:
            raise StorageError(f"cannot save {path} ({len(data):,} bytes): {error.strerror or error}") from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint that verifies, plain values and tensors only, whatever was asked for.

        Raises:
            CheckpointError: If it is damaged or not a checkpoint.
        """
        return runs.read_checkpoint(Path(path))


class RunCheckpoint(ModelCheckpoint):
    """Save at every epoch's end, in between on request, and before a signal ends the run.

    SIGINT, SIGTERM and SIGHUP let the step finish, save, and exit; a second one ends the process at once. A run
    resumed from any of these checkpoints ends with the same bits as one that was never interrupted. An epoch is saved
    after the schedule and the early stopper have looked, so that their states in the file are final.

    Args:
        every_n_epochs: Save after every n-th epoch, at least 1.
        every_n_steps: Optimizer steps between further checkpoints within an epoch, at least 1; null saves none.
        every_n_minutes: Minutes between further checkpoints within an epoch, above 0; null saves none.
    """

    def __init__(
        self, every_n_epochs: int = 1, every_n_steps: int | None = None, every_n_minutes: float | None = None
    ) -> None:
        if every_n_epochs < 1:
            raise ConfigError(f"checkpoint.every_n_epochs must be at least 1, got {every_n_epochs}")
        if every_n_steps is not None and every_n_steps < 1:
            raise ConfigError(f"checkpoint.every_n_steps must be at least 1, got {every_n_steps}")
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise ConfigError(f"checkpoint.every_n_minutes must be above 0, got {every_n_minutes}")
        super().__init__(
            monitor="val_acc", mode="max", save_top_k=-1, every_n_epochs=every_n_epochs, enable_version_counter=False
        )
        self.every_n_steps = every_n_steps
        self.every_n_minutes = every_n_minutes
        self._signal: int | None = None  # what asked the run to end
        self._wanted = False  # a checkpoint at the next step that can be resumed from
        self._seen_step = 0
        self._saved_at_s = 0.0

    @property
    def state_key(self) -> str:
        """Return a name that does not depend on settings: one callback saves the checkpoints of a run."""
        return type(self).__qualname__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to signals."""
        super().on_train_start(trainer, pl_module)
        self._seen_step, self._saved_at_s = trainer.global_step, time.monotonic()
        for name in SIGNALS:
            with contextlib.suppress(ValueError, AttributeError):  # not the main thread; no such signal here
                signal.signal(getattr(signal, name), self._on_signal)  # Lightning restores what was there before

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch, when asked to and where a run can be resumed exactly."""
        if trainer.global_step == self._seen_step:
            return  # gradients are still being accumulated, and no checkpoint holds them
        self._seen_step = trainer.global_step
        self._wanted |= self._is_due(trainer.global_step)
        loop = trainer.fit_loop.epoch_loop
        # Lightning would skip a validation that is due, or the end of the epoch, when it resumes from here.
        validates_next = trainer.fit_loop._data_fetcher and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
        if self._wanted and not validates_next and not loop.batch_progress.is_last_batch:
            self._save_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within the epoch, when asked to before it."""
        if self._wanted and trainer.state.fn == "fit" and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            self._save_step(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, the last one always; files from within it are no longer needed."""
        validated = "val_loss" in getattr(pl_module, "metrics", {})  # in this epoch
        self.filename = "{epoch:02d}-{val_loss:.4f}" if validated else "{epoch:02d}"
        self.monitor = "val_acc" if "val_acc" in trainer.callback_metrics else None
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends |= 0 < trainer.max_steps <= trainer.global_step
        if self._wanted or ends or (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._remove_step_files(trainer, keep=0)
            self._wanted, self._saved_at_s = False, time.monotonic()
        self._end_if_signalled(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, also where the folder has another path than when the checkpoint was saved."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number

    def _is_due(self, step: int) -> bool:
        minutes = (time.monotonic() - self._saved_at_s) / 60
        return (
            self._signal is not None
            or (self.every_n_steps is not None and step % self.every_n_steps == 0)
            or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )

    def _save_step(self, trainer: Trainer) -> None:
        assert self.dirpath is not None
        name = f"epoch={trainer.current_epoch:02d}-step={trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(Path(self.dirpath) / name)
        self._remove_step_files(trainer, keep=2)
        self._wanted, self._saved_at_s = False, time.monotonic()
        self._end_if_signalled(trainer)

    def _remove_step_files(self, trainer: Trainer, *, keep: int) -> None:
        assert self.dirpath is not None
        if trainer.is_global_zero:
            files = sorted(Path(self.dirpath).glob(STEP_FILES), key=lambda path: path.stem.split("=")[-1])
            for path in files[: len(files) - keep]:
                path.unlink()

    def _end_if_signalled(self, trainer: Trainer) -> None:
        if self._signal is not None:
            name = signal.Signals(self._signal).name
            trainer.lightning_module.print(
                f"{name}: saved after step {trainer.global_step}; fit --ckpt_path last goes on"
            )
            raise SystemExit(128 + self._signal)


def replace_file(path: Path, data: bytes) -> None:
    """Give a file new content, whole or not at all."""
    with _beside(path, data) as publish:
        publish()


def mend(folder: Path) -> None:
    """Bring `last.ckpt` and `best.ckpt` up to date, after a kill between a checkpoint and the copying of it.

    Raises:
        StorageError: If the disk is full or the folder cannot be written; nothing that was there is lost.
    """
    entries = _still_there(folder)
    newest = sorted(entries, key=lambda entry: -entry.global_step)
    for name, ranked in ((runs.LAST, newest), (runs.BEST, runs.by_rank(entries))):
        for entry in ranked[:1]:
            own = folder / entry.file
            if not runs.matches(folder / name, entry.sha256) and runs.matches(own, entry.sha256):
                try:
                    replace_file(folder / name, own.read_bytes())
                except OSError as error:
                    raise StorageError(f"cannot save {folder / name}: {error.strerror or error}") from error


def _still_there(folder: Path, *, but: str | None = None) -> list[runs.Entry]:
    """Return the manifest's entries that vouch for a file; `best.ckpt` or `last.ckpt` may be the only copy left."""
    copies = [runs.sha256(path) for path in (folder / runs.BEST, folder / runs.LAST) if path.exists()]
    return [
        entry
        for entry in runs.read_manifest(folder)
        if entry.file != but and (entry.sha256 in copies or (folder / entry.file).exists())
    ]


@contextlib.contextmanager
def _beside(path: Path, data: bytes) -> Iterator[Callable[[], None]]:
    """Write data to a temporary file in the folder of `path`, verified; the function yielded gives it its name."""
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
