"""SaveRequests: when signals and options ask for a checkpoint within an epoch; all ranks agree on it."""

import contextlib
import os
import shlex
import signal
import time
from pathlib import Path
from types import FrameType

from lightning.pytorch import Trainer

from mnist_lightning.console import leave_closed_terminal
from mnist_lightning.training.distributed import greatest

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class SaveRequests:
    """Collect requests to save, from signals and, as the options of `RunCheckpoint` say, from steps and the clock."""

    def __init__(self, every_n_steps: int | None, every_n_minutes: float | None) -> None:
        self.every_n_steps, self.every_n_minutes = every_n_steps, every_n_minutes
        self.is_pending = False  # whether to save at the next step from which a run can be resumed
        self.end_signal = 0  # for which all ranks end once it is saved; 0 if there is none
        self._received = 0  # the signal that this process received
        self._saved_at_s = 0.0

    def start(self) -> None:
        """Handle signals and run the clock from now on; Lightning restores the handlers when training ends."""
        self._saved_at_s = time.monotonic()
        for name in SIGNALS:
            with contextlib.suppress(ValueError, AttributeError):  # not the main thread; no such signal here
                signal.signal(getattr(signal, name), self._on_signal)

    def update(self, trainer: Trainer, *, at_epoch_end: bool = False) -> None:
        """Let all ranks know what a signal or the clock of one of them requests; all call this after the same step."""
        minutes = (time.monotonic() - self._saved_at_s) / 60
        is_due = not at_epoch_end and (
            (self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0)
            or (self.every_n_minutes is not None and minutes >= self.every_n_minutes)
        )
        self.end_signal, any_is_due = greatest(trainer, [self._received, int(is_due)])
        self.is_pending |= bool(any_is_due or self.end_signal)

    def saved(self, trainer: Trainer) -> None:
        """Start over: a checkpoint was saved; end the run if a signal asked for it."""
        self.is_pending, self._saved_at_s = False, time.monotonic()
        if self.end_signal:
            name = signal.Signals(self.end_signal).name
            root = Path(trainer.default_root_dir)
            place = "" if root.samefile(".") else f" --trainer.default_root_dir {shlex.quote(str(root))}"
            resume = f"saved after step {trainer.global_step}; fit --ckpt_path last{place} resumes"
            trainer.lightning_module.print(f"{name}: {resume}")
            raise SystemExit(128 + self.end_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._received = number
        leave_closed_terminal()
