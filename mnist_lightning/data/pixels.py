"""From pixels to the inputs of a network, and back."""

import torch
from torch import Tensor


def as_images(pixels: Tensor) -> Tensor:
    """Return float32 (B, C, H, W), in [0, 255] and channels_last, for uint8 (B, H, W) or (B, H, W, 3)."""
    return (pixels if pixels.ndim == 4 else pixels.unsqueeze(-1)).permute(0, 3, 1, 2).to(torch.float32)


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """Return float32 (B, C, H, W), channels_last, (pixel / 255 - mean) / std; changes its argument in place."""
    # `.contiguous(memory_format=…)` does nothing when there is one channel; only `.to` sets the strides.
    return images.sub_(255 * mean).div_(255 * std).to(memory_format=torch.channels_last)


def denormalise(images: Tensor, mean: float, std: float) -> Tensor:
    """Return the pixels uint8 (B, H, W) of normalised images (B, 1, H, W), or (B, H, W, 3) of (B, 3, H, W)."""
    pixels = images.squeeze(1) if images.shape[1] == 1 else images.permute(0, 2, 3, 1)
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
