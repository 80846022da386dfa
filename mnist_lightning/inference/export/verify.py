"""Comparing an exported network with the checkpoint it was made from, image by image."""

import itertools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mnist_lightning.console import printable
from mnist_lightning.data.image_folder.index import read_class_folders
from mnist_lightning.data.image_schema import SIDE, ImageSchema
from mnist_lightning.data.mnist import fetch, idx
from mnist_lightning.data.mnist.registry import MNIST, DatasetSource
from mnist_lightning.errors import DatasetError
from mnist_lightning.images.letterbox import letterbox
from mnist_lightning.images.reader import read_image
from mnist_lightning.inference.pixel_network import Runtime

BATCH_SIZE = 500
MOST_PICTURES = 500  # decoded of a folder

# Runtimes add in different orders. The longest sum of MNIST's network has 3,136 products; in float32 reordering it
# costs about sqrt(3136) * 2**-24 = 3.3e-6 of its size, and there are four such layers. A wrong constant costs far more.
RELATIVE_BOUND, PRODUCTS = 1e-5, 3136


@dataclass(frozen=True)
class Comparison:
    """How two networks differ on the same images.

    Args:
        count: The number of images.
        other_labels: Images to which they give different labels.
        difference: The largest difference between two logits, or two probabilities.
        bound: The largest difference that rounding explains.
    """

    count: int
    other_labels: int
    difference: float
    bound: float

    @property
    def matches(self) -> bool:
        """Whether both compute the same."""
        return self.other_labels == 0 and self.difference <= self.bound


def compare(exported: Runtime, reference: Runtime, images: NDArray[np.uint8], products: int = PRODUCTS) -> Comparison:
    """Run both on the same images, in batches of several sizes.

    Args:
        exported: What is to be trusted.
        reference: What it must agree with.
        images: uint8 (N, H, W) or (N, H, W, 3), at least one.
        products: How many the longest sum of the network has.
    """
    batch = max(1, BATCH_SIZE * PRODUCTS // max(products, PRODUCTS))
    edges = sorted({0, 1, *range(batch, len(images), batch), len(images)})  # the first batch is one image
    other_labels, difference, largest = 0, 0.0, 0.0
    # `disable=None` means: unless stderr is a terminal.
    for start, stop in itertools.pairwise(tqdm(edges, desc="comparing", unit="batch", leave=False, disable=None)):
        logits, probabilities = exported(images[start:stop])
        expected_logits, expected_probabilities = reference(images[start:stop])
        other_labels += int((logits.argmax(axis=1) != expected_logits.argmax(axis=1)).sum())
        differences = (logits - expected_logits, probabilities - expected_probabilities)
        # A maximum that meets a NaN stays NaN, and NaN is within no bound.
        difference = float(np.max([difference, *(np.abs(values).max() for values in differences)]))
        largest = max(largest, float(np.abs(expected_logits).max()))
    bound = RELATIVE_BOUND * max(1.0, (products / PRODUCTS) ** 0.5) * largest
    return Comparison(len(images), other_labels, difference, bound)


def read_test_images(dataset: DatasetSource, data_dir: Path | None) -> tuple[NDArray[np.uint8], str]:
    """Return the test images of a data set, uint8 (N, 28, 28), or MNIST's own, and where they come from.

    Args:
        dataset: What the network was trained on.
        data_dir: The folder of all data sets; where it has no test images, MNIST's bundled ones are taken.

    Raises:
        DatasetError: If its file of test images is damaged or of other images.
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


def read_pictures(schema: ImageSchema, folder: Path) -> tuple[NDArray[np.uint8], str]:
    """Return pictures in the form that a network takes, and where they come from.

    Args:
        schema: What the network takes.
        folder: The folder that it was trained on; where it is gone, noise is as good to compare on, if less to the
            point.

    Raises:
        DatasetError: If the folder cannot be read.
        ImageError: If a picture cannot.
    """
    if not os.path.isdir(folder):  # Path.is_dir raises for a name that is too long
        noise = np.random.default_rng(0).integers(0, 256, (MOST_PICTURES // 5, *schema.shape), np.uint8)
        return noise, f"noise, for {printable(str(folder))} is gone"
    files = read_class_folders(folder).files
    chosen = files[:: -(-len(files) // MOST_PICTURES)]
    images = [letterbox(read_image(folder / file), schema.height, schema.channels) for file in chosen]
    return np.stack(images), printable(str(folder))
