"""SimpleCNN, the network of the lab: two convolutions and two linear layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.models.dropout import Dropout


class SimpleCNN(nn.Module):
    """Classify square images; for 28×28 grey ones in 10 classes it has 421,642 parameters.

    For these it is layer for layer the lab's network, so weights go back and forth by name (`conv1`, `conv2`, `fc1`,
    `fc2`).

    Args:
        conv_dropout: Probability of zeroing a feature after the convolutions, in [0, 1).
        fc_dropout: Probability of zeroing a feature before the last layer, in [0, 1).
        num_classes: Raw logits an image, at least 2.
        in_channels: 1 for grey images, 3 for colour.
        image_size: Pixels a side, at least 4, for both convolutions end in halving it.

    Raises:
        ValueError: If a probability is outside [0, 1), or another number below its least.
    """

    def __init__(
        self,
        conv_dropout: float = 0.25,
        fc_dropout: float = 0.5,
        num_classes: int = 10,
        in_channels: int = 1,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        for name, number, least in (
            ("num_classes", num_classes, 2),
            ("in_channels", in_channels, 1),
            ("image_size", image_size, 4),
        ):
            if number < least:
                raise ValueError(f"{name} must be at least {least}, got {number}")
        for name, probability in (("conv_dropout", conv_dropout), ("fc_dropout", fc_dropout)):
            if not 0 <= probability < 1:
                raise ValueError(f"{name} must be in [0, 1), got {probability}")
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * (image_size // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, num_classes)
        self.conv_dropout = Dropout(conv_dropout)
        self.fc_dropout = Dropout(fc_dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for float images (B, C, S, S), normalised as the data module does.

        The shapes in the code are those of MNIST's images (B, 1, 28, 28).
        """
        # Pooling commutes with ReLU (both keep order), and ReLU then has a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (B, 32, 14, 14)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 64, 7, 7)
        x = self.conv_dropout(x.flatten(start_dim=1))  # (B, 3136), channel by channel whatever the memory layout
        x = self.fc_dropout(F.relu(self.fc1(x)))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
