"""Figures for TensorBoard: training images, validation results and histograms of the weights."""

from typing import Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.pixels import denormalise
from mnist_lightning.data.samples import Batch, ImageDataset
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import confusion_matrix, worst_samples
from mnist_lightning.evaluation.predictions import Predictions
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector, is_of_this_project, schema_of
from mnist_lightning.training.logger import LAYOUT, RunLogger, run_logger

TRAINING_IMAGES, WORST_IMAGES = 64, 16  # drawn
COLUMNS = 8


class TensorBoardFigures(Callback):
    """Show in TensorBoard what the network is trained on and which errors it makes.

    Args:
        figures: When to draw figures: `epoch` after each epoch, `end` once after training, `none` never. They show the
            first training images of the epoch as the network gets them (augmented) and, for the validation split, the
            confusion matrix, the images with the highest loss and the precision-recall curve of each class. Tables have
            no images; more than 100 classes have no precision-recall curves.
        histograms: Whether to log a histogram of each weight tensor after each epoch.
    """

    def __init__(self, figures: Literal["epoch", "end", "none"] = "epoch", histograms: bool = False) -> None:
        self.figures = figures
        self.histograms = histograms
        self._collector = PredictionCollector()
        self._predictions: Predictions | None = None  # of the last validation, until they are drawn
        self._epoch = 0  # that ended last

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Define the charts that compare training with validation."""
        if logger := run_logger(trainer):
            logger.experiment.add_custom_scalars(LAYOUT)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the predictions."""
        if self._is_collecting(trainer):
            self._collector.add(outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gather the predictions of all ranks."""
        if self._is_collecting(trainer) and is_of_this_project(trainer):
            self._predictions = self._collector.gather(trainer, trainer.val_dataloaders)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw; this comes before the epoch's scalars, which flush the events to disk, and before its checkpoint."""
        self._epoch = trainer.current_epoch
        if self.figures == "epoch":
            self._draw(trainer)
        if self.histograms and (logger := run_logger(trainer)) and trainer.is_global_zero:
            for name, weights in getattr(pl_module, "network", pl_module).named_parameters():
                logger.experiment.add_histogram(f"Weights/{name}", weights, trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last epoch, if that is all to be drawn."""
        if self.figures == "end":
            self._draw(trainer)

    def _is_collecting(self, trainer: Trainer) -> bool:
        # Only the first rank has a logger, and all must gather.
        is_drawn = self.figures != "none" and (trainer.world_size > 1 or run_logger(trainer) is not None)
        return is_drawn and trainer.state.fn == "fit" and not trainer.sanity_checking

    def _draw(self, trainer: Trainer) -> None:
        predictions, self._predictions = self._predictions, None
        logger = run_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        loader = trainer.train_dataloader
        if isinstance(loader, BatchLoader) and isinstance(data := loader.dataset, ImageDataset):
            images, _ = loader.first_batch()
            pixels = denormalise(images[:TRAINING_IMAGES], data.mean, data.std).cpu().numpy()
            sheet = plots.image_sheet(pixels, columns=COLUMNS, zoom=2)
            logger.log_figure("Training images", plots.as_png(sheet), self._epoch)
        if predictions and len(predictions.labels):
            class_names = schema_of(trainer).class_names
            assert isinstance(trainer.val_dataloaders, BatchLoader)
            _draw_validation(logger, predictions, trainer.val_dataloaders, class_names, self._epoch)


def _draw_validation(
    logger: RunLogger, predictions: Predictions, loader: BatchLoader, class_names: tuple[str, ...], epoch: int
) -> None:
    matrix = plots.confusion_matrix(confusion_matrix(predictions, len(class_names)), class_names)
    logger.log_figure("Validation/confusion matrix", plots.as_png(matrix), epoch)
    if isinstance(loader.dataset, ImageDataset):
        worst = worst_samples(predictions, class_names)[:WORST_IMAGES]
        pixels = loader.dataset.inputs[[each.index for each in worst]].cpu().numpy()
        logger.log_figure("Validation/worst images", plots.as_png(plots.worst_images(pixels, worst)), epoch)
    if len(class_names) > plots.MAX_MATRIX_CLASSES:
        return
    probabilities = predictions.logits.double().softmax(dim=1).numpy()
    for label, name in enumerate(class_names):
        is_class = (predictions.labels == label).numpy()
        tag = f"Validation/precision and recall of {name}"
        logger.experiment.add_pr_curve(tag, is_class, probabilities[:, label], epoch)
