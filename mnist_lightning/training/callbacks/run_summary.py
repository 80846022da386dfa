"""RunSummary: the lines that `fit` prints, and their counterparts in TensorBoard."""

import shlex
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from mnist_lightning.errors import DivergenceError
from mnist_lightning.models.kernels.conv_pool_relu import describe
from mnist_lightning.runs.run_folders import Run
from mnist_lightning.training.environment import device_name, has_blocks
from mnist_lightning.training.logger import RunLogger, run_logger
from mnist_lightning.training.run_loggers import save_ids
from mnist_lightning.training.trainer import reason_of_end

PLACES = ("data_dir", "source", "csv_file", "val_csv_file", "test_csv_file")  # locations, not hyper-parameters
END = "End of training"  # TensorBoard's tag
COLUMNS = ("train_loss", "train_acc", "val_loss", "val_acc", "lr")  # of an epoch's line


class DevRunSummary(Callback):
    """Print that a run with `trainer.fast_dev_run` worked."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what was run."""
        pl_module.print(f"fast_dev_run: {trainer.global_step} steps ran without an error; nothing was saved")


class RunSummary(Callback):
    """Print what is trained and where, a line for each epoch, and at the end the result and the next command to type.

    Args:
        run: The run that is trained.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._epoch: int | None = None  # whose line is not printed yet
        self._epoch_start_s = 0.0
        self._validated_step = -1
        self._lr: float | None = None  # of the previous epoch, if a schedule monitors a metric

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the network, the device and the run; give its options to the user's loggers."""
        save_ids(self.run, trainer.loggers)
        for logger in trainer.loggers:
            if trainer.enable_autolog_hparams and not isinstance(logger, RunLogger):
                logger.log_hyperparams(hyper_parameters(trainer, pl_module))
        self._epoch, self._epoch_start_s = trainer.current_epoch, time.monotonic()
        self._lr = _monitored_lr(trainer)
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        processes = f"{trainer.world_size} processes, each on " if trainer.world_size > 1 else ""
        on_cpu = trainer.strategy.root_device.type == "cpu"
        kernels = f" with {describe()}" if on_cpu and has_blocks(pl_module) else ""
        end = f"{epochs} epochs" if epochs not in (None, -1) else f"{trainer.max_steps} steps"
        pl_module.print(
            f"{self.run.name}: {parameters:,} parameters on {processes}{device_name(trainer.strategy.root_device)}, "
            f"precision {trainer.precision}{kernels}, {batches:,} batches an epoch, up to {end}"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the previous epoch."""
        if self._epoch != trainer.current_epoch:
            self._print_epoch(trainer, pl_module)
            self._epoch, self._epoch_start_s = trainer.current_epoch, time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember which weights were validated; print the result of a validation within an epoch."""
        self._validated_step = trainer.global_step
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and not trainer.sanity_checking:
            metrics = self._epoch_metrics(trainer)
            values = "  ".join(f"{name} {show(name, metrics[name])}" for name in COLUMNS if name.startswith("val"))
            pl_module.print(f"epoch {trainer.current_epoch:2d}, step {trainer.global_step}  {values}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch's line and the result; log the hyper-parameters with the metrics that were reached."""
        self._print_epoch(trainer, pl_module)
        reason = reason_of_end(trainer)
        pl_module.print(reason)
        best = self.run.best_entry()
        if best is not None:
            names = [name for name in dict.fromkeys((best.monitor, "val_acc", "val_loss")) if name in best.metrics]
            metrics = ", ".join(f"{name} {show(name, best.metrics[name])}" for name in names)
            pl_module.print(f"best epoch {best.epoch}: {metrics}")
        elsewhere = [] if self.run.root == Path() else ["--trainer.default_root_dir", str(self.run.root)]
        older = [] if self.run.is_newest() else ["--ckpt_path", f"{self.run.name}/best"]  # than another run
        is_saved = bool(trainer.checkpoint_callbacks)
        saved = f"and {self.run.checkpoints}" if is_saved else "without checkpoints (trainer.enable_checkpointing)"
        commands = [["python", "-m", "mnist_lightning", "test", *elsewhere, *older]] if is_saved else []
        commands += [["tensorboard", "--logdir", str(self.run.logs.parent)]] if run_logger(trainer) else []
        pl_module.print(f"run: {self.run.logs} {saved}")
        for start, command in zip(("next: ", "      "), commands, strict=False):
            pl_module.print(f"{start}{shlex.join(command)}")
        if logger := run_logger(trainer):
            last_epoch = trainer.current_epoch - 1
            logger.experiment.add_text(END, reason, last_epoch)
            reached, epoch = (best.metrics, best.epoch) if best else (self._epoch_metrics(trainer), last_epoch)
            metrics_of_run = {f"hp/{name}": value for name, value in reached.items()}
            if trainer.enable_autolog_hparams:
                logger.log_hyperparams(hyper_parameters(trainer, pl_module), metrics_of_run, epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Log why training was interrupted, if writing can succeed."""
        logger = run_logger(trainer)
        if logger and isinstance(exception, DivergenceError | SystemExit):
            logger.experiment.add_text(
                END, f"interrupted, {type(exception).__name__}: {exception}", trainer.current_epoch
            )
            logger.save()

    @rank_zero_only
    def _print_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._epoch is None:
            return
        seconds = time.monotonic() - self._epoch_start_s
        metrics = self._epoch_metrics(trainer)
        others = sorted(name for name in metrics.keys() - set(COLUMNS) if name.startswith("val"))
        names = [name for name in (*COLUMNS, *others) if name in metrics]
        columns = "  ".join(f"{name} {show(name, metrics[name])}" for name in names)
        pl_module.print(f"epoch {self._epoch:2d}  {columns}  {seconds:.1f} s")
        lr = _monitored_lr(trainer)
        if lr is not None and self._lr is not None and lr < self._lr:
            cut = f"epoch {self._epoch}: the monitored metric stopped improving, learning rate {self._lr:g} -> {lr:g}"
            pl_module.print(cut)
            if logger := run_logger(trainer):
                logger.experiment.add_text("Learning rate/reduced", cut, self._epoch)
        self._epoch, self._lr = None, lr

    def _epoch_metrics(self, trainer: Trainer) -> dict[str, float]:
        """Return the metrics of the epoch that ended, without those of an earlier validation."""
        validated = self._validated_step == trainer.global_step
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return {name: value for name, value in metrics.items() if validated or not name.startswith("val")}


def _monitored_lr(trainer: Trainer) -> float | None:
    """Return the learning rate if a schedule such as ReduceLROnPlateau monitors a metric."""
    monitors = any(config.reduce_on_plateau for config in trainer.lr_scheduler_configs)
    return float(trainer.optimizers[0].param_groups[0]["lr"]) if monitors else None


def hyper_parameters(trainer: Trainer, pl_module: LightningModule) -> dict[str, int | float | str]:
    """Return the options of data and model that can make one run better than another."""
    options = {**getattr(getattr(trainer, "datamodule", None), "hparams", {}), **pl_module.hparams}
    return {
        name: value for name, value in options.items() if isinstance(value, int | float | str) and name not in PLACES
    }


def show(name: str, value: float) -> str:
    """Return a metric as printed: accuracies in percent.

    >>> show("val_acc", 0.9876), show("val_loss", 0.04567), show("lr", 0.0005)
    ('98.76 %', '0.0457', '0.0005')
    """
    if name.endswith("_acc"):
        return f"{100 * value:.2f} %"
    return f"{value:g}" if name == "lr" else f"{value:.4f}"
