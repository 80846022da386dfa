"""What TensorBoard, its figures and the calibration cost a training, as a fraction of an epoch without them.

    python -m benchmarks.dashboards [--config configs/default.yaml] [--batches 60] [--epochs 8] [--output costs.json]

Times every call of the logger and of the callbacks that feed it within one `fit`. These calls flush the event file, so
the writing that another thread does is waited for and counted. Epochs may be cut to a number of batches; the fraction
refers to a whole epoch, whose remaining batches are assumed to take as long as the measured ones. The first epoch is
a warm-up and is not counted.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks import report
from benchmarks.contenders import TimedCLI
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.training.callbacks.calibrator import Calibrator
from mnist_lightning.training.callbacks.figures import TensorBoardFigures
from mnist_lightning.training.logger import run_logger


class Stopwatch(Callback):
    """Time the logger and the callbacks that feed it, epoch by epoch.

    An epoch lasts from the start of its first step to the start of the next epoch, and includes its checkpoint.
    """

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []  # seconds of each
        self.batches = 0  # in a whole epoch
        self._spent_s: dict[str, float] = defaultdict(float)  # in the current epoch, by class
        self._inside = False  # a timed call
        self._start_s = self._trained_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time each call of the logger, the figures and the calibrator; a nested call counts for the caller."""
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        self.batches = len(loader)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # made by Lightning's connector
        for owner in (
            run_logger(trainer),
            *(each for each in callbacks if isinstance(each, TensorBoardFigures | Calibrator)),
        ):
            for name in vars(type(owner)):
                if name.startswith(("on_", "log_", "save")):
                    self._time(owner, name)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the previous epoch."""
        if trainer.current_epoch:
            self._end()
        self._spent_s.clear()
        self._start_s = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the training steps ended."""
        self._trained_s = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch."""
        self._end()

    def _end(self) -> None:
        now = time.perf_counter()
        trained = self._trained_s if self._trained_s > self._start_s else now  # without validation
        times = {"steps_s": trained - self._start_s, "epoch_s": now - self._start_s}
        self.epochs.append({**times, **self._spent_s})

    def _time(self, owner: object, name: str) -> None:
        method = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside = True
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self._spent_s[type(owner).__name__] += time.perf_counter() - start
                self._inside = False

        setattr(owner, name, timed)


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"))
    parser.add_argument("--batches", type=int, default=60, help="training batches of each measured epoch")
    parser.add_argument("--epochs", type=int, default=8, help="epochs to count, at least 2")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        TimedCLI(
            ["fit", "--config", str(options.config), "--data.data_dir", str(options.data_dir),
             "--trainer.default_root_dir", folder, "--trainer.max_epochs", str(options.epochs + 1),
             "--trainer.limit_train_batches", str(options.batches), "--early_stopping.enabled", "false",
             "--test_after_fit", "false"],
            stopwatch,
        )  # fmt: skip
    epochs = stopwatch.epochs[1:]
    names = [name for name in epochs[0] if not name.endswith("_s")]
    costs_s = [sum(epoch[name] for name in names) for epoch in epochs]
    further = stopwatch.batches / min(options.batches, stopwatch.batches) - 1
    whole_s = [
        epoch["epoch_s"] - cost + further * epoch["steps_s"] for epoch, cost in zip(epochs, costs_s, strict=True)
    ]
    percents = [100 * cost / whole for cost, whole in zip(costs_s, whole_s, strict=True)]
    rows = {name: [1000 * epoch[name] for epoch in epochs] for name in names}
    rows["all of it"] = [1000 * cost for cost in costs_s]
    report.print_table(
        {"what": name, "n": len(values), "ms an epoch": report.plus_minus(values, 1)} for name, values in rows.items()
    )
    cost = report.plus_minus(percents, 2, " %")
    print(f"a whole epoch without: {report.plus_minus(whole_s, 1, ' s')}; fraction: {cost}")
    report.write(
        options.output,
        config=str(options.config),
        epochs=epochs,
        cost_ms={name: report.summary(values) for name, values in rows.items()},
        whole_epoch_s=report.summary(whole_s),
        share_percent=report.summary(percents),
    )


if __name__ == "__main__":
    main()
