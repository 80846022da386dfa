"""What watches a run: early stopping, the lines on the screen, how far its probabilities can be believed."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.utilities import rank_zero_only

from mnist_lightning.data.loader import Batch, BatchLoader
from mnist_lightning.errors import ConfigError, DivergenceError
from mnist_lightning.evaluation.calibration import KEY as CALIBRATION_KEY
from mnist_lightning.evaluation.calibration import Calibration, calibrate
from mnist_lightning.runs.run_folders import Run
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.environment import device_name
from mnist_lightning.training.logger import run_logger

PLACES = (
    "data_dir",
    "source",
    "csv_file",
    "val_csv_file",
    "test_csv_file",
)  # where data come from: no hyper-parameters
END = "End of training"  # TensorBoard's tag
COLUMNS = ("train_loss", "train_acc", "val_loss", "val_acc", "lr")  # of an epoch's line


class EarlyStopping(lightning_callbacks.EarlyStopping):
    """Stop when the validation loss no longer falls; without validation, do nothing.

    Args:
        patience: Epochs without improvement before training stops, at least 1.
        min_delta: Improvement that counts, at least 0.
        monitor: Metric to watch.
        mode: Whether a lower or a higher metric is better.
        enabled: Whether to watch at all.
    """

    def __init__(
        self,
        patience: int = 3,
        min_delta: float = 0.0,
        monitor: Literal["val_loss", "val_acc"] = "val_loss",
        mode: Literal["min", "max"] = "min",
        enabled: bool = True,
    ) -> None:
        if patience < 1:
            raise ConfigError(f"early_stopping.patience must be at least 1, got {patience}; 3 is usual")
        if not min_delta >= 0:
            raise ConfigError(f"early_stopping.min_delta must be at least 0, got {min_delta}")
        super().__init__(monitor=monitor, min_delta=min_delta, patience=patience, mode=mode)
        self.enabled = enabled

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score and the count, but keep the patience that was asked for."""
        super().load_state_dict(state_dict | {"patience": self.patience})

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric, when validation runs once an epoch."""
        if self.enabled and self.monitor in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the metric, when validation runs more than once an epoch."""
        if self.enabled:
            super().on_validation_end(trainer, pl_module)


class ProgressBar(lightning_callbacks.TQDMProgressBar):
    """Show the progress within an epoch, or of an evaluation, refreshed a few times a second.

    Args:
        refresh_rate: Batches between two looks.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print above the bar; Lightning's own drops what is printed while there is none."""
        if self._train_progress_bar is None and self._val_progress_bar is None:
            print(*args, sep=sep, **kwargs)
        else:
            super().print(*args, sep=sep, **kwargs)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return nothing: the scores of an epoch have a line of their own."""
        return {}


class RunReport(Callback):
    """Say what trains and where, one line an epoch, and at the end what came out and what to type next.

    Args:
        run: The run being trained.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._epoch: int | None = None  # the one whose line is due
        self._epoch_start_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the network, the device, the data and the run."""
        self._epoch, self._epoch_start_s = trainer.current_epoch, time.monotonic()
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        batches, epochs = trainer.num_training_batches, trainer.max_epochs
        processes = f"{trainer.world_size} processes, each on " if trainer.world_size > 1 else ""
        end = f"{epochs} epochs" if epochs not in (None, -1) else f"{trainer.max_steps} steps"
        pl_module.print(
            f"{self.run.name}: {parameters:,} parameters on {processes}{device_name(trainer.strategy.root_device)}, "
            f"precision {trainer.precision}, {batches:,} batches an epoch, up to {end}"
        )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the line of the epoch before."""
        if self._epoch != trainer.current_epoch:
            self._print_epoch(pl_module)
            self._epoch, self._epoch_start_s = trainer.current_epoch, time.monotonic()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the last epoch's line and the summary, and file hyper-parameters with the scores reached."""
        self._print_epoch(pl_module)
        reason = reason_of_end(trainer)
        pl_module.print(reason)
        best = self.run.best_entry()
        if best is not None:
            scores = ", ".join(f"{name} {show(name, best.metrics[name])}" for name in ("val_acc", "val_loss"))
            pl_module.print(f"best epoch {best.epoch}: {scores}")
        elsewhere = "" if self.run.root == Path() else f" --trainer.default_root_dir {self.run.root}"
        pl_module.print(
            f"run: {self.run.logs} and {self.run.checkpoints}\n"
            f"next: python -m mnist_lightning test{elsewhere}\n"
            f"      tensorboard --logdir {self.run.logs.parent}"
        )
        if logger := run_logger(trainer):
            last_epoch = trainer.current_epoch - 1
            logger.log_text(END, reason, last_epoch)
            metrics, epoch = (best.metrics, best.epoch) if best else (getattr(pl_module, "metrics", {}), last_epoch)
            reached = {f"hp/{name}": value for name, value in metrics.items()}
            logger.log_hyperparams(hyper_parameters(trainer, pl_module), reached, epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note why training was broken off, where writing that down can succeed."""
        logger = run_logger(trainer)
        if logger and isinstance(exception, DivergenceError | SystemExit):
            logger.log_text(END, f"broken off, {type(exception).__name__}: {exception}", trainer.current_epoch)
            logger.save()

    @rank_zero_only
    def _print_epoch(self, pl_module: LightningModule) -> None:
        if self._epoch is None:
            return
        seconds = time.monotonic() - self._epoch_start_s
        assert isinstance(pl_module, Classifier)
        metrics = pl_module.metrics
        scores = "  ".join(f"{name} {show(name, metrics[name])}" for name in COLUMNS if name in metrics)
        pl_module.print(f"epoch {self._epoch:2d}  {scores}  {seconds:.1f} s")
        self._epoch = None


class Calibrator(Callback):
    """Fit the temperature and the threshold for unsure answers at each validation, for the checkpoint to carry them."""

    def __init__(self) -> None:
        self.answers = PredictionCollector()
        self._calibration: Calibration | None = None
        self._calibrated_step = -1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the answers of the validation before."""
        self.answers.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the answers."""
        self.answers.add(outputs, batch[1])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit, for the weights as they are."""
        assert isinstance(trainer.val_dataloaders, BatchLoader)
        answers = self.answers.gather(trainer, trainer.val_dataloaders)
        self._calibration = calibrate(answers.logits, answers.labels)
        self._calibrated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what was fitted, if it was for these weights."""
        if self._calibration and self._calibrated_step == trainer.global_step:
            checkpoint[CALIBRATION_KEY] = asdict(self._calibration)


def hyper_parameters(trainer: Trainer, pl_module: LightningModule) -> dict[str, int | float | str]:
    """Return the options of data and model that can make one run better than another."""
    options = {**getattr(getattr(trainer, "datamodule", None), "hparams", {}), **pl_module.hparams}
    return {
        name: value for name, value in options.items() if isinstance(value, int | float | str) and name not in PLACES
    }


def reason_of_end(trainer: Trainer) -> str:
    """Return why a training that was not broken off has ended, in words."""
    stopping = trainer.early_stopping_callback
    if stopping is not None and stopping.stopped_epoch:
        return f"stopped early: no better {stopping.monitor} in {stopping.wait_count} epochs"
    if 0 < trainer.max_steps <= trainer.global_step:
        return f"ended after {trainer.max_steps:,} steps, as many as trainer.max_steps allows"
    if trainer.max_epochs == trainer.current_epoch:
        return f"ended after {trainer.max_epochs} epochs, as many as trainer.max_epochs allows"
    return "ended by another callback, such as a limit of time"


def show(name: str, value: float) -> str:
    """Return a metric as the screen shows it: accuracies in percent.

    >>> show("val_acc", 0.9876), show("val_loss", 0.04567), show("lr", 0.0005)
    ('98.76 %', '0.0457', '0.0005')
    """
    if name.endswith("_acc"):
        return f"{100 * value:.2f} %"
    return f"{value:g}" if name == "lr" else f"{value:.4f}"
