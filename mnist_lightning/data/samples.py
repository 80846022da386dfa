"""The samples of one split: as they are in memory, and as a torch Dataset of what the network gets."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from mnist_lightning.data.augmentation import Augmentation, augment
from mnist_lightning.data.pixels import as_images, normalise

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Samples:
    """The samples of one split, among all samples of the file that holds them."""

    inputs: Tensor  # uint8 (N, H, W) or (N, H, W, 3), the pixels of images; float32 (N, F), the rows of a table
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64 (M,), the samples of the split, in file order


class RowDataset(Dataset[Batch]):
    """The rows of a split of a table: item i is float32 (F,) and its label, int64 ().

    They are never copied, but moved to the device that asks for batches.
    """

    augmentation: Augmentation | None = None

    def __init__(self, samples: Samples) -> None:
        self.inputs, self.labels, self.indices = samples.inputs, samples.labels, samples.indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> Batch:
        inputs, labels = self.batch(torch.arange(len(self))[position].reshape(1))
        return inputs[0], labels[0]

    def batch(self, positions: Tensor, generator: Generator | None = None) -> Batch:
        """Return the inputs (B, …) and labels int64 (B,) at positions of the split, int64 (B,).

        They are augmented by random draws of the generator; None leaves them unchanged.
        """
        chosen = self.indices[positions]
        return self._inputs(chosen, generator), self.labels.index_select(0, chosen)

    def to(self, device: torch.device) -> None:
        """Move the samples to a device."""
        self.inputs, self.labels, self.indices = (each.to(device) for each in (self.inputs, self.labels, self.indices))

    def _inputs(self, chosen: Tensor, generator: Generator | None) -> Tensor:
        return self.inputs.index_select(0, chosen)


class ImageDataset(RowDataset):
    """The images of a split: item i is float32 (C, H, W), (pixel / 255 - mean) / std, and its label, int64 ().

    A loader distorts each image as far as the augmentation says; items have no distortion.
    """

    def __init__(
        self, samples: Samples, mean: float = 0.0, std: float = 1.0, augmentation: Augmentation | None = None
    ) -> None:
        super().__init__(samples)
        self.mean, self.std, self.augmentation = mean, std, augmentation

    def _inputs(self, chosen: Tensor, generator: Generator | None) -> Tensor:
        images = as_images(self.inputs.index_select(0, chosen))
        if self.augmentation and generator:
            images = augment(images, self.augmentation, generator)
        return normalise(images, self.mean, self.std)
