"""See that a checkpoint's training state fits the training that is to go on from it, before anything of it is used."""

import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, channels_last
from torch.optim import Optimizer

from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.runs import verification


def is_within_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was saved before its epoch's end, whose scores are then not in it."""
    metrics = checkpoint.get("metrics")
    return not (isinstance(metrics, dict) and "train_loss" in metrics)


class ResumeGuard(Callback):
    """Refuse a state that is not of this training: Lightning and torch believe what it says.

    Args:
        path: The checkpoint, named in the error.
        checkpoint: Its content.
    """

    def __init__(self, path: Path, checkpoint: Mapping[str, Any]) -> None:
        self.path = path
        self.checkpoint = checkpoint
        self.has_stepped = False  # from here on, a fault is not the checkpoint's

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the states of loops and callbacks with those that they have now."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # made by the Trainer's constructor
        saved = self.checkpoint["callbacks"]
        states = {callback.state_key: callback.state_dict() for callback in callbacks if callback.state_key in saved}
        form = {"loops": {"fit_loop": trainer.fit_loop.state_dict()}, "callbacks": states}
        verification.check_resumable(self.path, self.checkpoint, verification.form_of(form))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the optimizer's state, and at what the module adds to a checkpoint."""
        added: dict[str, Any] = {}
        pl_module.on_save_checkpoint(added)
        form = verification.form_of(added)
        form["classifier"]["train_tally"] = dict.fromkeys(form["classifier"]["train_tally"], Tensor)
        verification.check_resumable(self.path, self.checkpoint, form)
        self._check_processes(trainer.world_size, pl_module)
        (optimizer,), states = trainer.optimizers, self.checkpoint["optimizer_states"]
        if len(states) != 1 or not fits_optimizer(states[0], optimizer):
            raise CheckpointError(
                f"{self.path} can be scored but not resumed: its optimizer state is of another network"
            )

    def _check_processes(self, now: int, pl_module: LightningModule) -> None:
        shapes = {tuple(share.shape) for share in self.checkpoint["classifier"]["train_tally"].values()}
        shape = shapes.pop()
        if shapes or len(shape) > 1:
            raise CheckpointError(f"{self.path} can be scored but not resumed: what it has counted is no such tensor")
        then = math.prod(shape)
        if then == now:
            return
        if is_within_epoch(self.checkpoint):
            raise ConfigError(
                f"{self.path} was saved within an epoch, on {then} processes, and cannot go on with {now}, for their "
                "number decides what comes next; go on from an epoch's own checkpoint"
            )
        pl_module.print(f"processes: {then} when saved, {now} now: the bits will differ from an unbroken run's")

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        """Note that a step was taken."""
        self.has_stepped = True


def fits_optimizer(state: object, optimizer: Optimizer) -> bool:
    """Tell whether a state dict holds nothing but single numbers and tensors laid out like the parameters.

    torch checks none of this: its fused kernels would read and write past the end of a smaller tensor.
    """
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in STATE.items()):
        return False
    parameters: list[Tensor] = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    groups = state["param_groups"]
    if not all(isinstance(group, dict) and isinstance(group.get("params"), list) for group in groups):
        return False
    if list(chain.from_iterable(group["params"] for group in groups)) != list(range(len(parameters))):
        return False
    if not state["state"].keys() <= set(range(len(parameters))):
        return False
    return all(
        isinstance(values, dict) and all(_fits(value, parameters[index]) for value in values.values())
        for index, values in state["state"].items()
    )


STATE = {"state": dict, "param_groups": list}


def _fits(value: object, parameter: Tensor) -> bool:
    if not isinstance(value, Tensor):
        return False
    dense = value.is_contiguous() or value.is_contiguous(memory_format=channels_last)
    return dense and value.is_floating_point() and value.shape in ((), parameter.shape)
