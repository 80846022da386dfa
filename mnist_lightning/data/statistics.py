"""Mean and standard deviation of the pixels of a set of images. NumPy only."""

import numpy as np
from numpy.typing import NDArray

from mnist_lightning.errors import DatasetError

CHUNK = 1000  # images at a time, because bincount makes eight bytes of each pixel


def mean_and_std(images: NDArray[np.uint8], indices: NDArray[np.int64] | None = None) -> tuple[float, float]:
    """Return mean and standard deviation of the pixels of uint8 images (N, …), scaled to [0, 1], with four digits.

    All channels count together; of the images those at `indices`, int64 (M,), or all.
    """
    chosen = np.arange(len(images)) if indices is None else indices
    counts = np.zeros(256)
    for start in range(0, len(chosen), CHUNK):
        counts += np.bincount(images[chosen[start : start + CHUNK]].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = float(np.average(values, weights=counts))
    std = float(np.average((values - mean) ** 2, weights=counts)) ** 0.5
    if not round(std, 4):
        raise DatasetError(f"the training images are blank: all their pixels are {255 * mean:.0f}")
    return round(mean, 4), round(std, 4)
