"""Classifier: a network with its loss, metrics, optimizer and learning-rate schedule.

What makes a resumed run exact is in `callbacks/exact_resume.py`; nothing here depends on it.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.data.samples import Batch
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metrics import LossAndAccuracy, Score
from mnist_lightning.models.class_path import class_path_of
from mnist_lightning.models.network import make_network
from mnist_lightning.training.attachment import remove_objects, trainer_of
from mnist_lightning.training.callbacks.weight_averaging import EMAWeights
from mnist_lightning.training.optim.optimizer import check_options, make_optimizer
from mnist_lightning.training.optim.schedule import make_lr_scheduler


class Classifier(LightningModule):
    """Train a network with cross-entropy.

    Args:
        network: Class of the network, or a function that returns one, with arguments; null takes SimpleCNN. What the
            data determine (`num_classes`, `in_channels`, `image_size`, `in_features`) is passed to each argument of
            that name.
        lr: Learning rate, above 0: the initial one with the schedule `plateau`, the peak with `linear` and `cosine`.
        optimizer: `adam`; `muon`: Adam, but with orthogonalised updates for the weights between the first and the last
            layer; or the class of any optimizer, with arguments.
        lr_scheduler: `plateau` multiplies the learning rate by `plateau_factor` when the validation loss stops
            improving; `linear` and `cosine` warm up and then decay to 0 over all steps, along a line or half a cosine;
            or the class of any schedule, with arguments.
        lr_scheduler_interval: How often a schedule given as a class is stepped: after each `epoch` or each `step`.
        warmup: Fraction of the steps over which `linear` and `cosine` warm up, in [0, 1).
        beta2: Decay rate of the second-moment estimate of `adam` and `muon`, in [0, 1).
        weight_decay: Decoupled weight decay (AdamW) of `adam` and `muon`, at least 0.
        label_smoothing: Probability mass of the training target spread evenly over all classes, in [0, 1).
        ema_decay: Decay of an exponential moving average of the weights, in [0, 1); 0 keeps none. The average is what
            is validated, saved as the network and tested.
        conv_dropout: Probability of zeroing a feature after the convolutions of SimpleCNN, in [0, 1).
        fc_dropout: Probability of zeroing a feature before the last layer of SimpleCNN, in [0, 1).
        plateau_factor: Factor by which `plateau` multiplies the learning rate, in (0, 1).
        plateau_patience: Epochs without a lower validation loss that `plateau` tolerates before it reduces the learning
            rate, at least 0.
        num_classes: Number of classes, at least 2. On the command line the data determine it, and the next three.
        in_channels: 1 for grey images, 3 for colour.
        image_size: Height and width of the square images in pixels, at least 4.
        in_features: Numbers in a row of a table; null for images.

    Raises:
        ConfigError: If an argument is out of range, or a class cannot be used.
    """

    network: Any  # SimpleCNN by default
    ranks_may_idle = True  # metrics are reduced at the end of an epoch, also by a rank that had no batch

    def __init__(
        self,
        network: nn.Module | Callable[..., nn.Module] | None = None,
        lr: float = 1e-3,
        optimizer: Literal["adam", "muon"] | OptimizerCallable = "adam",
        lr_scheduler: Literal["plateau", "linear", "cosine"] | LRSchedulerCallable = "plateau",
        lr_scheduler_interval: Literal["epoch", "step"] = "epoch",
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
        in_features: int | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["network", "optimizer", "lr_scheduler"])
        # Classes are kept as paths and arguments: plain values, from which a checkpoint is rebuilt.
        self.save_hyperparameters(
            {
                "network": None if network is None else class_path_of(network),
                "optimizer": optimizer if isinstance(optimizer, str) else class_path_of(optimizer),
                "lr_scheduler": lr_scheduler if isinstance(lr_scheduler, str) else class_path_of(lr_scheduler),
            }
        )
        check_options(self.hparams)
        self.network = network if isinstance(network, nn.Module) else make_network(self.hparams)
        shape = (in_features,) if in_features else (in_channels, image_size, image_size)
        self.example_input_array: Tensor = torch.zeros(1, *shape)
        self.train_metric, self.val_metric, self.test_metric = (LossAndAccuracy() for _ in range(3))
        self.score: Score | None = None  # of the last evaluation that ended

    def setup(self, stage: str) -> None:
        """Check that the network has an output for each class of the data."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if not isinstance(datamodule, ClassificationDataModule):
            return
        if (classes := len(datamodule.schema.class_names)) != self.hparams["num_classes"]:
            raise ConfigError(f"model.num_classes is {self.hparams['num_classes']}, but the data has {classes} classes")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for normalised float images (B, C, S, S), for MNIST (B, 1, 28, 28)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy () of a batch, against smoothed labels if so configured."""
        loss, _ = self._loss_and_logits(batch, self.train_metric, self.hparams["label_smoothing"])
        every: int = getattr(trainer_of(self), "log_every_n_steps", 0)
        if every and (self.trainer.global_step + 1) % every == 0:
            self.log("train_loss_step", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the training loss, the accuracy and the learning rate of the epoch."""
        self._log_score("train", self.train_metric, lr=float(self.trainer.optimizers[0].param_groups[0]["lr"]))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits (B, num_classes), for callbacks that look at each prediction."""
        _, logits = self._loss_and_logits(batch, self.val_metric)
        return logits

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss and accuracy."""
        self._log_score("val", self.val_metric)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits (B, num_classes), for callbacks that look at each prediction."""
        _, logits = self._loss_and_logits(batch, self.test_metric)
        return logits

    def on_test_epoch_end(self) -> None:
        """Log the test loss and accuracy."""
        self._log_score("test", self.test_metric)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return probabilities (B, num_classes) for a batch of images, with or without their labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer and the learning-rate schedule, which Lightning steps."""
        # Lightning 2.6 refuses to clip gradients for a fused optimizer under mixed precision (fixed after 2.6.6).
        trainer = trainer_of(self)  # None in Fabric and in plain loops
        fused = trainer is None or trainer.gradient_clip_val is None
        optimizer = make_optimizer(self.network.parameters(), self.hparams, fused=fused)
        scheduler = make_lr_scheduler(optimizer, self.hparams, lambda: self.trainer.estimated_stepping_batches)
        if isinstance(scheduler, ReduceLROnPlateau):
            if trainer and not trainer.enable_validation:
                return optimizer
            monitor = getattr(scheduler, "monitor", "val_loss")  # Lightning's own ReduceLROnPlateau names one
            every = (trainer and trainer.check_val_every_n_epoch) or 1
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "monitor": monitor, "frequency": every, "strict": False},
            }
        interval = "step" if isinstance(scheduler, LambdaLR) else self.hparams["lr_scheduler_interval"]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the schema of the data, without which the weights cannot be used."""
        remove_objects(checkpoint)
        datamodule = getattr(trainer_of(self), "datamodule", None)
        if isinstance(datamodule, ClassificationDataModule):
            checkpoint["inputs"] = asdict(datamodule.schema)

    def configure_callbacks(self) -> list[Callback]:
        """Return the weight averaging that `ema_decay` asks for."""
        decay = self.hparams["ema_decay"]
        return [EMAWeights(decay)] if decay and self.trainer.state.fn == "fit" else []

    def _loss_and_logits(
        self, batch: Batch, metric: LossAndAccuracy, label_smoothing: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self(images)
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        metric.update(loss.detach(), logits.detach(), labels)
        return loss, logits

    def _log_score(self, split: str, metric: LossAndAccuracy, **others: float) -> None:
        self.score = metric.score()  # None if a subclass has a step of its own
        metric.reset()
        if self.score:
            others |= {f"{split}_loss": self.score.loss, f"{split}_acc": self.score.accuracy}
        # float64 keeps every digit. All ranks have the same values, and a maximum, unlike a mean, keeps their bits.
        exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in others.items()}
        self.log_dict(exact, sync_dist=self.trainer.world_size > 1, reduce_fx="max")
