"""Classifier: loss, accuracy, optimizer and schedule around SimpleCNN."""

from dataclasses import asdict
from inspect import signature
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_lightning.data.loader import Batch
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metrics import LossAndAccuracy, Score
from mnist_lightning.models.cnn import SimpleCNN
from mnist_lightning.training.callbacks.weight_averaging import WeightAveraging
from mnist_lightning.training.distributed import gathered, settle_gradient_groups
from mnist_lightning.training.environment import environment
from mnist_lightning.training.optim.muon import Muon
from mnist_lightning.training.optim.schedule import Schedule, lr_factor, total_steps

SUM_STATES = ("loss_sum", "correct", "total")


class Classifier(LightningModule):
    """Train SimpleCNN with cross-entropy.

    Args:
        lr: Learning rate, above 0: at the start with the schedule `plateau`, at its height with the others.
        optimizer: `adam`, or `muon`: as Adam, but with orthogonal steps for the weights between the first and the last
            layer.
        schedule: How the learning rate goes on. `plateau` cuts it when the validation loss stands still; `linear` and
            `cosine` let it rise over the share `warmup` of all steps and then fall to 0 with the last, along a line or
            half a cosine.
        warmup: Share of the steps over which `linear` and `cosine` rise, in [0, 1).
        beta2: Decay of Adam's mean of squared gradients, in [0, 1).
        weight_decay: Share of every weight, times the learning rate, that each step takes off (AdamW), at least 0.
        label_smoothing: Share of the target that is spread evenly over all classes in training, in [0, 1).
        ema_decay: Share that each step keeps of a running mean of the weights, in [0, 1). The mean is what is
            validated, saved as the network and scored; 0 keeps no mean.
        conv_dropout: Probability of zeroing a feature after the convolutions, in [0, 1).
        fc_dropout: Probability of zeroing a feature before the last layer, in [0, 1).
        plateau_factor: What a cut multiplies the learning rate by, in (0, 1).
        plateau_patience: Epochs without a lower validation loss before the next one brings a cut, at least 0.
        num_classes: Classes to tell apart, at least 2. On the command line the data say it, as the next two.
        in_channels: 1 for grey images, 3 for colour.
        image_size: Pixels a side of the square images, at least 4.
        seed: Seed of the dropout masks, at least 0. On the command line it is `seed_everything`.

    Raises:
        ConfigError: If a number is out of range.
    """

    network: Any  # a SimpleCNN, or what a subclass makes in its place
    plateau: ReduceLROnPlateau

    def __init__(
        self,
        lr: float = 1e-3,
        optimizer: Literal["adam", "muon"] = "adam",
        schedule: Schedule = "plateau",
        warmup: float = 0.0,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        ema_decay: float = 0.0,
        conv_dropout: float = 0.25,
        fc_dropout: float = 0.5,
        plateau_factor: float = 0.5,
        plateau_patience: int = 2,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < lr < float("inf"):
            raise ConfigError(f"model.lr must be above 0, got {lr}; 0.001 is usual")
        for name, share in (
            ("warmup", warmup),
            ("beta2", beta2),
            ("label_smoothing", label_smoothing),
            ("ema_decay", ema_decay),
        ):
            if not 0 <= share < 1:
                raise ConfigError(f"model.{name} must be in [0, 1), got {share}")
        if not 0 <= weight_decay < float("inf"):
            raise ConfigError(f"model.weight_decay must be at least 0, got {weight_decay}")
        if not 0 < plateau_factor < 1:
            raise ConfigError(f"model.plateau_factor must be in (0, 1), got {plateau_factor}; 0.5 is usual")
        if plateau_patience < 0:
            raise ConfigError(f"model.plateau_patience must be at least 0, got {plateau_patience}; 2 is usual")
        self.save_hyperparameters(*signature(type(self)).parameters)  # none that only a base class has
        self.lr, self.optimizer, self.schedule, self.warmup = lr, optimizer, schedule, warmup
        self.beta2, self.weight_decay = beta2, weight_decay
        self.label_smoothing, self.ema_decay = label_smoothing, ema_decay
        self.plateau_factor, self.plateau_patience = plateau_factor, plateau_patience
        self.num_classes, self.seed = num_classes, seed
        try:
            self.network = self.make_network()
        except ValueError as error:
            raise ConfigError(f"model.{error}") from error
        self.example_input_array: Tensor = self.make_example()
        self.train_tally, self.val_tally, self.test_tally = LossAndAccuracy(), LossAndAccuracy(), LossAndAccuracy()
        self.score: Score | None = None  # of the evaluation that ended last
        self._val_loss: float | None = None  # what the plateau schedule has not looked at yet
        self.metrics: dict[str, float] = {}  # of the weights as they were after step `_measured_at`
        self._measured_at = -1
        self._logged: list[dict[str, float]] = []  # the points of an unfinished epoch
        self._total_steps = 0  # of the run, known when training starts
        self._restored: dict[str, Any] = {}  # what a checkpoint holds of this module, until training starts

    def make_network(self) -> nn.Module:
        """Return the network that the hyper-parameters describe.

        Raises:
            ValueError: If one is out of range.
        """
        options = ("conv_dropout", "fc_dropout", "num_classes", "in_channels", "image_size")
        network = SimpleCNN(**{name: self.hparams[name] for name in options})
        return network.to(memory_format=torch.channels_last)

    def make_example(self) -> Tensor:
        """Return an input of the network, a batch of one."""
        size = self.hparams["image_size"]
        return torch.zeros(1, self.hparams["in_channels"], size, size)

    def setup(self, stage: str) -> None:
        """See that there are as many outputs as classes.

        Raises:
            ConfigError: If not.
        """
        datamodule = getattr(self.trainer, "datamodule", None)
        classes = len(datamodule.schema.class_names) if datamodule else self.num_classes
        if classes != self.num_classes:
            raise ConfigError(f"model.num_classes is {self.num_classes}, but the data has {classes} classes")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for normalised float images (B, C, S, S), for MNIST (B, 1, 28, 28)."""
        logits: Tensor = self.network(images)
        return logits

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Make dropout a function of (seed, step, process), and the learning rate one of the step."""
        seed = int(np.random.SeedSequence([self.seed, self.global_step, self.global_rank]).generate_state(1)[0])
        # Not torch.manual_seed: for a GPU that is not there it notes a stack trace, at more than a millisecond a step.
        (torch.cuda.manual_seed if self.device.type == "cuda" else torch.default_generator.manual_seed)(seed)
        if self.schedule != "plateau":
            progress = (self.global_step + 1) / (self._total_steps + 1)
            self._set_lr(self.lr * lr_factor(progress, schedule=self.schedule, warmup=self.warmup))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy () of a batch, against smoothed labels where that was asked for."""
        loss, _ = self._loss_and_logits(batch, self.train_tally, self.label_smoothing)
        return loss

    def on_train_epoch_end(self) -> None:
        """Report the epoch, then let the plateau schedule look at its validation loss."""
        lr = self._current_lr()
        self._report("train", self.train_tally.score(), lr=lr)
        self.train_tally.reset()
        self._logged.clear()
        if self._val_loss is not None and self.schedule == "plateau":
            self.plateau.step(self._val_loss)
            self._val_loss = None
            new_lr = self._current_lr()
            if new_lr < lr:
                cut = f"epoch {self.current_epoch}: no better val_loss, learning rate {lr:g} -> {new_lr:g}"
                self.print(cut)
                self._log_text("Learning rate/cut", cut)

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count a batch of validation images and return logits (B, num_classes), for callbacks that look at each."""
        _, logits = self._loss_and_logits(batch, self.val_tally)
        return logits

    def on_validation_epoch_end(self) -> None:
        """Report the validation images."""
        score = self.val_tally.score()
        self.val_tally.reset()
        if not self.trainer.sanity_checking:
            self._report("val", score)
            self._val_loss = score.loss

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Count a batch of test images and return its logits (B, num_classes)."""
        _, logits = self._loss_and_logits(batch, self.test_tally)
        return logits

    def on_test_epoch_end(self) -> None:
        """Report the test images."""
        self.score = self.test_tally.score()
        self.test_tally.reset()
        self._log_for_callbacks({"test_loss": self.score.loss, "test_acc": self.score.accuracy})

    def configure_optimizers(self) -> Adam:
        """Return the optimizer; the plateau schedule stays here, for Lightning's handling does not resume exactly."""
        # Lightning 2.6 refuses to clip gradients for a fused optimizer under mixed precision (mended after 2.6.6).
        optimizer = self.make_optimizer(fused=self.trainer.gradient_clip_val is None)
        self.plateau = ReduceLROnPlateau(
            optimizer, mode="min", factor=self.plateau_factor, patience=self.plateau_patience
        )
        return optimizer

    def make_optimizer(self, *, fused: bool) -> Adam:
        """Return the optimizer of the network's parameters, fused or not."""
        options: dict[str, Any] = {
            "lr": self.lr,
            "betas": (0.9, self.beta2),
            "weight_decay": self.weight_decay,
            "decoupled_weight_decay": True,
            "fused": fused,
        }
        if self.optimizer == "adam":
            return Adam(self.network.parameters(), **options)
        matrices = [parameter for parameter in self.network.parameters() if parameter.ndim > 1][1:-1]
        others = [parameter for parameter in self.network.parameters() if all(parameter is not m for m in matrices)]
        return Muon(matrices, others, **options)

    def configure_callbacks(self) -> list[Callback]:
        """Return the keeper of the running mean of the weights, for a training that wants one."""
        return [WeightAveraging(self.ema_decay)] if self.ema_decay and self.trainer.state.fn == "fit" else []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metrics of the weights saved, and what an unfinished epoch and the schedule have seen."""
        tally = self.train_tally
        checkpoint["metrics"] = self.metrics if self._measured_at == self.global_step else {}
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is not None:
            # All that using the network takes, besides its weights.
            checkpoint["inputs"] = asdict(datamodule.schema)
        checkpoint["classifier"] = {
            "plateau": self.plateau.state_dict(),
            "val_loss": self._val_loss,
            "logged": list(self._logged),
            "environment": environment(self.device, str(self.trainer.precision)),
            # (processes,), or () where there is one: each goes on with its own.
            "train_tally": {name: gathered(self.trainer, getattr(tally, name)) for name in SUM_STATES},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember what `on_train_start` restores: the optimizer is not there yet."""
        self._restored = checkpoint.get("classifier", {}) | {"lr": checkpoint["hyper_parameters"]["lr"]}

    def on_train_start(self) -> None:
        """Restore what `on_save_checkpoint` added; a learning rate that differs from the checkpoint's is obeyed."""
        self._total_steps = total_steps(self.trainer) if self.schedule != "plateau" else 0
        settle_gradient_groups(self.trainer, self.example_input_array.to(self.device))
        restored, self._restored = self._restored, {}
        if not restored:
            return
        if "plateau" in restored:
            self.plateau.load_state_dict(restored["plateau"])
            self.plateau.factor, self.plateau.patience = self.plateau_factor, self.plateau_patience
            self._val_loss = restored["val_loss"]
            for metrics in restored["logged"]:  # the logger dropped every point of the epoch that goes on
                self._log(metrics)
                self._logged.append(metrics)
            for name, shares in restored["train_tally"].items():
                # Of another number of processes only an epoch's end is gone on from, where all have counted nothing.
                if shares.numel() == self.trainer.world_size:
                    setattr(self.train_tally, name, shares.reshape(-1)[self.global_rank].to(self.device))
            now = environment(self.device, str(self.trainer.precision))
            for name, then in restored["environment"].items():
                if then != now[name]:
                    self.print(
                        f"{name}: {then} when saved, {now[name]} now: the bits may differ from an unbroken run's"
                    )
        if self.lr != restored["lr"]:
            self._set_lr(self.lr)

    def _loss_and_logits(
        self, batch: Batch, tally: LossAndAccuracy, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        tally.update(loss.detach(), logits.detach(), labels)
        return loss, logits

    def _current_lr(self) -> float:
        return float(self.trainer.optimizers[0].param_groups[0]["lr"])

    def _set_lr(self, lr: float) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = lr

    def _log(self, metrics: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.current_epoch)
            logger.save()  # on disk before the checkpoint that counts on it

    def _log_for_callbacks(self, metrics: dict[str, float], logger: bool | None = None) -> None:
        """Hand metrics to the callbacks that watch them, and to what `Trainer.validate` and `test` return."""
        # Every process has the same numbers; a maximum, unlike a mean, leaves their bits alone.
        self.log_dict(metrics, logger=logger, sync_dist=self.trainer.world_size > 1, reduce_fx="max")

    def _log_text(self, tag: str, text: str) -> None:
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text(tag, text, self.current_epoch)
                logger.save()

    def _report(self, split: str, score: Score, **others: float) -> None:
        self.score = score
        metrics = {f"{split}_loss": score.loss, f"{split}_acc": score.accuracy, **others}
        fits = self.trainer.state.fn == "fit"
        self._log_for_callbacks(metrics, logger=False if fits else None)
        if not fits:
            return
        # Written here and not by Lightning, which would do it only after the checkpoint of this epoch is on disk.
        self._log(metrics)
        self._logged.append(metrics)
        self.metrics = (self.metrics if self._measured_at == self.global_step else {}) | metrics
        self._measured_at = self.global_step
