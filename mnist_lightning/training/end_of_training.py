"""Why a training ended, in words: the callback that stopped it, or the limit that it reached."""

import sys
from datetime import timedelta

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

Stopper = Callback | LightningModule


def calling_hook() -> Stopper | None:
    """Return the callback or module whose code is running, going by the call stack; None if there is none."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]  # None above the outermost frame
        for name in ("self", "callback"):  # Lightning's loop over the callbacks names each `callback`
            if isinstance(owner := frame.f_locals.get(name), Callback | LightningModule):
                return owner
    return None


def reason_of_end(trainer: Trainer) -> str:
    """Return why a training that was not interrupted ended."""
    if trainer.should_stop:
        return _reason_to_stop(trainer)
    if 0 < trainer.max_steps <= trainer.global_step:
        return f"ended after {trainer.max_steps:,} steps (trainer.max_steps)"
    return f"ended after {trainer.current_epoch} epochs (trainer.max_epochs)"


def _reason_to_stop(trainer: Trainer) -> str:
    stopper: Stopper | None = getattr(trainer, "stopped_by", None)
    if isinstance(stopper, EarlyStopping):
        if stopper.stopping_reason == EarlyStoppingReason.PATIENCE_EXHAUSTED:
            each_epoch = (
                trainer.check_val_every_n_epoch == 1 and trainer.val_check_batch == trainer.num_training_batches
            )
            unit = ("epoch" if each_epoch else "validation") + "s" * (stopper.wait_count > 1)
            return f"stopped early: {stopper.monitor} did not improve for {stopper.wait_count} {unit}"
        reason = (stopper.stopping_reason_message or "").partition(" Signaling")[0].rstrip(".")
        return f"stopped early by {stopper.monitor}" + (f": {reason}" if reason else "")
    if isinstance(stopper, Timer):
        limit_s = stopper.time_elapsed() + (stopper.time_remaining() or 0)
        return f"stopped by {type(stopper).__name__}: time limit of {timedelta(seconds=round(limit_s, 1))}"
    return f"stopped by {type(stopper).__name__}" if stopper else "stopped: trainer.should_stop was set"
