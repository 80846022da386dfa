"""Stop a training that has diverged before it spoils the weights."""

import math

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from mnist_lightning.errors import DivergenceError

# Reading a number off an accelerator waits for it; there, the checkpoints' own check is the net below.
STEPS_BETWEEN_LOOKS = 50


class DivergenceGuard(Callback):
    """Raise before the step that a loss or gradient that is not finite would spoil.

    On a processor it looks at every step; on an accelerator at every fiftieth, and no checkpoint of weights that are
    not finite is ever saved. Of several processes all raise, whichever has the loss.
    """

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Look at the loss, summed over the processes, for none may go on to wait for the gradient of another."""
        if not _looks_now(trainer, pl_module):
            return
        together = trainer.strategy.reduce(loss.detach().clone(), reduce_op="sum")
        assert isinstance(together, Tensor)
        if not math.isfinite(value := together.item()):
            raise DivergenceError(f"{_place(trainer)}: the loss is {value}; {ADVICE}")

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Look at the gradients; float16 has a scaler that skips steps with infinite ones by itself."""
        if trainer.precision == "16-mixed" or not _looks_now(trainer, pl_module):
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not math.isfinite(value := torch.nn.utils.get_total_norm(gradients).item()):
            raise DivergenceError(f"{_place(trainer)}: the norm of the gradient is {value}; {ADVICE}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the validation loss: an epoch's last step can spoil it, and no further step would tell."""
        val_loss = trainer.callback_metrics.get("val_loss")
        if val_loss is not None and not math.isfinite(value := val_loss.item()):
            raise DivergenceError(f"{_place(trainer)}: the validation loss is {value}; what was saved is finite")


ADVICE = "training stops before this step; what was saved is finite. Try a lower --model.lr"


def _looks_now(trainer: Trainer, pl_module: LightningModule) -> bool:
    return pl_module.device.type == "cpu" or trainer.global_step % STEPS_BETWEEN_LOOKS == 0


def _place(trainer: Trainer) -> str:
    batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready - 1
    return f"epoch {trainer.current_epoch}, batch {batch}, step {trainer.global_step}"
