"""The order in which a rank serves the samples of a split: torch samplers that Lightning and Fabric do not replace."""

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler, SequentialSampler


class OrderSampler(DistributedSampler[int]):
    """Positions in a split. Each pass over them starts the next epoch, unless `set_epoch` chose one before it.

    The group is `num_replicas` and `rank` among the processes that share the work, as a Trainer's
    `distributed_sampler_kwargs` gives them; None takes them from torch.distributed if it is initialised.
    """

    def __init__(self, dataset: Sized, group: dict[str, int] | None = None, seed: int = 0) -> None:
        dist = torch.distributed
        if group is None and not (dist.is_available() and dist.is_initialized()):
            group = {"num_replicas": 1, "rank": 0}
        super().__init__(dataset, **group or {}, seed=seed, drop_last=True)  # type: ignore[arg-type]  # only sized
        self.count = len(dataset)
        self._is_started = False

    def __iter__(self) -> Iterator[int]:
        return iter(self.next_pass().tolist())

    def next_pass(self) -> Tensor:
        """Start a pass; return its order as `order` does."""
        self.epoch += self._is_started
        self._is_started = True
        return self.order()

    def order(self) -> Tensor:
        """Return int64 (M,), the positions that this rank serves in the current epoch, in order."""
        raise NotImplementedError

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next pass, counted from 0; Lightning calls this before each."""
        self.epoch, self._is_started = epoch, False


class ShuffledSampler(OrderSampler):
    """All positions, shuffled by (seed, epoch); each rank serves others of them, and the same number.

    Otherwise the gradient exchange of the last batch would wait for ever.
    """

    def order(self) -> Tensor:
        """Return int64 (M // num_replicas,), the positions that this rank serves in the current epoch, in order."""
        permutation = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return torch.from_numpy(permutation)[: self.total_size][self.rank :: self.num_replicas]


class FileOrderSampler(OrderSampler, SequentialSampler):
    """All positions in ascending order, each served once, without padding: the ranks take batches in turn.

    Whole batches, so that each is computed as a single process would compute it. A rank may have a batch less than the
    first, or none; the length is that of the first, because all ranks of a Trainer must expect the same.
    """

    def __init__(self, dataset: Any, batch_size: int, group: dict[str, int] | None = None) -> None:
        super().__init__(dataset, group)
        self.data_source = dataset  # of a SequentialSampler
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self._positions(0))

    def order(self) -> Tensor:
        """Return int64 (M,), the positions that this rank serves, in order."""
        return self._positions(self.rank)

    def _positions(self, rank: int) -> Tensor:
        batches = torch.split(torch.arange(self.count), self.batch_size)
        return torch.cat([torch.arange(0), *batches[rank :: self.num_replicas]])
