"""RunEarlyStopping: Lightning's own, with the defaults of this project and a switch."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks

from mnist_lightning.errors import ConfigError, require_at_least
from mnist_lightning.training.monitor import Mode, mode_of, require_logged

DEFAULT = "val_loss"


class RunEarlyStopping(lightning_callbacks.EarlyStopping):
    """Stop when the monitored metric stops improving; `val_loss` is not monitored if it is never logged.

    Args:
        patience: Validations without improvement before training stops, at least 1; there is one an epoch unless
            `trainer.val_check_interval` or `trainer.check_val_every_n_epoch` is set.
        min_delta: Smallest change that counts as an improvement, at least 0.
        monitor: Metric to monitor: any that is logged.
        mode: `min` if a lower value is better, `max` if a higher one is; null follows the metric's name.
        enabled: Whether to stop early at all.
    """

    def __init__(
        self,
        patience: int = 8,
        min_delta: float = 0.0,
        monitor: str = DEFAULT,
        mode: Mode | None = None,
        enabled: bool = True,
    ) -> None:
        require_at_least(1, "early_stopping.patience", patience)
        if not min_delta >= 0:
            raise ConfigError(f"early_stopping.min_delta must be at least 0, got {min_delta}")
        mode = mode_of(monitor, mode, "early_stopping.mode")
        super().__init__(monitor=monitor, min_delta=min_delta, patience=patience, mode=mode)
        self.enabled = enabled

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best value and the count, but keep the patience that the options set."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric if validation runs once an epoch."""
        if not self.enabled:
            return
        if self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
        elif self.monitor != DEFAULT:
            require_logged(self.monitor, trainer, "early_stopping.monitor")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the metric if validation runs more than once an epoch."""
        if self.enabled and self.monitor in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)
