"""DivergenceGuard: stops a training whose loss or gradients are no longer finite, before the weights are."""

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mnist_lightning.errors import DivergenceError

# Reading a number from an accelerator waits for it; in between, the check at each checkpoint is the safety net.
STEPS_BETWEEN_CHECKS = 50


class DivergenceGuard(Callback):
    """Raise before the optimizer step if the loss or a gradient is not finite.

    On a CPU every step is checked, on an accelerator every fiftieth; weights that are not finite are never saved. In
    distributed training all ranks raise, whichever has the loss.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Check the loss, summed over all ranks: none may continue and wait for the gradients of another."""
        if not _is_due(trainer, pl_module):
            return
        total = trainer.strategy.reduce(loss.detach().clone(), reduce_op="sum")
        assert isinstance(total, Tensor)
        if not math.isfinite(value := total.item()):
            raise DivergenceError(f"{_position(trainer)}: the loss is {value}; {ADVICE}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Check the gradients; with float16, the gradient scaler skips steps with infinite ones."""
        if trainer.precision == "16-mixed" or not _is_due(trainer, pl_module):
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not math.isfinite(value := torch.nn.utils.get_total_norm(gradients).item()):
            raise DivergenceError(f"{_position(trainer)}: the norm of the gradient is {value}; {ADVICE}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the validation loss: the last step of an epoch can spoil it, and no further step would show that."""
        val_loss = trainer.callback_metrics.get("val_loss")
        if val_loss is not None and not math.isfinite(value := val_loss.item()):
            raise DivergenceError(
                f"{_position(trainer)}: the validation loss is {value}; the saved checkpoints are finite"
            )


ADVICE = "training stops before this step; the saved checkpoints are finite. Try a lower --model.lr"


def _is_due(trainer: Trainer, pl_module: LightningModule) -> bool:
    return pl_module.device.type == "cpu" or trainer.global_step % STEPS_BETWEEN_CHECKS == 0


def _position(trainer: Trainer) -> str:
    batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
    return f"epoch {trainer.current_epoch}, batch {batch}, step {trainer.global_step}"
