"""TableClassifier: what trains a Classifier, around the network for tables."""

from typing import Literal

import torch
from torch import Tensor, nn

from mnist_lightning.models.mlp import MLP
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.optim.schedule import Schedule


class TableClassifier(Classifier):
    """Train an MLP on a table's rows with cross-entropy.

    Args:
        in_features: Numbers that a row becomes, at least 1. On the command line the table says it.
        num_classes: Classes, at least 2. On the command line the table says it.
        hidden: Width of each hidden layer, at least 1; an empty list makes it logistic regression.
        dropout: Probability of zeroing a feature after each hidden layer, in [0, 1).
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
        plateau_factor: What a cut multiplies the learning rate by, in (0, 1).
        plateau_patience: Epochs without a lower validation loss before the next one brings a cut, at least 0.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden: tuple[int, ...] = (64, 64),
        dropout: float = 0.0,
        lr: float = 1e-3,
        optimizer: Literal["adam", "muon"] = "adam",
        schedule: Schedule = "plateau",
        warmup: float = 0.0,
        beta2: float = 0.999,
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        ema_decay: float = 0.0,
        plateau_factor: float = 0.5,
        plateau_patience: int = 2,
    ) -> None:
        super().__init__(
            lr=lr,
            optimizer=optimizer,
            schedule=schedule,
            warmup=warmup,
            beta2=beta2,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            ema_decay=ema_decay,
            plateau_factor=plateau_factor,
            plateau_patience=plateau_patience,
            num_classes=num_classes,
        )

    def make_network(self) -> nn.Module:
        """Return the network that the hyper-parameters describe."""
        options = self.hparams
        return MLP(options["in_features"], options["num_classes"], options["hidden"], options["dropout"])

    def make_example(self) -> Tensor:
        """Return a row, in a batch of one."""
        return torch.zeros(1, self.hparams["in_features"])
