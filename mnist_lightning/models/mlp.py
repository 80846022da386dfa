"""MLP, the network for tables: linear layers with ReLU and dropout between them."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.errors import require_at_least
from mnist_lightning.models.dropout import Dropout, require_dropout


class MLP(nn.Module):
    """Classify rows of numbers.

    Args:
        in_features: Numbers in a row, at least 1.
        num_classes: Number of classes, at least 2.
        hidden: Width of each hidden layer, at least 1; an empty sequence makes the network a logistic regression.
        dropout: Probability of zeroing a feature after each hidden layer, in [0, 1).

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self, in_features: int, num_classes: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        require_at_least(1, "in_features", in_features)
        require_at_least(2, "num_classes", num_classes)
        for width in hidden:
            require_at_least(1, "hidden", width)
        require_dropout("dropout", dropout)
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise([in_features, *hidden, num_classes]))
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (B, num_classes) for standardised float rows (B, in_features)."""
        x = rows
        for layer in self.layers[:-1]:
            x = self.dropout(F.relu(layer(x)))  # (B, width of the layer)
        logits: Tensor = self.layers[-1](x)
        return logits
