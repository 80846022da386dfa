"""Small folders of images for the tests: shapes in random colours, of many sizes and formats."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from mnist_lightning import PictureFolderDataModule

CLASSES = ("circle", "square", "triangle")
SUFFIXES = ("png", "bmp", "webp")


def write_shapes(root: Path, count: int, seed: int = 0) -> Path:
    """Write `count` images of each shape into a folder of its name: `circle/0.png`, `circle/1.bmp`, …"""
    random = np.random.default_rng(seed)
    for shape in CLASSES:
        (root / shape).mkdir(parents=True)
        for number in range(count):
            image = draw_shape(shape, random)
            image.save(root / shape / f"{number}.{SUFFIXES[number % 3]}", lossless=True)
    return root


def draw_shape(shape: str, random: np.random.Generator) -> Image.Image:
    """Return a bright shape on a dark, noisy ground."""
    width, height = (int(side) for side in random.integers(40, 90, 2))
    image = Image.fromarray(random.integers(0, 90, (height, width, 3), dtype=np.uint8))
    radius = min(width, height) * 3 // 8
    x, y = width // 2, height // 2
    red, green, blue = (int(value) for value in random.integers(150, 255, 3))
    draw, box = ImageDraw.Draw(image), (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        draw.ellipse(box, fill=(red, green, blue))
    elif shape == "square":
        draw.rectangle(box, fill=(red, green, blue))
    else:
        corners = [(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)]
        draw.polygon(corners, fill=(red, green, blue))
    return image


def write_image(path: Path, seed: int, mode: str = "RGB", size: tuple[int, int] = (12, 12)) -> Path:
    """Write an image of noise that depends on the seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def ready(folder: Path, stage: str = "fit", **options: object) -> PictureFolderDataModule:
    """Return a data module that is set up, its decoded images beside the folder."""
    defaults = {"data_dir": str(folder.parent / "data")}
    data = PictureFolderDataModule(str(folder), **defaults | options)  # type: ignore[arg-type]
    data.prepare_data()
    data.setup(stage)
    return data


def write_classes(root: Path, count: int, classes: tuple[str, ...] = ("a", "b"), first_seed: int = 0) -> Path:
    """Write `count` images of noise for each class."""
    for index, name in enumerate(classes):
        for number in range(count):
            write_image(root / name / f"{number}.png", first_seed + index * count + number)
    return root
