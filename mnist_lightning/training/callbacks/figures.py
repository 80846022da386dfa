"""What TensorBoard shows of a training besides its curves: pictures and histograms of every epoch."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.data.loader import Batch, BatchLoader, RowLoader, denormalise
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import confusion_matrix, worst_images
from mnist_lightning.evaluation.predictions import Predictions
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector, schema_of
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.logger import RunLogger, run_logger

SHEET_IMAGES, SHEET_COLUMNS = 64, 8  # of the sheet of training images


class Dashboard(Callback):
    """Show in TensorBoard what the network sees and what it takes for what.

    Args:
        pictures: Whether to draw, at each epoch, training images as the network gets them, and of the validation
            images the confusion matrix, the worst ones and the curves of precision over recall; of a table's rows the
            matrix and the curves.
        histograms: Whether to draw how the weights are distributed, at each epoch.
    """

    def __init__(self, pictures: bool = True, histograms: bool = False) -> None:
        self.pictures = pictures
        self.histograms = histograms
        self._collector = PredictionCollector()
        self._answers: Predictions | None = None  # of the validation of this epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Describe the charts that compare training with validation."""
        if logger := run_logger(trainer):
            logger.log_layout()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        """Draw the first images of an epoch: once."""
        if batch_idx == 0:
            logger = run_logger(trainer)
            loader = trainer.train_dataloader
            # A table's rows are no pictures.
            if logger and self.pictures and trainer.is_global_zero and not isinstance(loader, RowLoader):
                assert isinstance(loader, BatchLoader)
                images, _ = loader.first_batch()
                pixels = denormalise(images[:SHEET_IMAGES], loader.mean, loader.std).cpu().numpy()
                sheet = plots.image_sheet(pixels, columns=SHEET_COLUMNS, zoom=2)
                logger.log_picture("Training images", sheet, trainer.current_epoch)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the answers of the validation before."""
        self._collector.clear()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the answers."""
        if self.pictures:
            self._collector.add(outputs, batch[1])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the answers of all processes together, for the epoch's end to draw."""
        if self.pictures and trainer.state.fn == "fit" and not trainer.sanity_checking:
            assert isinstance(trainer.val_dataloaders, BatchLoader)
            self._answers = self._collector.gather(trainer, trainer.val_dataloaders)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw; this comes before the epoch's scalars, which flush it to disk, and before its checkpoint."""
        answers, self._answers = self._answers, None
        logger = run_logger(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        if answers:
            assert isinstance(trainer.val_dataloaders, BatchLoader)
            _draw_validation(
                logger, answers, trainer.val_dataloaders, schema_of(trainer).class_names, trainer.current_epoch
            )
        if self.histograms:
            assert isinstance(pl_module, Classifier)
            for name, weights in pl_module.network.named_parameters():
                logger.experiment.add_histogram(f"Weights/{name}", weights, trainer.current_epoch)


def _draw_validation(
    logger: RunLogger, answers: Predictions, loader: BatchLoader, class_names: tuple[str, ...], epoch: int
) -> None:
    confusion = confusion_matrix(answers.labels, answers.predicted, len(class_names)).tolist()
    logger.log_picture("Validation/confusion matrix", plots.confusion_matrix(confusion, class_names), epoch)
    if not isinstance(loader, RowLoader):
        worst = worst_images(answers, class_names)
        pixels = loader.images[[image.index for image in worst]].cpu().numpy()
        logger.log_picture("Validation/worst images", plots.worst_images(pixels, worst), epoch)
    probabilities = answers.logits.double().softmax(dim=1).numpy()
    for place, name in enumerate(class_names):
        hits = (answers.labels == place).numpy()
        logger.experiment.add_pr_curve(
            f"Validation/precision and recall of {name}", hits, probabilities[:, place], epoch
        )
