"""ScheduleChange: stretches a schedule over all steps when a resumed training has another length, and reports that."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR


class ScheduleChange(Callback):
    """Let schedules over all steps end with the training, and print how that changes the learning rate.

    `linear`, `cosine` and torch's `OneCycleLR` are functions of the fraction of all steps. If a run is resumed with a
    larger `max_epochs`, that fraction is smaller than it was, and the learning rate rises again.
    """

    def __init__(self) -> None:
        self._new_states: list[dict[str, Any]] = []  # of the schedules, before Lightning restores them
        self._lr: float | None = None  # at the start, until a line reports how it changes

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the state of schedules that know the number of steps."""
        schedulers = [config.scheduler for config in trainer.lr_scheduler_configs]
        self._new_states = [each.state_dict() if isinstance(each, OneCycleLR) else {} for each in schedulers]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give a schedule its new number of steps."""
        self._lr = None
        for config, new in zip(trainer.lr_scheduler_configs, self._new_states, strict=True):
            scheduler: Any = config.scheduler
            lr = float(scheduler.optimizer.param_groups[0]["lr"])
            if isinstance(scheduler, OneCycleLR) and scheduler.total_steps != new["total_steps"]:
                counts = {name: value for name, value in scheduler.state_dict().items() if type(value) is int}
                scheduler.load_state_dict(new | counts | {"total_steps": new["total_steps"]})
                self._lr = lr
            if isinstance(scheduler, LambdaLR):
                peak = float(scheduler.base_lrs[0])
                now = peak * scheduler.lr_lambdas[0](scheduler.last_epoch)
                self._lr = lr if abs(now - lr) > 1e-6 * peak else self._lr

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the change once it is in effect."""
        if self._lr is None or (lr := float(trainer.optimizers[0].param_groups[0]["lr"])) == self._lr:
            return
        verb = "rises" if lr > self._lr else "falls"
        pl_module.print(
            f"learning rate {verb} from {self._lr:g} to {lr:g}: its schedule covers the whole training, "
            f"which now ends after {trainer.estimated_stepping_batches:,} steps"
        )
        self._lr = None
