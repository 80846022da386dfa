"""SimpleCNN, the network of the lab: two convolutions and two linear layers."""

from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.errors import require_at_least
from mnist_lightning.models.dropout import Dropout, require_dropout
from mnist_lightning.models.kernels.conv_pool_relu import conv_pool_relu


class SimpleCNN(nn.Module):
    """Classify square images.

    For 28×28 grey images in 10 classes it has 421,642 parameters. Its layers are then those of the lab's network, so
    weights can be exchanged by name (`conv1`, `conv2`, `fc1`, `fc2`).

    Args:
        conv_dropout: Probability of zeroing a feature after the convolutions, in [0, 1).
        fc_dropout: Probability of zeroing a feature before the last layer, in [0, 1).
        num_classes: Number of classes, at least 2.
        in_channels: Channels of an image: 1 for grey, 3 for RGB.
        image_size: Height and width of an image in pixels, at least 4, because it is halved twice.

    Raises:
        ValueError: If an argument is out of range.
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
        require_dropout("conv_dropout", conv_dropout)
        require_dropout("fc_dropout", fc_dropout)
        require_at_least(2, "num_classes", num_classes)
        require_at_least(1, "in_channels", in_channels)
        require_at_least(4, "image_size", image_size)
        self.conv1 = nn.Conv2d(in_channels, 32, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, kernel_size=3, padding=1)
        self.fc1 = nn.Linear(64 * (image_size // 4) ** 2, 128)
        self.fc2 = nn.Linear(128, num_classes)
        self.conv_dropout = Dropout(conv_dropout)
        self.fc_dropout = Dropout(fc_dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, num_classes) for normalised float images (B, in_channels, image_size, image_size).

        The shapes in the comments are those for MNIST's images (B, 1, 28, 28).
        """
        # A block is relu(max_pool2d(conv(x), 2)), in one kernel where there is one.
        x = conv_pool_relu(images, self.conv1)  # (B, 32, 14, 14)
        x = conv_pool_relu(x, self.conv2)  # (B, 64, 7, 7)
        x = self.conv_dropout(x.flatten(start_dim=1))  # (B, 3136), channel by channel in any memory format
        x = self.fc_dropout(F.relu(self.fc1(x)))  # (B, 128)
        logits: Tensor = self.fc2(x)  # (B, num_classes)
        return logits
