"""Whole batches from memory, in an order that is a pure function of (seed, epoch).

There are no worker processes and no Python code per sample: a batch is one gather. Knows nothing of files or splits. It
meets the three expectations of Lightning's loops: a length, `set_epoch` found through `sampler`, and a state to resume
from.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.data.augmentation import Augmentation, augment
from mnist_lightning.data.pixels import as_images, normalise

Batch = tuple[Tensor, Tensor]


class BatchLoader:
    """Yield normalised batches of images and their labels.

    A batch is float32 (B, C, H, W) in channels_last layout, (pixel / 255 - mean) / std, and int64 (B,). The last batch
    is shorter if the batch size does not divide the number of images. In a process group each rank serves other images:
    in file order every image is served once, without padding; shuffled, each rank serves the same number of images.

    Args:
        images: uint8 (N, H, W) or, in colour, (N, H, W, 3): the pixels of all images in the file; never copied.
        labels: int64 (N,).
        indices: int64 (M,), the images to serve, in order; None serves all.
        batch_size: Images in a batch, at least 1.
        mean: Mean pixel of the training images, in [0, 1].
        std: Standard deviation of the pixels of the training images, positive.
        shuffle_seed: Seed of the order and of the augmentation, at least 0; None keeps the order of `indices`.
        augmentation: How far each image is distorted, drawn anew in each epoch; None leaves images unchanged.
        rank: Rank of this process, in [0, world_size).
        world_size: Number of processes that share the work.
        device: Where batches are made: the images are moved there once, on first use.
    """

    batch_sampler = None  # Lightning asks for it wherever there is a `sampler`

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        indices: Tensor | None = None,
        batch_size: int,
        mean: float = 0.0,
        std: float = 1.0,
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
        self._first_batch = 0  # where a resumed epoch starts
        self._served = 0

    def __len__(self) -> int:
        return -(-len(self._rank_indices()) // self.batch_size)

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
        """Return the first batch of the current epoch, wherever a resumed epoch starts."""
        return self._batch(0, self.order().to(self.device))

    def order(self) -> Tensor:
        """Return int64 (M / world_size,), the images that this rank serves in the current epoch, in order."""
        return self._rank_indices(shuffled=True)

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
        """Resume after the batches that the state counts as served."""
        self._first_batch = state["served"]

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

    def _rank_indices(self, *, shuffled: bool = False) -> Tensor:
        indices, count = self.indices, len(self.indices)
        if self.shuffle_seed is None:
            # Whole batches, so that each is computed as a single process would compute it.
            starts = range(self.rank * self.batch_size, count, self.world_size * self.batch_size)
            return torch.cat([indices[:0], *(indices[start : start + self.batch_size] for start in starts)])
        if shuffled:
            permutation = np.random.default_rng([self.shuffle_seed, self.epoch]).permutation(count)
            indices = indices[torch.from_numpy(permutation)]
        # The same number on each rank, or the gradient exchange of the last batch would wait for ever.
        return indices[: count - count % self.world_size][self.rank :: self.world_size]
