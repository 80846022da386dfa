"""TableClassifier: a Classifier whose network is an MLP, for the rows of a table."""

from functools import partial
from typing import Any

from mnist_lightning.models.mlp import MLP
from mnist_lightning.training.classifier import Classifier


class TableClassifier(Classifier):
    """Train an MLP on the rows of a table with cross-entropy.

    Args:
        hidden: Width of each hidden layer, at least 1; an empty list makes it logistic regression.
        dropout: Probability of zeroing a feature after each hidden layer, in [0, 1).
        **kwargs: Arguments of `Classifier`; `in_features` is required.

    Raises:
        ConfigError: If an argument is out of range.
    """

    def __init__(self, hidden: tuple[int, ...] = (64, 64), dropout: float = 0.0, **kwargs: Any) -> None:
        if kwargs.get("network") is None:
            kwargs["network"] = partial(MLP, hidden=hidden, dropout=dropout)
        super().__init__(**kwargs)
