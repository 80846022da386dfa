"""Augmentation: pure functions on batches of images; every random draw comes from the generator passed in."""

import functools
import math
from dataclasses import asdict, dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mnist_lightning.errors import ConfigError

LIMITS = {"rotation": 180.0, "scale": 1.0, "shear": 90.0, "shift": math.inf, "elastic": math.inf, "flip": 1.0}
ELASTIC_GRID = 4  # points a side


@dataclass(frozen=True)
class Augmentation:
    """How far each training image is distorted; all zeros leave it unchanged.

    Each amount is drawn anew for every image, uniformly between its negative and itself; `elastic` is drawn normally.
    An amount out of range is a ConfigError.
    """

    rotation: float = 0.0  # degrees, in [0, 180)
    scale: float = 0.0  # fraction by which height and width grow or shrink, each by its own draw, in [0, 1)
    shear: float = 0.0  # degrees, in [0, 90)
    shift: float = 0.0  # pixels in each direction
    elastic: float = 0.0  # standard deviation, in pixels, of the displacement of each point of a coarse grid
    flip: float = 0.0  # probability of mirroring an image left to right, in [0, 1)

    def __post_init__(self) -> None:
        for name, amount in asdict(self).items():
            if not 0 <= amount < LIMITS[name]:
                raise ConfigError(f"data.{name} must be in [0, {LIMITS[name]:g}), got {amount}; 0 switches it off")

    def __bool__(self) -> bool:
        return any(asdict(self).values())


def augment(images: Tensor, amounts: Augmentation, generator: Generator) -> Tensor:
    """Return float images (B, C, H, W), each rotated, scaled, sheared, shifted and bent by its own random draws.

    Pixels from beyond the edges are 0, as the background must be. Equal states of the generator, which draws on the
    CPU, give equal images.
    """
    size = len(images), 1, *images.shape[-2:]
    grid = F.affine_grid(_affine(size, amounts, generator), list(size), align_corners=False)
    if amounts.elastic:
        grid = grid + _elastic(size, amounts.elastic, generator)
    return F.grid_sample(images, grid.to(images.device), padding_mode="zeros", align_corners=False)


def _affine(size: tuple[int, ...], amounts: Augmentation, generator: Generator) -> Tensor:
    """Return (B, 2, 3), the maps from points of the result to points of the original, in units of half an image."""
    count, _, height, width = size
    draws = torch.rand(6, count, generator=generator) * 2 - 1
    angle, shear = draws[0] * math.radians(amounts.rotation), draws[1] * math.radians(amounts.shear)
    zoom_x, zoom_y = 1 + draws[2] * amounts.scale, 1 + draws[3] * amounts.scale
    if amounts.flip:
        zoom_x = torch.where(torch.rand(count, generator=generator) < amounts.flip, -zoom_x, zoom_x)
    shift_x, shift_y = draws[4] * (2 * amounts.shift / width), draws[5] * (2 * amounts.shift / height)
    cos, sin, slant = angle.cos(), angle.sin(), shear.tan()
    rows = [
        torch.stack([zoom_x * cos, zoom_x * (slant * cos - sin), shift_x], dim=1),
        torch.stack([zoom_y * sin, zoom_y * (slant * sin + cos), shift_y], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _elastic(size: tuple[int, ...], deviation: float, generator: Generator) -> Tensor:
    """Return (B, H, W, 2), a smooth random displacement in units of half an image.

    Random displacements on a coarse grid with cubic interpolation: Ronneberger et al. 2015, "U-Net",
    https://arxiv.org/abs/1505.04597, section 3.1, there with 3×3 points and 10 pixels for larger images.
    """
    count, _, height, width = size
    points = torch.randn(count, 2, ELASTIC_GRID, ELASTIC_GRID, generator=generator) * deviation
    field = _cubic(height) @ points @ _cubic(width).T  # (B, 2, H, W)
    return field.permute(0, 2, 3, 1) * torch.tensor([2 / width, 2 / height])


@functools.cache
def _cubic(size: int) -> Tensor:
    """Return (size, ELASTIC_GRID), the matrix that interpolates the points of the coarse grid along one side."""
    unit_points = torch.eye(ELASTIC_GRID)[None, None]
    return F.interpolate(unit_points, (size, ELASTIC_GRID), mode="bicubic", align_corners=True)[0, 0]
