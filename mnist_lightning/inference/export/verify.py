"""Compare an exported network with the checkpoint on real images."""

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import read_class_folders
from mnist_lightning.data.image_schema import SIDE, ImageSchema
from mnist_lightning.data.mnist import fetch, idx
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource
from mnist_lightning.errors import DatasetError
from mnist_lightning.images.reader import letterbox, read_image
from mnist_lightning.inference.pixel_network import Runtime

BATCH_SIZE = 500
MAX_FOLDER_IMAGES = 500  # of a folder that are decoded

# Runtimes add in different orders. The longest sum of MNIST's network has 3,136 products. In float32, another order
# changes it by about sqrt(3136) * 2**-24 = 3.3e-6 of its size, and there are four such layers. A wrong constant changes
# far more.
RELATIVE_BOUND, PRODUCTS = 1e-5, 3136


@dataclass(frozen=True)
class Comparison:
    """The differences between two networks on the same images."""

    count: int  # images
    different_labels: int  # images for which they predict different labels
    difference: float  # the largest between two logits, or two probabilities
    bound: float  # the largest difference that rounding explains

    @property
    def matches(self) -> bool:
        """Whether both compute the same up to rounding."""
        return self.different_labels == 0 and self.difference <= self.bound


def compare(exported: Runtime, reference: Runtime, images: NDArray[np.uint8], products: int = PRODUCTS) -> Comparison:
    """Run both networks on images, uint8 (N, H, W) or (N, H, W, 3), at least one; the longest sum has `products`."""
    batch_size = max(1, BATCH_SIZE * PRODUCTS // max(products, PRODUCTS))
    edges = sorted({0, 1, *range(batch_size, len(images), batch_size), len(images)})  # the first batch is one image
    different_labels, difference, largest = 0, 0.0, 0.0
    for start, stop in itertools.pairwise(edges):
        logits, probabilities = exported(images[start:stop])
        expected_logits, expected_probabilities = reference(images[start:stop])
        different_labels += int((logits.argmax(axis=1) != expected_logits.argmax(axis=1)).sum())
        differences = (logits - expected_logits, probabilities - expected_probabilities)
        # NumPy's maximum keeps NaN, which is within no bound.
        difference = float(np.max([difference, *(np.abs(values).max() for values in differences)]))
        largest = max(largest, float(np.abs(expected_logits).max()))
    bound = RELATIVE_BOUND * max(1.0, (products / PRODUCTS) ** 0.5) * largest
    return Comparison(len(images), different_labels, difference, bound)


def longest_sum(network: nn.Module) -> int:
    """Return the number of products in the longest sum that a network computes: the most weights of one output."""
    return max(weight[0].numel() for weight in network.parameters() if weight.ndim > 1)


def read_test_images(dataset: DatasetSource, data_dir: Path | None) -> tuple[NDArray[np.uint8], str]:
    """Return the test images of a data set, uint8 (N, 28, 28), or else of the bundled MNIST, and where they come from.

    A corrupted file, or one whose images have another size, is a DatasetError.
    """
    name = dataset.files[2].name
    path = data_dir / dataset.folder / "raw" / name if data_dir else None
    if path is None or not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            bundled = fetch.fetch(MNIST, Path(folder), source="bundled")
            return np.array(idx.read_images(bundled / MNIST.files[2].name)), "the bundled MNIST"
    images = idx.read_images(path)
    if images.shape[1:] != (SIDE, SIDE):
        size = f"{images.shape[1]}×{images.shape[2]}"
        raise DatasetError(f"{path}: images of {size} pixels, the network takes {SIDE}×{SIDE}")
    return fetch.upright(dataset, images), str(path)


def read_folder_images(schema: ImageSchema, folder: Path) -> tuple[NDArray[np.uint8], str]:
    """Return images of the folder that a network was trained on, in the form it takes, and where they come from.

    If the folder no longer exists, these are random pixels.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises an error if a name is too long
        noise = np.random.default_rng(0).integers(0, 256, (MAX_FOLDER_IMAGES // 5, *schema.shape), np.uint8)
        return noise, f"random pixels, because {printable(str(folder))} no longer exists"
    files = read_class_folders(folder).files
    chosen = files[:: -(-len(files) // MAX_FOLDER_IMAGES)]
    images = [letterbox(read_image(folder / file), schema.height, schema.channels) for file in chosen]
    return np.stack(images), printable(str(folder))
