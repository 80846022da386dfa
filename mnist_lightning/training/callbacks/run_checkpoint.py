"""RunCheckpoint: when a training run is saved: after epochs, within them on request, and before a signal ends it."""

import signal
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from mnist_lightning.errors import ConfigError, require_at_least
from mnist_lightning.training.callbacks.exact_resume import is_within_epoch
from mnist_lightning.training.lightning_patches import validation_is_due
from mnist_lightning.training.save_requests import SaveRequests

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
        require_at_least(1, "checkpoint.every_n_epochs", every_n_epochs)
        require_at_least(1, "checkpoint.every_n_steps", 1 if every_n_steps is None else every_n_steps)
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise ConfigError(f"checkpoint.every_n_minutes must be above 0, got {every_n_minutes}")
        super().__init__(
            monitor="val_acc", mode="max", save_top_k=-1, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self._epochs_between = every_n_epochs
        self._requests = SaveRequests(every_n_steps, every_n_minutes)
        self._last_step = 0
        self._validated_step = -1

    @property
    def state_key(self) -> str:
        """Return a key that does not depend on the options: one callback saves the checkpoints of a run."""
        return type(self).__qualname__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Handle signals from now on."""
        super().on_train_start(trainer, pl_module)
        self._last_step = trainer.global_step
        self._requests.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if requested, at a step from which a run can be resumed exactly."""
        if trainer.global_step == self._last_step:
            return  # gradients are still being accumulated, and no checkpoint holds them
        self._last_step = trainer.global_step
        self._requests.update(trainer)
        # Resumed from the last batch, Lightning would skip the end of the epoch.
        is_last = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if self._requests.is_pending and not is_last and not validation_is_due(trainer):
            self._save_step(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save after a validation within the epoch, whose weights may be the best."""
        self._validated_step = trainer.global_step
        within_epoch = trainer.state.fn == "fit" and not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if within_epoch:
            self._save_step(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the epoch, the last one in any case; checkpoints from within the epoch are removed."""
        validated = self._validated_step == trainer.global_step and "val_loss" in trainer.callback_metrics
        self.filename = "{epoch:02d}-{val_loss:.4f}" if validated else "{epoch:02d}"
        self.monitor = "val_acc" if "val_acc" in trainer.callback_metrics else None
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends |= 0 < trainer.max_steps <= trainer.global_step
        self._requests.update(trainer, at_epoch_end=True)
        if self._requests.is_pending or ends or (trainer.current_epoch + 1) % self._epochs_between == 0:
            super().on_train_epoch_end(trainer, pl_module)
            self._requests.update(trainer, at_epoch_end=True)  # a signal may have arrived while it was saved
            self._after_save(trainer, step_files=0)

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

    def _save_step(self, trainer: Trainer) -> None:
        name = f"epoch={trainer.current_epoch:02d}-step={trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(Path(str(self.dirpath)) / name)
        self._after_save(trainer, step_files=2)

    def _after_save(self, trainer: Trainer, *, step_files: int) -> None:
        """Remove older checkpoints from within epochs, and end the run if a signal asked for it."""
        if trainer.is_global_zero:
            files = sorted(Path(str(self.dirpath)).glob(STEP_FILES), key=lambda path: path.stem.split("=")[-1])
            for path in files[: len(files) - step_files]:
                path.unlink()
        self._requests.saved()
        if number := self._requests.end_signal:
            trainer.lightning_module.print(
                f"{signal.Signals(number).name}: saved after step {trainer.global_step}; fit --ckpt_path last resumes"
            )
            raise SystemExit(128 + number)
