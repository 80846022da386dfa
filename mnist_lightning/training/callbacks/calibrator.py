"""Calibrator: fits temperature scaling on the validation predictions and puts it into the checkpoint."""

from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.data.samples import Batch
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.calibration import KEY, Calibration, calibrate
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector, is_of_this_project


class Calibrator(Callback):
    """Fit temperature and threshold for unsure predictions at each validation, and save both with the weights.

    Does nothing for a model whose `validation_step` does not return logits (B, classes).
    """

    def __init__(self) -> None:
        self._collector = PredictionCollector()
        self._calibration: Calibration | None = None
        self._calibrated_step = -1

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the predictions of a batch."""
        self._collector.add(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the calibration of the present weights."""
        if is_of_this_project(trainer):
            predictions = self._collector.gather(trainer, trainer.val_dataloaders)
            logits, labels = predictions.logits, predictions.labels
        elif trainer.world_size == 1:
            logits, labels = (values.cpu() for values in self._collector.collected())
        else:
            raise ConfigError("Calibrator: on several devices it needs a data module of this project; leave it out")
        if not len(labels):
            return
        self._calibration = calibrate(logits, labels)
        self._calibrated_step = trainer.global_step

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the calibration if it was fitted for the weights that are saved."""
        if self._calibration and self._calibrated_step == trainer.global_step:
            checkpoint[KEY] = asdict(self._calibration)
