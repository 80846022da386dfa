"""RunLogger: TensorBoard's logger with this project's tags and axes, and a curve that continues when a run resumes."""

import logging
import math
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary
from torch import Tensor

from mnist_lightning.training.classifier import Classifier

# Metrics are called <split>_<quantity> everywhere (a slash would make a folder of a checkpoint's name); only
# TensorBoard, which groups charts by what precedes the slash, gets these tags.
TAGS = {
    "train_loss": "Loss/train",
    "val_loss": "Loss/val",
    "test_loss": "Loss/test",
    "train_acc": "Accuracy/train",
    "val_acc": "Accuracy/val",
    "test_acc": "Accuracy/test",
    "lr": "Learning rate",
}

# The charts of the tab "Custom Scalars": training against validation.
LAYOUT = {
    "Training": {
        "Loss": ["Multiline", ["Loss/train", "Loss/val"]],
        "Accuracy": ["Multiline", ["Accuracy/train", "Accuracy/val"]],
    }
}

EVENTS = "events.out.tfevents.*"
TEST_SUFFIX = ".test"  # of the event files that `test` writes


class RunLogger(TensorBoardLogger):
    """Write a run's metrics, network graph and hyper-parameters into its log folder.

    The metrics in `TAGS` have the epoch as the horizontal axis, all others the step. If validation does not run once an
    epoch, all have the step.

    Args:
        folder: The run's log folder, such as `lightning_logs/version_7`.
        draw_graph: Whether to draw the network.
        by_step: Whether the metrics in `TAGS` have the step as their axis, too.
        filename_suffix: Suffix of the event files; `TEST_SUFFIX` keeps them when a run resumes.
    """

    def __init__(
        self, folder: Path, *, draw_graph: bool = False, by_step: bool = False, filename_suffix: str = ""
    ) -> None:
        number = folder.name.removeprefix("version_")
        super().__init__(
            save_dir=str(folder.parent),
            name="",
            version=int(number) if number.isdecimal() else folder.name,  # progress bars show it
            default_hp_metric=False,
            filename_suffix=filename_suffix,
        )
        self.folder = folder
        self.draw_graph, self.by_step = draw_graph, by_step
        self._logged_early: Mapping[str, float] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars: those in `TAGS` at the epoch if `metrics` names it, the others at the step."""
        if metrics == self._logged_early:
            return
        epoch = metrics.get("epoch")
        curves = {TAGS[name]: value for name, value in metrics.items() if name in TAGS}
        others = {name: value for name, value in metrics.items() if name not in TAGS and name != "epoch"}
        if epoch is not None:
            # `ResultWriter` logs the test's at the epoch of the checkpoint, which the Trainer does not know.
            curves = {tag: value for tag, value in curves.items() if not tag.endswith("/test")}
        super().log_metrics(curves, step if epoch is None or self.by_step else int(epoch))
        super().log_metrics(others, step)

    def log_early(self, metrics: Mapping[str, float], step: int) -> None:
        """Write an epoch's metrics before its checkpoint is saved; Lightning logs the same only after that."""
        self.log_metrics(metrics, step)
        self._logged_early = metrics

    def log_graph(self, model: LightningModule, input_array: Tensor | None = None) -> None:  # type: ignore[override]
        """Draw the network, without the metrics around it."""
        if not self.draw_graph or not isinstance(model, Classifier):
            return
        inputs = model.example_input_array
        for parameter in model.network.parameters():
            inputs = inputs.to(parameter)  # its device and dtype
        with warnings.catch_warnings():
            # TensorBoard's writer traces the network with torch.jit.trace, which torch 2.14 deprecates.
            warnings.filterwarnings("ignore", message=".*torch.jit.trace", category=FutureWarning)
            self.experiment.add_graph(model.network, inputs)

    @rank_zero_only
    def log_figure(self, tag: str, png: bytes, epoch: int) -> None:
        """Write a PNG file at an epoch; `SummaryWriter.add_image` would need its pixels, and encode them once more."""
        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), epoch)

    def save(self) -> None:
        """Flush the events; the run's `config.yaml` replaces Lightning's `hparams.yaml`."""
        self.experiment.flush()

    def event_files(self) -> dict[str, int]:
        """Return the size in bytes of each event file of the training so far, by name."""
        self.save()
        return {path.name: path.stat().st_size for path in _event_files(self.folder)}


def run_logger(trainer: Trainer) -> RunLogger | None:
    """Return the run's logger, if the trainer has it."""
    return next((logger for logger in trainer.loggers if isinstance(logger, RunLogger)), None)


def truncate_events(folder: Path, sizes: Mapping[str, int]) -> None:
    """Remove what a training wrote since `RunLogger.event_files` returned these sizes, for a checkpoint."""
    for path in _event_files(folder):
        if path.name not in sizes:
            path.unlink()
        elif path.stat().st_size > sizes[path.name]:
            with path.open("r+b") as file:
                file.truncate(sizes[path.name])


def _event_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob(EVENTS)) if not path.name.endswith(TEST_SUFFIX)]


@contextmanager
def quiet_event_writer() -> Iterator[None]:
    """Keep threads from printing a traceback of a disk error: the event writer hands it to the main thread."""
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
    """Return the finite scalars in a log folder by tag, as (step, value)."""
    # Imported here: it takes a tenth of a second, and training does not need it.
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 1, "tensors": 1, "histograms": 1})
    events.Reload()
    return {
        tag: sorted({point.step: point.value for point in events.Scalars(tag) if math.isfinite(point.value)}.items())
        for tag in events.Tags()["scalars"]
    }
