"""RunCheckpoint: when a training run is saved: after epochs, within them on request, and before a signal ends it."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from mnist_lightning.errors import ConfigError, require_at_least
from mnist_lightning.runs.manifest import BEST, read_manifest
from mnist_lightning.training.callbacks.exact_resume import is_within_epoch
from mnist_lightning.training.checkpoint_io import remove_older
from mnist_lightning.training.disk_space import warn_of_full_disk
from mnist_lightning.training.lightning_patches import validation_is_due
from mnist_lightning.training.monitor import BEST_BY, Mode, logged_or_default, mode_of
from mnist_lightning.training.save_requests import SaveRequests


class RunCheckpoint(ModelCheckpoint):
    """Save at the end of each epoch, within epochs on request, and before a signal ends the run.

    After SIGINT, SIGTERM or SIGHUP the step is finished, the run saved, and the process exits; a second signal ends it
    immediately. In distributed training all ranks save and exit after the same step, whichever received the signal.

    Args:
        every_n_epochs: Epochs between checkpoints at the end of an epoch, at least 1.
        every_n_steps: Optimizer steps between additional checkpoints within an epoch, at least 1; null saves none.
        every_n_minutes: Minutes between additional checkpoints within an epoch, above 0; null saves none.
        monitor: Metric by which a checkpoint is the best: any that is logged; `val_acc` gives way to `val_loss` if the
            model does not log it.
        mode: `min` if a lower value is better, `max` if a higher one is; null follows the metric's name.
        keep: Which checkpoints stay, besides the best and the last: `all`, the newest of this number, at least 1, or
            with `best_last` no other.
    """

    def __init__(
        self,
        every_n_epochs: int = 1,
        every_n_steps: int | None = None,
        every_n_minutes: float | None = None,
        monitor: str = BEST_BY,
        mode: Mode | None = None,
        keep: Literal["all", "best_last"] | int = "all",
    ) -> None:
        require_at_least(1, "checkpoint.every_n_epochs", every_n_epochs)
        require_at_least(1, "checkpoint.every_n_steps", 1 if every_n_steps is None else every_n_steps)
        if every_n_minutes is not None and not every_n_minutes > 0:
            raise ConfigError(f"checkpoint.every_n_minutes must be above 0, got {every_n_minutes}")
        require_at_least(1, "checkpoint.keep", keep if isinstance(keep, int) else 1)
        mode = mode_of(monitor, mode, "checkpoint.mode")
        super().__init__(
            monitor=monitor, mode=mode, save_top_k=-1, save_on_train_epoch_end=True, enable_version_counter=False
        )
        self._monitored = (monitor, mode)
        self._scored_by: tuple[str, str] | None = None  # what the scores of the saved epochs are
        self._kept = keep if isinstance(keep, int) else {"all": math.inf, "best_last": 0}[keep]
        self._epochs_between = every_n_epochs
        self._requests = SaveRequests(every_n_steps, every_n_minutes)
        self._last_step = 0
        self._validated_step = -1

    @property
    def state_key(self) -> str:
        """Return a key that does not depend on the options: one callback saves the checkpoints of a run."""
        return type(self).__qualname__

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the disk has room, and handle signals from now on."""
        super().on_train_start(trainer, pl_module)
        folder = Path(str(self.dirpath))
        if trainer.is_global_zero:
            remove_older(folder, step_files=2, keep=self._kept)  # a kill may have come before it
        warn_of_full_disk(trainer, pl_module, folder, keep=self._kept, every=self._epochs_between)
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
        metrics = trainer.callback_metrics
        validated = self._validated_step == trainer.global_step and "val_loss" in metrics
        self.filename = "{epoch:02d}-{val_loss:.4f}" if validated else "{epoch:02d}"
        self._monitored = logged_or_default(*self._monitored, trainer)
        self.monitor, self.mode = self._monitored if self._monitored[0] in metrics else (None, self.mode)
        if self._scored_by not in (None, self._monitored):  # a resumed run monitors another metric
            self.best_k_models = scores_of(Path(str(self.dirpath)), self.best_k_models, self._monitored[0])
        self._scored_by = self._monitored
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        ends |= 0 < trainer.max_steps <= trainer.global_step
        self._requests.update(trainer, at_epoch_end=True)
        if self._requests.is_pending or ends or (trainer.current_epoch + 1) % self._epochs_between == 0:
            super().on_train_epoch_end(trainer, pl_module)
            if self._kept < math.inf and self.monitor:
                self.best_model_path = str(Path(str(self.dirpath)) / BEST)
            self._requests.update(trainer, at_epoch_end=True)  # a signal may have arrived while it was saved
            self._after_save(trainer, step_files=0)

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the monitor, which each epoch sets anew, and with what the scores are."""
        state = super().state_dict()
        del state["monitor"]
        return state | {"scored_by": self._scored_by}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, even if the folder had another path when the checkpoint was saved."""
        super().load_state_dict(state_dict | {"dirpath": self.dirpath})
        scored_by = state_dict.get("scored_by")  # runs of older versions have none
        self._scored_by = None if scored_by is None else (scored_by[0], scored_by[1])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the metrics of the weights that are saved, and which of them is monitored."""
        validated, ended = self._validated_step == trainer.global_step, not is_within_epoch(checkpoint)
        checkpoint["metrics"] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if (validated if name.startswith("val") else ended)
        }
        checkpoint["monitored"] = list(self._monitored)

    def _save_step(self, trainer: Trainer) -> None:
        name = f"epoch={trainer.current_epoch:02d}-step={trainer.global_step:07d}.ckpt"
        trainer.save_checkpoint(Path(str(self.dirpath)) / name)
        self._after_save(trainer, step_files=2)

    def _after_save(self, trainer: Trainer, *, step_files: int) -> None:
        """Remove older checkpoints, and end the run if a signal asked for it."""
        if trainer.is_global_zero:
            remove_older(Path(str(self.dirpath)), step_files=step_files, keep=self._kept)
        self._requests.saved(trainer)


def scores_of(folder: Path, files: Iterable[str], metric: str) -> dict[str, Tensor]:
    """Return a metric of each checkpoint file in a run's folder that has it, as the manifest says."""
    metrics = {entry.file: entry.metrics for entry in read_manifest(folder)}
    named = ((file, metrics.get(Path(file).name, {})) for file in files)
    return {file: torch.tensor(values[metric]) for file, values in named if metric in values}
