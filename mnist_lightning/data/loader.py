"""Whole batches from memory: a torch DataLoader whose dataset makes a batch at once.

There are no worker processes and no Python code per sample: a batch is one gather. `data/sampler.py` has the order.
"""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader

from mnist_lightning.data.sampler import FileOrderSampler, OrderSampler, ShuffledSampler
from mnist_lightning.data.samples import Batch, RowDataset


class BatchLoader(DataLoader[Batch]):
    """Yield batches of normalised images and their labels, or of a table's rows.

    A batch of images is float32 (B, C, H, W) in channels_last layout, a batch of rows float32 (B, F); labels are int64
    (B,). The last batch is shorter if the batch size does not divide the number of samples. Each pass is an epoch, with
    an order and an augmentation of its own, unless a sampler without epochs replaces the loader's own.

    Args:
        dataset: The samples.
        batch_size: Samples in a batch, at least 1.
        seed: Seed of the order and of the augmentation, at least 0; None keeps the order of the file.
        group: This process among those that share the work, as an `OrderSampler` takes it.
        device: Where batches are made: the samples are moved there once, on first use.
        **kwargs: Arguments of a `DataLoader` with which Lightning replaces the sampler.
    """

    dataset: RowDataset

    def __init__(
        self,
        dataset: RowDataset,
        batch_size: int = 1,
        *,
        seed: int | None = None,
        group: dict[str, int] | None = None,
        device: torch.device | str = "cpu",
        **kwargs: Any,
    ) -> None:
        # Lightning's advice to use worker processes would make this loader slower.
        warnings.filterwarnings("ignore", message="The '.*_dataloader' does not have many workers")
        if kwargs.keys().isdisjoint({"sampler", "batch_sampler"}):
            in_order = FileOrderSampler(dataset, batch_size, group)
            kwargs["sampler"] = in_order if seed is None else ShuffledSampler(dataset, group, seed)
        super().__init__(dataset, batch_size, **kwargs)
        self.seed, self.group, self.device = seed, group, torch.device(device)
        self._first_batch = 0  # where a resumed epoch starts
        self._served = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]  # torch's returns an iterator with worker processes
        # A generator reads the epoch at its first `next`: Lightning makes the iterator before it sets the epoch.
        self.dataset.to(self.device)
        first, self._first_batch = self._first_batch, 0
        for number, positions in enumerate(self._batches_of_positions()):
            if number >= first:
                self._served = number + 1
                yield self._batch(number, positions)
        self._served = 0

    def first_batch(self) -> Batch:
        """Return the first batch of the current epoch, wherever a resumed epoch starts."""
        return self._batch(0, self.positions()[: self.batch_size].to(self.device))

    def positions(self) -> Tensor:
        """Return int64 (M,), the positions in the dataset that this rank serves in the current epoch, in order."""
        return self.sampler.order() if isinstance(self.sampler, OrderSampler) else torch.tensor([*self.sampler])

    def order(self) -> Tensor:
        """Return the same as `positions`, as indices of samples in their file."""
        return self.dataset.indices.cpu()[self.positions()]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, counted from 0; a Trainer calls this on the sampler before each."""
        if isinstance(self.sampler, OrderSampler):
            self.sampler.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were served; 0 between epochs."""
        return {"served": self._served % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume after the batches that the state counts as served."""
        self._first_batch = state["served"]

    def _batches_of_positions(self) -> Iterable[Tensor]:
        if isinstance(self.sampler, OrderSampler) and type(self.batch_sampler) is BatchSampler:
            order = self.sampler.next_pass().to(self.device)
            return torch.split(order, self.batch_size or 1) if len(order) else ()
        return (torch.tensor(batch, device=self.device) for batch in self.batch_sampler or ())

    def _batch(self, number: int, positions: Tensor) -> Batch:
        return self.dataset.batch(positions, self._generator(number) if self.dataset.augmentation else None)

    def _generator(self, batch: int) -> torch.Generator:
        epoch, rank = (getattr(self.sampler, name, 0) for name in ("epoch", "rank"))
        sequence = np.random.SeedSequence([self.seed or 0, epoch, batch, rank])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0]))
