"""MNIST's digits for tests, and images of them as a person would take them."""

import gzip
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_lightning.data.mnist.registry import MNIST

PAPER, INK = 255, 0


def mnist_images(count: int, file: int = 0) -> NDArray[np.uint8]:
    """Return the first images (N, 28, 28) of the bundled training file, or with `file=2` of the test file."""
    assert MNIST.bundled
    with gzip.open(MNIST.bundled / f"{MNIST.files[file].name}.gz") as packed:
        content = packed.read(16 + count * 784)
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, 28, 28)


def mnist_labels(count: int, file: int = 1) -> NDArray[np.uint8]:
    """Return the first labels (N,) of the bundled training file, or with `file=3` of the test file."""
    assert MNIST.bundled
    with gzip.open(MNIST.bundled / f"{MNIST.files[file].name}.gz") as packed:
        return np.frombuffer(packed.read(8 + count), np.uint8, offset=8)


def on_paper(image: NDArray[np.uint8], *, size: int = 168, margin: int = 40) -> NDArray[np.uint8]:
    """Return a digit enlarged to sharp strokes, dark on white, with a margin on all sides."""
    enlarged = Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
    strokes = np.clip((np.asarray(enlarged, np.float32) - 128) * 4 + 128, 0, 255).astype(np.uint8)
    return 255 - np.pad(strokes, margin)


def encoded(image: Image.Image, format: str, **options: Any) -> Image.Image:
    """Return an image after a round trip through a file format."""
    file = BytesIO()
    image.save(file, format, **options)
    decoded = Image.open(file)
    decoded.load()
    return decoded
