"""MLP, the network for tables: linear layers with ReLU and dropout between them."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.models.dropout import Dropout


class MLP(nn.Module):
    """Classify rows of numbers.

    Args:
        in_features: Numbers in a row, at least 1.
        num_classes: Classes, at least 2.
        hidden: Width of each hidden layer, at least 1; none makes it logistic regression.
        dropout: Probability of zeroing a feature after each hidden layer, in [0, 1).

    Raises:
        ValueError: If a number is out of range.
    """

    def __init__(
        self, in_features: int, num_classes: int, hidden: Sequence[int] = (64, 64), dropout: float = 0.0
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden, num_classes]
        for name, width, least in (
            ("in_features", in_features, 1),
            ("num_classes", num_classes, 2),
            *(("hidden", width, 1) for width in hidden),
        ):
            if width < least:
                raise ValueError(f"{name} must be at least {least}, got {width}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """Return logits (B, num_classes) for float rows (B, in_features), standardised as the data module does."""
        x = rows
        for layer in self.layers[:-1]:
            x = self.dropout(F.relu(layer(x)))  # (B, width of the layer)
        logits: Tensor = self.layers[-1](x)
        return logits
