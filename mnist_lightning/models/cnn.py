"""SimpleCNN, the network of the lab: two convolutions and two linear layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.models.dropout import Dropout


class SimpleCNN(nn.Module):
    """Classify 28×28 grey images; for 10 classes 421,642 parameters.

    Layer for layer the lab's network, so weights go back and forth by name (`conv1`, `conv2`, `fc1`, `fc2`).

    Args:
        conv_dropout: Probability of zeroing a feature after the convolutions, in [0, 1).
        fc_dropout: Probability of zeroing a feature before the last layer, in [0, 1).
        num_classes: Raw logits an image, at least 2.

    Raises:
        ValueError: If a probability is outside [0, 1), or there are too few classes.
    """

    def __init__(self, conv_dropout: float = 0.25, fc_dropout: float = 0.5, num_classes: int = 10) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        for name, probability in (("conv_dropout", conv_dropout), ("fc_dropout", fc_dropout)):
            if not 0 <= probability < 1:
                raise ValueError(f"{name} must be in [0, 1), got {probability}")
        self.conv1 = nn.Conv2d(1, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * 7 * 7, 128)
        self.fc2 = nn.Linear(128, num_classes)
        self.conv_dropout = Dropout(conv_dropout)
        self.fc_dropout = Dropout(fc_dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for float images (B, 1, 28, 28), normalised as the data module does."""
        # Pooling commutes with ReLU (both keep order), and ReLU then has a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (B, 32, 14, 14)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 7, 7)
        x = self.conv_dropout(x.flatten(start_dim=1))  # (B, 3136), channel by channel whatever the memory layout
        x = self.fc_dropout(F.relu(self.fc1(x)))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
