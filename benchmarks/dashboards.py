"""What TensorBoard and its pictures cost a training: epochs with all of it and with none, in turns.

    python -m benchmarks.dashboards [--config configs/default.yaml] [--batches 100] [--rounds 10] [--output costs.json]

One `fit`. Every other epoch runs without the logger, the pictures and the calibration of each validation. Times are the
process's own (all its threads), which a busy machine disturbs less than the clock. Epochs may be cut short, to a number
of batches; the share is that of a whole epoch, whose further batches are taken to cost what the measured ones do. The
first round warms up and is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks import report
from benchmarks.contenders import TimedCLI
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.training.callbacks import Calibrator
from mnist_lightning.training.dashboard import Dashboard


class EveryOther(Callback):
    """Switch everything that shows a training on and off, epoch by epoch, and take the time of each.

    An epoch is counted from the start of its first step to the start of the next epoch, its checkpoint included.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, list[dict[str, float]]] = {"with": [], "without": []}
        self.batches = 0  # of a whole epoch
        self._start_s = self._trained_s = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what there is to switch."""
        self._all = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]  # made by Lightning's connector
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        self.batches = len(loader)
        self._is_on = True
        self._start_s = time.process_time()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time of the steps."""
        self._trained_s = time.process_time()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the epoch before, and switch."""
        if trainer.current_epoch:
            self._end()
            self._is_on = not self._is_on
            callbacks, loggers = self._all
            shows = () if self._is_on else (Dashboard, Calibrator)
            trainer.callbacks = [each for each in callbacks if not isinstance(each, shows)]  # type: ignore[attr-defined]
            trainer.loggers = loggers if self._is_on else []
        self._start_s = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch, whose closing of the event file is nobody's."""
        self._end()
        _, trainer.loggers = self._all

    def _end(self) -> None:
        now = time.process_time()
        times = {"steps_s": self._trained_s - self._start_s, "epoch_s": now - self._start_s}
        self.epochs["with" if self._is_on else "without"].append(times)


def main() -> None:
    """Measure, print and file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"))
    parser.add_argument("--batches", type=int, default=100, help="training batches of each measured epoch")
    parser.add_argument("--rounds", type=int, default=10, help="pairs of epochs to count, at least 2")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    turns = EveryOther()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        TimedCLI(
            ["fit", "--config", str(options.config), "--data.data_dir", str(options.data_dir),
             "--trainer.default_root_dir", folder, "--trainer.max_epochs", str(2 * options.rounds + 2),
             "--trainer.limit_train_batches", str(options.batches), "--early_stopping.enabled", "false"],
            turns,
        )  # fmt: skip
    epochs = {name: times[1:] for name, times in turns.epochs.items()}
    pairs = list(zip(epochs["with"], epochs["without"], strict=True))
    costs_ms = [1000 * (on["epoch_s"] - off["epoch_s"]) for on, off in pairs]
    whole_s = [off["epoch_s"] + off["steps_s"] * (turns.batches / options.batches - 1) for _, off in pairs]
    shares = [cost / (10 * whole) for cost, whole in zip(costs_ms, whole_s, strict=True)]
    report.print_table(
        [
            {
                "pairs of epochs": len(pairs),
                "batches": options.batches,
                "cost of an epoch": report.plus_minus(costs_ms, 0, " ms"),
                "a whole epoch without": report.plus_minus(whole_s, 1, " s"),
                "share": report.plus_minus(shares, 2, " %"),
            }
        ]
    )
    report.write(
        options.output,
        config=str(options.config),
        epochs=epochs,
        cost_ms=report.summary(costs_ms),
        whole_epoch_s=report.summary(whole_s),
        share_percent=report.summary(shares),
    )


if __name__ == "__main__":
    main()
