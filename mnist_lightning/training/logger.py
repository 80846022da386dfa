"""The TensorBoard logger of a run: our tags, the epoch as the horizontal axis, one curve across resumptions."""

import logging
import math
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from mnist_lightning.evaluation.plots import as_png
from mnist_lightning.training.classifier import Classifier

# Metrics are called <split>_<quantity> everywhere (a slash would make a folder of a checkpoint's name); only
# TensorBoard, which groups charts by what stands before the slash, sees these.
TAGS = {
    "train_loss": "Loss/train",
    "val_loss": "Loss/val",
    "test_loss": "Loss/test",
    "train_acc": "Accuracy/train",
    "val_acc": "Accuracy/val",
    "test_acc": "Accuracy/test",
    "lr": "Learning rate",
}

# The charts of the tab "Custom Scalars": train against validation.
LAYOUT = {
    "Training": {
        "Loss": ["Multiline", ["Loss/train", "Loss/val"]],
        "Accuracy": ["Multiline", ["Accuracy/train", "Accuracy/val"]],
    }
}


class RunLogger(TensorBoardLogger):
    """Write a run's metrics, network graph and hyper-parameters into its log folder.

    Args:
        folder: The run's log folder, `lightning_logs/version_7`.
        first_epoch: Epoch that training goes on with: points from there on, left by an interrupted run, are dropped
            from the curves; None drops nothing.
        draw_graph: Whether to draw the network.
    """

    def __init__(self, folder: Path, *, first_epoch: int | None = None, draw_graph: bool = False) -> None:
        super().__init__(
            save_dir=str(folder.parent),
            name="",
            version=folder.name,
            default_hp_metric=False,
            purge_step=first_epoch,
        )
        self.draw_graph = draw_graph

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars at an epoch, under TensorBoard's tags; not what Lightning logs by itself, at steps."""
        if "epoch" in metrics:
            return
        super().log_metrics({TAGS.get(name, name): value for name, value in metrics.items()}, step)

    def log_graph(self, model: LightningModule, input_array: Tensor | None = None) -> None:  # type: ignore[override]
        """Draw the network, without the metrics around it."""
        if not self.draw_graph:
            return
        assert isinstance(model, Classifier)
        with warnings.catch_warnings():
            # TensorBoard's writer traces the network with torch.jit.trace, which torch 2.14 deprecates.
            warnings.filterwarnings("ignore", message=".*torch.jit.trace", category=FutureWarning)
            self.experiment.add_graph(model.network, model.example_input_array.to(model.device))

    def log_layout(self) -> None:
        """Describe the charts that compare training with validation."""
        self.experiment.add_custom_scalars(LAYOUT)

    @rank_zero_only
    def log_picture(self, tag: str, picture: Image.Image, epoch: int) -> None:
        """Write a picture at an epoch; SummaryWriter's own way makes floats of the pixels first, at twice the time."""
        image = Summary.Image(
            height=picture.height,
            width=picture.width,
            colorspace=len(picture.getbands()),
            encoded_image_string=as_png(picture),
        )
        self.experiment._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), epoch)

    def log_text(self, tag: str, text: str, epoch: int) -> None:
        """Write a line at an epoch."""
        self.experiment.add_text(tag, text, epoch)

    def save(self) -> None:
        """Flush the events; the run's `config.yaml` takes the place of Lightning's `hparams.yaml`."""
        self.experiment.flush()


def run_logger(trainer: Trainer) -> RunLogger | None:
    """Return the logger of the run, if the trainer has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


@contextmanager
def quiet_event_writer() -> Iterator[None]:
    """Let no thread print a traceback for what a disk refuses: the writer of events hands it to the main thread."""
    hook = threading.excepthook

    def print_others(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, OSError):
            hook(failure)

    threading.excepthook = print_others
    try:
        yield
    finally:
        threading.excepthook = hook


def read_curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars in a log folder by tag: the finite value at each epoch, the last one written."""
    # Here, for it takes a tenth of a second and training has no use for it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    # It would warn of the points that a resumed run has overwritten, which it leaves out.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1, "histograms": 1})
    events.Reload()
    return {
        tag: sorted({point.step: point.value for point in events.Scalars(tag) if math.isfinite(point.value)}.items())
        for tag in events.Tags()["scalars"]
    }
