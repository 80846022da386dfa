"""ExactResume: what Lightning's checkpoints leave out, so that a resumed run ends with the bits of an unbroken one."""

from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BaseFinetuning
from torch import Tensor, channels_last
from torch.optim import Adam, Optimizer
from torchmetrics import Metric

from mnist_lightning.data.samples import Batch
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.training import lightning_patches
from mnist_lightning.training.distributed import gathered, settle_gradient_buckets
from mnist_lightning.training.environment import environment
from mnist_lightning.training.logger import run_logger

KEY = "resume"  # of a checkpoint


def is_within_epoch(checkpoint: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was saved before the end of its epoch."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]
    return bool(progress["processed"] < progress["ready"])


class ExactResume(Callback):
    """Make a resumed run identical to one that was never interrupted, on the same machine and number of processes.

    Lightning restores weights, optimizers, schedules, callbacks and loops. This callback adds the rest: the random
    state of a step, a function of (seed, step, rank, micro-batch); the metrics of an unfinished epoch; the plateau step
    that Lightning does at the end of an epoch only after the checkpoint is saved; and the length of the event files,
    from which what an interrupted run wrote after its last checkpoint is removed. An epoch's metrics are logged before
    its checkpoint is saved. It prints what differs between the environment that saved the checkpoint and the present
    one.

    Args:
        seed: Seed of dropout and of any other random number drawn on the device in a training step, at least 0.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._checkpoint: dict[str, Any] = {}  # that training resumes from, until it starts
        self._plateau_options: list[dict[str, Any]] = []
        self._sums: dict[str, dict[str, Tensor]] = {}  # of the epoch that is resumed, until Lightning sums on

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Freeze what was frozen; keep the checkpoint until the optimizers and the loops are there."""
        self._checkpoint = checkpoint if KEY in checkpoint else {}
        if frozen := self._checkpoint.get(KEY, {}).get("frozen"):
            for name, parameter in pl_module.named_parameters():
                parameter.requires_grad = name not in frozen["parameters"]
            for name, module in pl_module.named_modules():
                if hasattr(module, "track_running_stats"):
                    module.track_running_stats = name not in frozen["statistics"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that the training state fits, before Lightning restores it.

        Raises:
            CheckpointError: If the optimizer states belong to other parameters.
            ConfigError: If the number of processes differs within an epoch.
        """
        self._plateau_options = [
            {name: getattr(config.scheduler, name) for name in ("factor", "patience") if config.reduce_on_plateau}
            for config in trainer.lr_scheduler_configs
        ]
        if not self._checkpoint:
            return
        for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Lightning's connector
            if isinstance(callback, BaseFinetuning):
                callback.on_fit_start(trainer, pl_module)  # adds its groups of parameters, once, wherever it stands
        states = self._checkpoint["optimizer_states"]
        if len(states) != len(trainer.optimizers) or not all(map(fits_optimizer, states, trainer.optimizers)):
            raise CheckpointError(
                f"{trainer.ckpt_path} can be scored but not resumed: its optimizer state is of another network"
            )
        then, now = self._checkpoint[KEY]["world_size"], trainer.world_size
        if then != now and is_within_epoch(self._checkpoint):
            raise ConfigError(
                f"{trainer.ckpt_path} was saved in mid-epoch on {then} processes and cannot be resumed on {now}: their "
                "number determines the remaining batches; resume from an end-of-epoch checkpoint"
            )
        if then != now:
            pl_module.print(f"processes: {then} when saved, {now} now: results will differ from an unbroken run")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore what `on_save_checkpoint` added; options that differ from the checkpoint's are obeyed."""
        if isinstance(pl_module.example_input_array, Tensor):
            settle_gradient_buckets(trainer, pl_module.example_input_array.to(pl_module.device))
        checkpoint, self._checkpoint = self._checkpoint, {}
        if not checkpoint:
            return
        lightning_patches.restore_loader_position(trainer)
        for config, options in zip(trainer.lr_scheduler_configs, self._plateau_options, strict=True):
            vars(config.scheduler).update(options)
        self._obey_learning_rate(trainer, pl_module, checkpoint.get("hyper_parameters", {}).get("lr"))
        restored = checkpoint[KEY]
        now = environment(pl_module.device, str(trainer.precision))
        for name, then in restored["environment"].items():
            if then != now[name]:
                pl_module.print(f"{name}: {then} when saved, {now[name]} now: results may differ from an unbroken run")
        if is_within_epoch(checkpoint):
            own = move_data_to_device(restored["metrics"][trainer.global_rank], pl_module.device)
            self._sums = own["sums"]
            for name, states in own["states"].items():
                metric = pl_module.get_submodule(name)
                for state, value in states.items():
                    setattr(metric, state, value)
        trainer.callback_metrics.update(
            {name: torch.tensor(value, dtype=torch.float64) for name, value in restored["callback_metrics"].items()}
        )
        self._catch_up(trainer, restored, within_epoch=is_within_epoch(checkpoint))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Make random numbers drawn on the device a function of (seed, step, rank, micro-batch)."""
        self._restore_sums(trainer)
        micro_batch = batch_idx % trainer.accumulate_grad_batches
        entropy = [self.seed, trainer.global_step, trainer.global_rank, *([micro_batch] if micro_batch else [])]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        # Not torch.manual_seed: without a GPU it records a stack trace, which takes more than a millisecond a step.
        on_gpu = pl_module.device.type == "cuda"
        (torch.cuda.manual_seed if on_gpu else torch.default_generator.manual_seed)(seed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let Lightning step plateau schedules at the end of an epoch that was resumed in the middle, too."""
        self._restore_sums(trainer)
        lightning_patches.finish_restart(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what `on_train_start` restores."""
        within_epoch = is_within_epoch(checkpoint)
        logger = run_logger(trainer)
        if not within_epoch:
            epoch_metrics = lightning_patches.metrics_logged_at_epoch_end(trainer)
            if logger and epoch_metrics:
                logger.log_early(epoch_metrics | {"epoch": trainer.current_epoch}, trainer.global_step - 1)
        checkpoint[KEY] = {
            "environment": environment(pl_module.device, str(trainer.precision)),
            "world_size": trainer.world_size,
            "frozen": {
                "parameters": [name for name, value in pl_module.named_parameters() if not value.requires_grad],
                "statistics": [
                    name
                    for name, module in pl_module.named_modules()
                    if not getattr(module, "track_running_stats", True)
                ],
            },
            # Each rank continues with its own.
            "metrics": gathered(trainer, _metrics_so_far(trainer, pl_module)) if within_epoch else [],
            "callback_metrics": {name: float(value) for name, value in trainer.callback_metrics.items()},
            "event_files": logger.event_files() if logger and trainer.is_global_zero else {},
        }

    def _restore_sums(self, trainer: Trainer) -> None:
        """Add what was logged before the checkpoint to what was logged since; Lightning makes a sum when it is due."""
        for key, metric in lightning_patches.sums_of_epoch(trainer).items() if self._sums else ():
            if key in self._sums:
                lightning_patches.add_to_sum(metric, self._sums.pop(key))

    def _obey_learning_rate(self, trainer: Trainer, pl_module: LightningModule, before: float | None) -> None:
        """Apply a new learning rate: to the first group of parameters, to other groups and base rates in proportion."""
        lr = pl_module.hparams.get("lr")
        if lr is None or before is None or lr == before:
            return
        scaled = [config.scheduler for config in trainer.lr_scheduler_configs if not config.reduce_on_plateau]
        if any(getattr(scheduler, "base_lrs", [before])[0] != before for scheduler in scaled):
            return  # a schedule that sets the learning rate itself, such as OneCycleLR
        for optimizer in trainer.optimizers:
            first = before if scaled else optimizer.param_groups[0]["lr"]
            for group in optimizer.param_groups:
                group["lr"] = lr * (group["lr"] / first)
                if "initial_lr" in group:
                    group["initial_lr"] = lr * (group["initial_lr"] / before)
        for scheduler in scaled:
            if base_lrs := getattr(scheduler, "base_lrs", None):
                scheduler.base_lrs = [lr * (base / before) for base in base_lrs]

    def _catch_up(self, trainer: Trainer, restored: dict[str, Any], *, within_epoch: bool) -> None:
        """Step plateau schedules, which Lightning does only after the checkpoint is saved."""
        batch = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        interval, count = ("step", batch) if within_epoch else ("epoch", trainer.current_epoch)
        for config in trainer.lr_scheduler_configs:
            due = config.reduce_on_plateau and config.interval == interval and count % config.frequency == 0
            if due and config.monitor in restored["callback_metrics"]:
                metric = restored["callback_metrics"][config.monitor]
                trainer.lightning_module.lr_scheduler_step(config.scheduler, metric)


def _metrics_so_far(trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
    """Return the metrics of an unfinished epoch: the states of all metrics, and what `self.log` has summed up."""
    validation = lightning_patches.validation_metrics(trainer)  # Lightning resets them before they are used again
    metrics = {
        name: module.metric_state
        for name, module in pl_module.named_modules()
        if isinstance(module, Metric) and all(module is not other for other in validation)
    }
    sums = {key: metric.metric_state for key, metric in lightning_patches.sums_of_epoch(trainer).items()}
    found: dict[str, Any] = move_data_to_device({"states": metrics, "sums": sums}, torch.device("cpu"))
    return found


def fits_optimizer(state: Any, optimizer: Optimizer) -> bool:
    """Return whether a state dict belongs to the parameters of an optimizer.

    For Adam, each tensor must also have the shape and layout of its parameter or be a single number. torch does not
    check this: its fused kernels would read and write beyond the end of a smaller tensor.
    """
    parameters: list[Tensor] = [tensor for group in optimizer.param_groups for tensor in group["params"]]
    indices = list(chain.from_iterable(group["params"] for group in state["param_groups"]))
    if indices != list(range(len(parameters))) or not state["state"].keys() <= set(indices):
        return False
    return all(
        not isinstance(value, Tensor) or not isinstance(optimizer, Adam) or _fits(value, parameters[index])
        for index, values in state["state"].items()
        for value in values.values()
    )


def _fits(value: Tensor, parameter: Tensor) -> bool:
    dense = value.is_contiguous() or value.is_contiguous(memory_format=channels_last)
    return dense and value.is_floating_point() and value.shape in ((), parameter.shape)
