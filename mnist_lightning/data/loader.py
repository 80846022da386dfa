"""Whole batches from memory, in an order that is a pure function of (seed, epoch).

No worker processes and no per-image Python: one gather a batch. Knows nothing of files, splits or Lightning's classes;
it keeps the three promises that Lightning's loops ask of a loader: a length, `set_epoch` reached through `sampler`,
and a state to resume from.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.data.augmentation import Augmentation, augment

Batch = tuple[Tensor, Tensor]


class BatchLoader:
    """Yield normalised batches of images and labels.

    A batch is float32 (B, C, H, W) in channels_last layout, (pixel / 255 - mean) / std, and int64 (B,). The last batch
    is short when the batch size does not divide the number of images. On several processes each serves its own share:
    every image once and no padding when in file order, equally many when shuffled.

    Args:
        images: uint8 (N, H, W) or, in colour, (N, H, W, 3), the pixels of the whole file; never copied.
        labels: int64 (N,).
        indices: int64 (M,), the images to serve, in order; None serves all.
        batch_size: Images a batch, at least 1.
        mean: Mean pixel of the training images, scaled to [0, 1].
        std: Standard deviation of the same, positive.
        shuffle_seed: Seed of the order, and of what augmentation draws, at least 0; None keeps the order of `indices`.
        augmentation: How far images are moved from what they were, anew in each epoch; None leaves them alone.
        rank: This process, in [0, world_size).
        world_size: How many processes share the work.
        device: Where batches are made: the images are moved there once, on first use.
    """

    batch_sampler = None  # Lightning asks for it where there is a `sampler`

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        indices: Tensor | None = None,
        batch_size: int,
        mean: float,
        std: float,
        shuffle_seed: int | None = None,
        augmentation: Augmentation | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.images, self.labels = images, labels
        self.indices = torch.arange(len(labels)) if indices is None else indices
        self.batch_size = batch_size
        self.mean, self.std = mean, std
        self.shuffle_seed = shuffle_seed
        self.augmentation = augmentation
        self.rank, self.world_size = rank, world_size
        self.device = torch.device(device)
        self.epoch = 0
        self._first_batch = 0  # where a resumed epoch goes on
        self._served = 0

    def __len__(self) -> int:
        return -(-len(self._share()) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator reads the epoch at its first `next`: Lightning makes the iterator before it sets the epoch.
        order = self.order().to(self.device)
        self.images, self.labels = self.images.to(self.device), self.labels.to(self.device)
        first, self._first_batch = self._first_batch, 0
        for number in range(first, len(self)):
            self._served = number + 1
            yield self._batch(number, order)
        self._served = 0

    def first_batch(self) -> Batch:
        """Return the batch that the present epoch starts with, also where a resumed epoch goes on after it."""
        return self._batch(0, self.order().to(self.device))

    def order(self) -> Tensor:
        """Return int64 (M / world_size,), the images this process serves in the present epoch, in order."""
        return self._share(shuffled=True)

    def _batch(self, number: int, order: Tensor) -> Batch:
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        return self._inputs(number, chosen), self.labels.index_select(0, chosen)

    def _inputs(self, number: int, chosen: Tensor) -> Tensor:
        images = as_images(self.images.index_select(0, chosen))
        if self.augmentation:
            images = augment(images, self.augmentation, self._generator(number))
        return normalise(images, self.mean, self.std)

    def _generator(self, batch: int) -> torch.Generator:
        sequence = np.random.SeedSequence([self.shuffle_seed or 0, self.epoch, batch, self.rank])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))

    def _share(self, *, shuffled: bool = False) -> Tensor:
        indices, count = self.indices, len(self.indices)
        if self.shuffle_seed is None:
            # Whole batches, so that each is computed as a single process would compute it.
            starts = range(self.rank * self.batch_size, count, self.world_size * self.batch_size)
            return torch.cat([indices[:0], *(indices[start : start + self.batch_size] for start in starts)])
        if shuffled:
            permutation = np.random.default_rng([self.shuffle_seed, self.epoch]).permutation(count)
            indices = indices[torch.from_numpy(permutation)]
        # Equally many on each process, or the gradient exchange of the last batch would wait for ever.
        return indices[: count - count % self.world_size][self.rank :: self.world_size]

    @property
    def sampler(self) -> "BatchLoader":
        """Return the loader itself: Lightning looks here for `set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order; Lightning calls this before each epoch, counted from 0."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were served; 0 between epochs."""
        return {"served": self._served % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after the batches that the state counts as served."""
        self._first_batch = state["served"]


class RowLoader(BatchLoader):
    """Yield batches of a table's rows and labels, float32 (B, F) and int64 (B,), in a `BatchLoader`'s order.

    Args:
        rows: float32 (N, F), as the network takes them.
        labels: int64 (N,).
        indices: int64 (M,), the rows to serve, in order; None serves all.
        batch_size: Rows a batch, at least 1.
        shuffle_seed: Seed of the order, at least 0; None keeps the order of `indices`.
        rank: This process, in [0, world_size).
        world_size: How many processes share the work.
        device: Where batches are made: the rows are moved there once, on first use.
    """

    def __init__(
        self,
        rows: Tensor,
        labels: Tensor,
        *,
        indices: Tensor | None = None,
        batch_size: int,
        shuffle_seed: int | None = None,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(
            rows,
            labels,
            indices=indices,
            batch_size=batch_size,
            mean=0.0,
            std=1.0,
            shuffle_seed=shuffle_seed,
            rank=rank,
            world_size=world_size,
            device=device,
        )

    def _inputs(self, number: int, chosen: Tensor) -> Tensor:
        return self.images.index_select(0, chosen)


def as_images(pixels: Tensor) -> Tensor:
    """Return float32 (B, C, H, W), in [0, 255] and channels_last, for uint8 (B, H, W) or (B, H, W, 3)."""
    return (pixels if pixels.ndim == 4 else pixels.unsqueeze(-1)).permute(0, 3, 1, 2).to(torch.float32)


def normalise(images: Tensor, mean: float, std: float) -> Tensor:
    """Return float32 (B, C, H, W), channels_last, (pixel / 255 - mean) / std; changes the images it is given."""
    # `.contiguous(memory_format=…)` does nothing when there is one channel; only `.to` sets the strides.
    return images.sub_(255 * mean).div_(255 * std).to(memory_format=torch.channels_last)


def denormalise(images: Tensor, mean: float, std: float) -> Tensor:
    """Return the pixels uint8 (B, H, W) of normalised images (B, 1, H, W), or (B, H, W, 3) of (B, 3, H, W)."""
    pixels = images.squeeze(1) if images.shape[1] == 1 else images.permute(0, 2, 3, 1)
    return ((pixels * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
