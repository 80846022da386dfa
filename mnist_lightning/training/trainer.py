"""AutoTrainer: Lightning's Trainer with a precision that suits the device, and why its training ended."""

import os
import sys
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.accelerators import Accelerator
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import Strategy

from mnist_lightning.errors import ConfigError
from mnist_lightning.training.environment import native_precision, uses_kernels
from mnist_lightning.training.lightning_patches import patch_trainer
from mnist_lightning.training.trainer_options import trainer_arguments

Precision = Literal[
    "auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "16", "bf16", "64",
    "transformer-engine", "transformer-engine-float16"
]  # fmt: skip
Stopper = Callback | LightningModule


class AutoTrainer(Trainer):
    """Lightning's Trainer, which can also choose the precision.

    Args:
        precision: `auto` trains in bfloat16 with float32 weights where the device supports bfloat16 natively, and in
            float32 elsewhere and where SimpleCNN has faster kernels for it, on a CPU; the other names are Lightning's.
        limit_train_batches: Training batches of an epoch: a number, or a fraction such as 0.5.
        limit_val_batches: Validation batches, likewise.
        limit_test_batches: Test batches, likewise.

    Attributes:
        stopped_by: The callback or the module that set `should_stop`, if any.
    """

    stopped_by: Stopper | None = None
    _is_stopping = False

    def __init__(
        self,
        *,
        precision: Precision | None = "auto",
        # Classes before text: in Lightning's own order, the path of a class is taken for a name.
        accelerator: Accelerator | str = "auto",
        strategy: Strategy | str = "auto",
        # int first: in Lightning's own order, 1 is read as 1.0, which means all batches.
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        on_gpu = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        if not on_gpu:
            # Lightning sets this at import; it makes Adam's check for a GPU at every step take 0.25 ms.
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        kwargs.update(accelerator=accelerator, strategy=strategy, precision=precision)
        kwargs.update(limit_train_batches=limit_train_batches, limit_val_batches=limit_val_batches)
        kwargs.update(limit_test_batches=limit_test_batches)
        kwargs.update(trainer_arguments(kwargs))
        self._precision_awaits_network = kwargs["precision"] == "auto" and not on_gpu
        if kwargs["precision"] == "auto":
            kwargs["precision"] = native_precision(on_gpu=True) if on_gpu else "32-true"
        try:
            super().__init__(**kwargs)
        except (ValueError, TypeError, RuntimeError, ImportError, MisconfigurationException) as error:
            raise ConfigError(f"the Trainer cannot be created with these options: {error}") from error
        patch_trainer(self)

    def fit(self, model: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Train a module, as Lightning's Trainer does, in the precision that is fastest for it if that is `auto`."""
        if self._precision_awaits_network and not uses_kernels(model) and native_precision(on_gpu=False) != "32-true":
            self.strategy.precision_plugin = MixedPrecision("bf16-mixed", self.strategy.root_device.type)
        super().fit(model, *args, **kwargs)

    @property
    def should_stop(self) -> bool:
        """Whether training ends after this step or epoch; callbacks set it."""
        return self._is_stopping

    @should_stop.setter
    def should_stop(self, value: bool) -> None:
        if value != self._is_stopping:
            self._is_stopping, self.stopped_by = value, calling_hook() if value else None


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
    plural = "s" * (trainer.current_epoch > 1)
    return f"ended after {trainer.current_epoch} epoch{plural} (trainer.max_epochs)"


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
