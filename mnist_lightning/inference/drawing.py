"""A drawing on the demo's page, prepared as MNIST's makers prepared their digits."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FITTED, SIDE = 20, 28


def prepare(ink: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return what the network sees of a drawing: uint8 (28, 28), all zero where nothing was drawn.

    The ink is cut out, scaled with anti-aliasing until its longer side has 20 pixels, and placed with its centre of
    mass in the centre (LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist/).

    Args:
        ink: uint8 (H, W), 0 paper, 255 full ink.
    """
    image = np.zeros((SIDE, SIDE), np.uint8)
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        return image
    digit = Image.fromarray(ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    scale = FITTED / max(digit.size)
    width, height = (max(1, round(scale * side)) for side in digit.size)
    fitted = np.asarray(digit.resize((width, height), Image.Resampling.BICUBIC))
    across, down = (np.average(np.arange(n), weights=fitted.sum(axis=axis)) for axis, n in ((0, width), (1, height)))
    left, top = round(SIDE / 2 - 0.5 - across), round(SIDE / 2 - 0.5 - down)
    left, top = min(max(left, 0), SIDE - width), min(max(top, 0), SIDE - height)
    image[top : top + height, left : left + width] = fitted
    return image
