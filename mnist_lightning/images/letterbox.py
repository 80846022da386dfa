"""Resize a whole image to a square, as networks that are trained on folders of images take it."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def letterbox(image: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """Return an image resized with its aspect ratio kept, and centred on black: uint8 (size, size), or (size, size, 3).

    An image that already has this size keeps its pixels. One channel is grey (Pillow's ITU-R 601 luma), three are RGB.
    """
    converted = image.convert("L" if channels == 1 else "RGB")
    # Pillow's bilinear filter antialiases when it shrinks an image, as torchvision's `Resize` does.
    return np.array(ImageOps.pad(converted, (size, size), Image.Resampling.BILINEAR, color=0))
