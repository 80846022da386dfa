"""RunCheckpoint: when a training run is saved: after epochs, within them on request, and before a signal ends it."""

import contextlib
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_lightning.console import leave_closed_terminal
from mnist_lightning.errors import ConfigError
from mnist_lightning.training.callbacks.exact_resume import is_within_epoch
from mnist_lightning.training.distributed import greatest
from mnist_lightning.training.lightning_patches import validation_is_due

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STEP_FILES = "epoch=*-step=*.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Save at the end of each epoch, within epochs on request, and before a signal ends the run.

    After SIGINT, SIGTERM or SIGHUP the step is finished, the run saved, and the process exits; a second signal ends it
    immediately. In distributed training all ranks save and exit after the same step, whichever received the signal.

    Args:
        every_n_epochs: Epochs between checkpoints at the end of an epoch, at least 1.
        every_n_steps: Optimizer steps between additional checkpoints within an epoch, at least 1; null saves none.
        every_n_minutes: Minutes between additional checkpoints within an epoch, above 0; null saves none.
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
        self._signal = 0  # number of the signal that this process received
        self._end_signal = 0  # number of the signal that ends all ranks
        self._is_requested = False  # a checkpoint at the next step that a run can be resumed from
        self._last_step = 0
        self._validated_step = -1
        self._saved_at_s = 0.0

    @property
    def state_key(self) -> str:
        """Return a key that does not depend on the options: one callback saves the checkpoints of a run."""
        return type(self).__qualname__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals from now on."""
        super().on_train_start(trainer, pl_module)
        self._last_step, self._saved_at_s = trainer.global_step, time.monotonic()
        for name in SIGNALS:
            with contextlib.suppress(ValueError, AttributeError):  # not the main thread; no such signal here
                signal.signal(getattr(signal, name), self._on_signal)  # Lightning restores what was there before

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if requested, at a step from which a run can be resumed exactly."""
        if trainer.global_step == self._last_step:
            return  # gradients are still being accumulated, and no checkpoint holds them
        self._last_step = trainer.global_step
        self._agree(trainer)
        # Resumed from the last batch, Lightning would skip the end of the epoch.
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._is_requested and not is_last and not validation_is_due(trainer):
            self._save_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within the epoch if requested before it."""
        self._validated_step = trainer.global_step
        if (
            self._is_requested
            and trainer.state.fn == "fit"
            and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        ):
            self._save_step(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, the last one in any case; checkpoints from within the epoch are removed."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by the Trainer's constructor
            return
        validated = self._validated_step == trainer.global_step and "val_loss" in trainer.callback_metrics
        self.filename = "{epoch:02d}-{val_loss:.4f}" if validated else "{epoch:02d}"
        self.monitor = "val_acc" if "val_acc" in trainer.callback_metrics else None
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends |= 0 < trainer.max_steps <= trainer.global_step
        self._agree(trainer, between_epochs=True)
        if self._is_requested or ends or (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._remove_step_files(trainer, keep=0)
            self._is_requested, self._saved_at_s = False, time.monotonic()
            self._agree(trainer, between_epochs=True)  # a signal may have arrived while it was saved
            self._end_if_signalled(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the monitor, which each epoch sets anew."""
        state = super().state_dict()
        del state["monitor"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, even if the folder had another path when the checkpoint was saved."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metrics of the weights that are saved: of the epoch at its end, of a validation within it."""
        validated, ended = self._validated_step == trainer.global_step, not is_within_epoch(checkpoint)
        checkpoint["metrics"] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if (validated if name.startswith("val") else ended)
        }

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number
        leave_closed_terminal()

    def _agree(self, trainer: Trainer, *, between_epochs: bool = False) -> None:
        """Let all ranks do after the same step what a signal or the clock of one of them requests."""
        due = not between_epochs and self._is_due(trainer.global_step)
        self._end_signal, is_due = greatest(trainer, [self._signal, int(due)])
        self._is_requested |= bool(is_due or self._end_signal)

    def _is_due(self, step: int) -> bool:
        minutes = (time.monotonic() - self._saved_at_s) / 60
        return (self.every_n_steps is not None and step % self.every_n_steps == 0) or (
            self.every_n_minutes is not None and minutes >= self.every_n_minutes
        )

    def _save_step(self, trainer: Trainer) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by the Trainer's constructor
            return
        assert self.dirpath is not None
        name = f"epoch={trainer.current_epoch:02d}-step={trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(Path(self.dirpath) / name)
        self._remove_step_files(trainer, keep=2)
        self._is_requested, self._saved_at_s = False, time.monotonic()
        self._end_if_signalled(trainer)

    def _remove_step_files(self, trainer: Trainer, *, keep: int) -> None:
        assert self.dirpath is not None
        if trainer.is_global_zero:
            files = sorted(Path(self.dirpath).glob(STEP_FILES), key=lambda path: path.stem.split("=")[-1])
            for path in files[: len(files) - keep]:
                path.unlink()

    def _end_if_signalled(self, trainer: Trainer) -> None:
        if self._end_signal:
            name = signal.Signals(self._end_signal).name
            trainer.lightning_module.print(
                f"{name}: saved after step {trainer.global_step}; fit --ckpt_path last resumes"
            )
            raise SystemExit(128 + self._end_signal)
