"""Lightning's Trainer with a precision that suits the device."""

import os
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from mnist_lightning.training.distributed import Launcher
from mnist_lightning.training.environment import native_precision

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]


class AutoTrainer(Trainer):
    """Lightning's Trainer, which can choose the precision by itself.

    Args:
        precision: `auto` computes in bfloat16 with float32 weights where the device has bfloat16 natively, and in
            float32 elsewhere.
        limit_train_batches: Batches of an epoch to train on; a fraction such as 0.5 means that share of them.
        limit_val_batches: Batches to validate on, likewise.
        limit_test_batches: Batches to test on, likewise.
    """

    def __init__(
        self,
        *,
        precision: Precision = "auto",
        # Whole numbers first: Lightning's own order reads 1 as 1.0, which means all batches.
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        **kwargs: Any,
    ) -> None:
        on_gpu = kwargs.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        if not on_gpu:
            # Lightning sets it at import; Adam asks for a GPU at every step, and this way of asking takes 0.25 ms.
            os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
        super().__init__(
            precision=native_precision(on_gpu=on_gpu) if precision == "auto" else precision,
            limit_train_batches=limit_train_batches,
            limit_val_batches=limit_val_batches,
            limit_test_batches=limit_test_batches,
            **kwargs,
        )
        started = self.strategy.launcher
        if isinstance(started, _SubprocessScriptLauncher):
            self.strategy._launcher = Launcher(started.cluster_environment, started.num_processes, started.num_nodes)
        # Lightning 2.6 broadcasts within the handler, and waits for ever where one process alone got the signal; ours
        # exits or, while it trains, agrees with the others first.
        self._signal_connector._sigterm_notifier_fn = lambda number, frame: None  # type: ignore[method-assign,assignment]
        # With max_steps, Lightning 2.6 resumes from an epoch's end by ending that epoch again, over no batches.
        self.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
