"""What the speed benchmark compares, each in a process of its own, and called in turns."""

import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.nn import functional as F

from benchmarks.lab import Lab
from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.cli.lightning_cli import TrainerCLI
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.training.environment import native_precision
from mnist_lightning.training.memory import keep_freed_memory

PEAK_SIZE = 1024  # of the matrices whose product measures the machine
PREFETCHED = 6  # batches: two by each of two workers, and two to get going


class LabLoop:
    """The lab's plain script, a few steps at a time.

    Args:
        lab: The script.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.batches = chain.from_iterable(repeat(lab.train_loader))

    def seconds(self, steps: int) -> float:
        """Return how long some steps take; what its loader's workers had ready while others ran is not counted."""
        self.lab.train(islice(self.batches, PREFETCHED))
        start = time.perf_counter()
        self.lab.train(islice(self.batches, steps))
        return time.perf_counter() - start


class BareLoop:
    """Our loader, network and arithmetic in a plain loop: what `fit` costs beyond it is the price of Lightning and us.

    Args:
        data: Prepared and set up for `fit`.
        hparams: Hyper-parameters of the Classifier that it does without.
    """

    def __init__(self, data: MNISTDataModule, hparams: dict[str, Any]) -> None:
        keep_freed_memory()
        torch.set_flush_denormal(True)
        self.train_loader, validation = data.train_dataloader(), data.val_dataloader()
        self.val_loaders = validation if isinstance(validation, list) else [validation]
        classifier = Classifier(**hparams)
        self.network = classifier.network.to(memory_format=torch.channels_last)
        self.optimizer = classifier.make_optimizer(fused=True)
        self.bfloat16 = native_precision(on_gpu=False) == "bf16-mixed"
        self.epoch = -1
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.epoch += 1
        self.train_loader.set_epoch(self.epoch)
        self.batches = iter(self.train_loader)
        self.loss_sum, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        self.images_seen, self.seconds = 0, 0.0

    def train(self, steps: int | None = None) -> None:
        """Go on with the epoch for some steps, or to its end."""
        start = time.perf_counter()
        self.network.train()
        for images, labels in islice(self.batches, steps):
            self.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
                logits = self.network(images)
                loss = F.cross_entropy(logits, labels)
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.loss_sum += loss.detach() * len(labels)
            self.correct += (logits.argmax(dim=1) == labels).sum()
            self.images_seen += len(labels)
        self.seconds += time.perf_counter() - start

    def end_epoch(self) -> dict[str, float]:
        """End the epoch and validate; return the images a second of the training and the seconds of both."""
        self.train()
        images_per_s = self.images_seen / self.seconds
        start = time.perf_counter()
        self.network.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            for images, labels in chain(*self.val_loaders):
                logits = self.network(images)
                self.loss_sum += F.cross_entropy(logits, labels)
                self.correct += (logits.argmax(dim=1) == labels).sum()
        epoch_s = self.seconds + time.perf_counter() - start
        self._begin_epoch()
        return {"images_per_s": images_per_s, "epoch_s": epoch_s}

    def peak_flops(self) -> float:
        """Return the machine's own rate, now, of a product of matrices at the precision in use, in FLOP a second."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=dtype) for _ in range(2))
        products: list[float] = []
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            products.append(time.perf_counter() - start)
        return float(2 * PEAK_SIZE**3 / min(products))


class Turns(Callback):
    """Measure each epoch of `fit`, and let the others have their turn every few steps and at its end.

    Args:
        others: Called with whether the epoch has ended; what it takes is not counted.
        every: Training steps between two turns; None gives a turn at the end alone.
    """

    def __init__(self, others: Callable[[bool], None], every: int | None = None) -> None:
        self.others, self.every = others, every
        self.epochs: list[dict[str, float]] = []
        self._start_s = self._trained_s = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch ends where the next one starts: its checkpoint is counted."""
        if trainer.current_epoch:
            self._end(trainer)
        self._start_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop the clock for the others."""
        if self.every and batch_idx and batch_idx % self.every == 0:
            start = time.perf_counter()
            self.others(False)
            self._start_s += time.perf_counter() - start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the time of training alone."""
        self._trained_s = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch."""
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        trained = self._trained_s if self._trained_s > self._start_s else now
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        images = min(len(loader.indices), int(trainer.num_training_batches) * loader.batch_size)
        self.epochs.append({"images_per_s": images / (trained - self._start_s), "epoch_s": now - self._start_s})
        self.others(True)


class TimedCLI(TrainerCLI):
    """`fit` as a person types it, with one callback more.

    Args:
        args: The command line.
        callback: What takes the times.
    """

    def __init__(self, args: list[str], callback: Callback) -> None:
        self.callback = callback
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add the callback, the first of all."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, self.callback)  # type: ignore[attr-defined]  # made by Lightning's connector
        return trainer


@contextmanager
def terminal() -> Iterator[None]:
    """Let stderr be a terminal, so that there is a progress bar, whose output is thrown away."""
    ours, theirs = pty.openpty()
    stderr = sys.stderr
    with os.fdopen(theirs, "w") as sys.stderr:
        reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL)
        os.close(ours)
        try:
            yield
        finally:
            sys.stderr = stderr
    reader.wait()


def prepared_data(data_dir: Path, options: dict[str, Any], seed: int) -> MNISTDataModule:
    """Return the data module of a config, set up for `fit`."""
    data = MNISTDataModule(**options | {"data_dir": str(data_dir), "seed": seed})
    data.prepare_data()
    data.setup("fit")
    return data
