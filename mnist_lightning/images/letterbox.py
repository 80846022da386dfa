"""A picture in the form that a network for folders of pictures takes: a square of a given size, grey or in colour.

Unlike `pictures`, it looks for no digit: the whole picture counts. No torch.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def letterbox(picture: Image.Image, size: int, channels: int) -> NDArray[np.uint8]:
    """Return a picture, resized with its proportions kept and centred on black.

    One that has the size already keeps its pixels.

    Args:
        picture: As `picture_files.flattened` returns it.
        size: Pixels a side.
        channels: 1 makes it grey, by the luma of ITU-R 601 as Pillow has it; 3 red, green and blue.

    Returns:
        uint8 (size, size), or (size, size, 3) in colour.
    """
    converted = picture.convert("L" if channels == 1 else "RGB")
    # Pillow's bilinear filter widens as it shrinks, so that every pixel counts; torchvision's `Resize` does the same.
    return np.array(ImageOps.pad(converted, (size, size), Image.Resampling.BILINEAR, color=0))
