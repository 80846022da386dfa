"""When a training run is saved: after epochs, on request within them, and before a signal ends it."""

import contextlib
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lightning.console import leave_closed_terminal
from mnist_lightning.errors import ConfigError
from mnist_lightning.training.distributed import greatest

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
STEP_FILES = "epoch=*-step=*.ckpt"


class RunCheckpoint(ModelCheckpoint):
    """Save at every epoch's end, in between on request, and before a signal ends the run.

    SIGINT, SIGTERM and SIGHUP let the step finish, save, and exit; a second one ends the process at once. Of several
    processes all save and exit after the same step, whichever got the signal. A run resumed from any of these
    checkpoints ends with the same bits as one that was never interrupted. An epoch is saved after the schedule and the
    early stopper have looked, so that their states in the file are final.

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
        self._signal = 0  # the number of the one that asked this process to end
        self._end_signal = 0  # and of the one that all processes end for
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
        self._agree(trainer)
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
        if _is_trial(trainer):
            return
        validated = "val_loss" in getattr(pl_module, "metrics", {})  # in this epoch
        self.filename = "{epoch:02d}-{val_loss:.4f}" if validated else "{epoch:02d}"
        self.monitor = "val_acc" if "val_acc" in trainer.callback_metrics else None
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends |= 0 < trainer.max_steps <= trainer.global_step
        self._agree(trainer, between_epochs=True)
        if self._wanted or ends or (trainer.current_epoch + 1) % self._every_n_epochs == 0:
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
            self._remove_step_files(trainer, keep=0)
            self._wanted, self._saved_at_s = False, time.monotonic()
            self._agree(trainer, between_epochs=True)  # a signal may have come while it was saved
            self._end_if_signalled(trainer)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the monitor, which every epoch settles anew."""
        state = super().state_dict()
        del state["monitor"]
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, also where the folder has another path than when the checkpoint was saved.

        Raises:
            TypeError: If a score is no tensor of a single number.
        """
        best = state_dict["best_model_score"]
        for score in (*state_dict["best_k_models"].values(), *([] if best is None else [best])):
            if not isinstance(score, Tensor) or score.numel() != 1:
                raise TypeError("a score that it holds is not a single number")
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._signal = number
        leave_closed_terminal()

    def _agree(self, trainer: Trainer, *, between_epochs: bool = False) -> None:
        """Let what one process was asked for, or finds due by its clock, be done by all after the same step."""
        due = not between_epochs and self._is_due(trainer.global_step)
        self._end_signal, wanted = greatest(trainer, [self._signal, int(due)])
        self._wanted |= bool(wanted or self._end_signal)

    def _is_due(self, step: int) -> bool:
        minutes = (time.monotonic() - self._saved_at_s) / 60
        return (self.every_n_steps is not None and step % self.every_n_steps == 0) or (
            self.every_n_minutes is not None and minutes >= self.every_n_minutes
        )

    def _save_step(self, trainer: Trainer) -> None:
        if _is_trial(trainer):
            return
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
        if self._end_signal:
            name = signal.Signals(self._end_signal).name
            trainer.lightning_module.print(
                f"{name}: saved after step {trainer.global_step}; fit --ckpt_path last goes on"
            )
            raise SystemExit(128 + self._end_signal)


def _is_trial(trainer: Trainer) -> bool:
    """Tell whether this is a run of a few batches that is to leave nothing behind."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]  # made by the Trainer's constructor
