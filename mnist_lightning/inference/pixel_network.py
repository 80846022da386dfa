"""PixelNetwork: a trained network from pixels to probabilities, including normalisation and softmax."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mnist_lightning.data.image_schema import MNIST_SCHEMA
from mnist_lightning.data.pixels import as_images, normalise

# From uint8 images (N, H, W) or, in colour, (N, H, W, 3) to float32 logits and probabilities (N, classes).
Runtime = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]


class PixelNetwork(nn.Module):
    """A trained network with its normalisation and its softmax, before which logits are divided by the temperature.

    Other programs need it in this form. Mean and std are those of an `ImageSchema`, and so is the shape of an image.
    """

    def __init__(
        self,
        network: nn.Module,
        mean: float,
        std: float,
        temperature: float = 1.0,
        shape: tuple[int, ...] = MNIST_SCHEMA.shape,
    ) -> None:
        super().__init__()
        self.network, self.mean, self.std, self.temperature = network, mean, std, temperature
        self.shape = shape

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 logits and probabilities (N, classes) for uint8 images (N, H, W) or (N, H, W, 3)."""
        logits = self.network(normalise(as_images(images), self.mean, self.std))
        return logits, (logits / self.temperature).softmax(dim=1)


def torch_runtime(network: nn.Module) -> Runtime:
    """Return a function that runs a network, which maps pixels to logits and probabilities, in torch."""

    def run(images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.inference_mode():
            logits, probabilities = network(torch.from_numpy(images))
        return logits.numpy(), probabilities.numpy()

    return run
