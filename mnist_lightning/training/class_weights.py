"""Weights of the classes in the training loss."""

import math
from typing import Any

import torch
from torch import Tensor

from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.errors import ConfigError


def check_class_weights(weights: Any, num_classes: int) -> None:
    """Raise a ConfigError unless the option is null, `balanced`, or a positive weight for each class."""
    if weights in (None, "balanced"):
        return
    if isinstance(weights, str) or len(weights) != num_classes or not all(0 < weight < math.inf for weight in weights):
        raise ConfigError(f"model.class_weights must be balanced or {num_classes} numbers above 0, got {weights!s:.80}")


def make_class_weights(weights: Any, num_classes: int, datamodule: object) -> Tensor | None:
    """Return the weights that the option means, float32 (num_classes,); None if all are equal.

    `balanced` counts the training labels: n / (num_classes · count), and 0 for a class without any.
    """
    if weights != "balanced":
        return None if weights is None else torch.tensor(weights)
    if not isinstance(datamodule, ClassificationDataModule):
        raise ConfigError("model.class_weights: only the labels of this project's data modules are known; pass a list")
    train = datamodule.samples("train")
    counts = torch.bincount(train.labels[train.indices], minlength=num_classes)
    return torch.where(counts > 0, counts.sum() / (num_classes * counts), 0.0)
