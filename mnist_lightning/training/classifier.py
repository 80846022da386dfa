"""Classifier: a network with its loss, metrics, optimizer and schedule; `ExactResume` makes resumption exact."""

from collections.abc import Callable
from typing import Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.data.samples import Batch
from mnist_lightning.evaluation.metric_collection import ClassificationMetrics, MetricOption, metric_paths
from mnist_lightning.models.class_path import class_path_of
from mnist_lightning.models.network import input_shape, make_network
from mnist_lightning.training.classifier_base import ClassifierBase, trainer_of
from mnist_lightning.training.optim.optimizer import check_options, make_optimizer
from mnist_lightning.training.optim.schedule import lr_scheduler_config


class Classifier(ClassifierBase):
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
        metrics: Metrics in addition to loss and accuracy: `macro_f1`, `macro_precision`, `balanced_accuracy`, `kappa`,
            `auroc`, `calibration_error`, or classes of torchmetrics, with arguments; a mapping gives names of your own.
            Each is logged as `train_`, `val_` and `test_` with its name, and can be monitored.
        class_weights: Weight of each class in the training loss, above 0: a list, or `balanced` for samples / (classes
            · samples of the class). The validation and test losses are not weighted.
        init_from: Checkpoint whose weights a new run starts from: `best`, `version_3/best` or a file, also one of plain
            weights. Layers whose shape differs, such as the last one for other classes, start anew.
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
        metrics: list[MetricOption] | dict[str, MetricOption] | None = None,
        class_weights: Literal["balanced"] | list[float] | None = None,
        init_from: str | None = None,
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
        self.save_hyperparameters(ignore=["network", "optimizer", "lr_scheduler", "metrics"])
        # Classes are kept as paths and arguments: plain values, from which a checkpoint is rebuilt.
        self.save_hyperparameters(
            {
                "network": None if network is None else class_path_of(network),
                "optimizer": optimizer if isinstance(optimizer, str) else class_path_of(optimizer),
                "lr_scheduler": lr_scheduler if isinstance(lr_scheduler, str) else class_path_of(lr_scheduler),
                "metrics": metric_paths(metrics or {}),
            }
        )
        check_options(self.hparams)
        self.network = network if isinstance(network, nn.Module) else make_network(self.hparams)
        self.example_input_array: Tensor = torch.zeros(1, *input_shape(self.hparams))
        metrics_of_a_split = ClassificationMetrics(self.hparams["metrics"], num_classes)
        self.train_metrics: ClassificationMetrics = metrics_of_a_split.clone(prefix="train_")
        self.val_metrics: ClassificationMetrics = metrics_of_a_split.clone(prefix="val_")
        self.test_metrics: ClassificationMetrics = metrics_of_a_split.clone(prefix="test_")

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for normalised float images (B, C, S, S), for MNIST (B, 1, 28, 28)."""
        logits: Tensor = self.network(images)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy () of a batch, against smoothed labels and with class weights if set."""
        images, labels = batch
        logits = self(images)
        smoothing = self.hparams["label_smoothing"]
        loss = F.cross_entropy(logits, labels, weight=self.class_weights, label_smoothing=smoothing)
        self.train_metrics.add(loss.detach(), logits.detach(), labels)
        every: int = getattr(trainer_of(self), "log_every_n_steps", 0)
        if every and (self.trainer.global_step + 1) % every == 0:
            self.log("train_loss_step", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the training metrics and the learning rate of the epoch."""
        self._log(self.train_metrics, lr=float(self.trainer.optimizers[0].param_groups[0]["lr"]))

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits (B, num_classes), for callbacks that look at each prediction."""
        return self._evaluate(batch, self.val_metrics)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics."""
        self._log(self.val_metrics)

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return logits (B, num_classes), for callbacks that look at each prediction."""
        return self._evaluate(batch, self.test_metrics)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log(self.test_metrics)

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return probabilities (B, num_classes) for a batch of images, with or without their labels."""
        images = batch if isinstance(batch, Tensor) else batch[0]
        return self(images).softmax(dim=1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimizer of the parameters that are not frozen, and the learning-rate schedule."""
        # Lightning 2.6 refuses to clip gradients for a fused optimizer under mixed precision (fixed after 2.6.6).
        trainer = trainer_of(self)  # None in Fabric and in plain loops
        fused = trainer is None or trainer.gradient_clip_val is None
        optimizer = make_optimizer(self.parameters(), self.hparams, fused=fused)
        lr_scheduler = lr_scheduler_config(optimizer, self.hparams, trainer)
        return optimizer if lr_scheduler is None else {"optimizer": optimizer, "lr_scheduler": lr_scheduler}

    def _evaluate(self, batch: Batch, metrics: ClassificationMetrics) -> Tensor:
        images, labels = batch
        logits: Tensor = self(images)
        metrics.add(F.cross_entropy(logits, labels), logits, labels)
        return logits

    def _log(self, metrics: ClassificationMetrics, **others: float) -> None:
        self.score, values = metrics.score()
        metrics.reset()
        # float64 keeps every digit. All ranks have the same values, and a maximum, unlike a mean, keeps their bits.
        exact = {name: torch.tensor(value, dtype=torch.float64) for name, value in (values | others).items()}
        self.log_dict(exact, sync_dist=self.trainer.world_size > 1, reduce_fx="max")
