"""What the speed benchmark compares: the lab's loop, a bare loop and `fit`, which alternate in short turns."""

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
from mnist_lightning.training.environment import native_precision, uses_kernels
from mnist_lightning.training.memory import keep_freed_memory
from mnist_lightning.training.optim.optimizer import make_optimizer

PEAK_SIZE = 1024  # rows and columns of the matrices whose product measures the machine
PREFETCHED = 6  # batches: two from each of two workers, and two to warm up


class LabLoop:
    """The lab's script, a few steps at a time.

    Args:
        lab: The script.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.batches = chain.from_iterable(repeat(lab.train_loader))

    def seconds(self, steps: int) -> float:
        """Return the time of some steps, after using up the batches that the loader's workers fetched between turns."""
        self.lab.train(islice(self.batches, PREFETCHED))
        start = time.perf_counter()
        self.lab.train(islice(self.batches, steps))
        return time.perf_counter() - start


class BareLoop:
    """This project's loader, network and arithmetic in a plain loop, without Lightning, logging or checkpoints.

    Args:
        data: The data module, set up for `fit`.
        hparams: Arguments of the `Classifier` whose network and optimizer are used.
    """

    def __init__(self, data: MNISTDataModule, hparams: dict[str, Any]) -> None:
        keep_freed_memory()
        torch.set_flush_denormal(True)
        self.train_loader, validation = data.train_dataloader(), data.val_dataloader()
        self.val_loaders = validation if isinstance(validation, list) else [validation]
        classifier = Classifier(**hparams)
        self.network = classifier.network.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(classifier.network.parameters(), classifier.hparams, fused=True)
        self.bfloat16 = native_precision(on_gpu=False) == "bf16-mixed" and not uses_kernels(self.network)
        self.epoch = -1
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.epoch += 1
        self.train_loader.set_epoch(self.epoch)
        self.batches = iter(self.train_loader)
        self.loss_sum, self.correct = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        self.images_seen, self.seconds = 0, 0.0

    def train(self, steps: int | None = None) -> None:
        """Train for some steps, or to the end of the epoch."""
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
        """Finish the epoch and validate; return training images per second and the seconds of both."""
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
        """Return the speed of a matrix product at the precision in use, at this moment, in FLOP per second."""
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        a, b = (torch.randn(PEAK_SIZE, PEAK_SIZE, dtype=dtype) for _ in range(2))
        products: list[float] = []
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            products.append(time.perf_counter() - start)
        return float(2 * PEAK_SIZE**3 / min(products))


class Turns(Callback):
    """Time each epoch of `fit`, and pause it for the other contenders every few steps and at its end.

    Args:
        others: Runs the other contenders; called with whether the epoch has ended. Its time is not counted.
        every: Training steps between two turns; None for a single turn at the end of the epoch.
    """

    def __init__(self, others: Callable[[bool], None], every: int | None = None) -> None:
        self.others, self.every = others, every
        self.epochs: list[dict[str, float]] = []
        self._start_s = self._trained_s = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the previous epoch, so that its checkpoint is included."""
        if trainer.current_epoch:
            self._end(trainer)
        self._start_s = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop the clock while the others run."""
        if self.every and batch_idx and batch_idx % self.every == 0:
            start = time.perf_counter()
            self.others(False)
            self._start_s += time.perf_counter() - start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the end of the training part."""
        self._trained_s = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the last epoch."""
        self._end(trainer)

    def _end(self, trainer: Trainer) -> None:
        now = time.perf_counter()
        trained = self._trained_s if self._trained_s > self._start_s else now
        loader = trainer.train_dataloader
        assert isinstance(loader, BatchLoader)
        images = min(len(loader.dataset), int(trainer.num_training_batches) * (loader.batch_size or 1))
        self.epochs.append({"images_per_s": images / (trained - self._start_s), "epoch_s": now - self._start_s})
        self.others(True)


class TimedCLI(TrainerCLI):
    """`fit` as typed on the command line, with an additional callback.

    Args:
        args: The command line.
        callback: The callback.
    """

    def __init__(self, args: list[str], callback: Callback) -> None:
        self.callback = callback
        super().__init__(args)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Insert the callback as the first one."""
        trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, self.callback)  # type: ignore[attr-defined]  # made by Lightning's connector
        return trainer


@contextmanager
def terminal() -> Iterator[None]:
    """Connect stderr to a pseudo-terminal and discard its output, so that the progress bar is drawn."""
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
