"""What the ranks of a distributed training agree on. Launching and communication are Lightning's."""

import os
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

# Set by torchrun, by Lightning's launcher, by a person who starts one process a machine, and by SLURM.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


def is_first() -> bool:
    """Return whether this process has rank 0 or is the only one; known before the process group exists."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def greatest(trainer: Trainer, numbers: list[int]) -> list[int]:
    """Return the elementwise maximum over all ranks; every rank must call this at the same point."""
    if trainer.world_size == 1:
        return numbers
    tensor = torch.tensor(numbers, device=trainer.strategy.root_device)
    maxima: list[int] = trainer.strategy.reduce(tensor, reduce_op="max").tolist()
    return maxima


def gathered(trainer: Trainer, value: Any) -> list[Any]:
    """Return what the ranks have, in their order; every rank must call this at the same point."""
    values = [value] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def leave_process_group() -> None:
    """End the threads of the process group, if this process is in one, before the interpreter ends.

    A thread of gloo that still releases tensors while the interpreter ends aborts the process, although the command has
    succeeded. Lightning (2.6) destroys the groups of NCCL only.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def settle_gradient_buckets(trainer: Trainer, inputs: Tensor) -> None:
    """Let DDP assign gradients to buckets now, by a backward pass whose gradients are discarded.

    DDP reassigns the buckets after the first backward pass of a process. Other buckets sum in another order, so the
    first step of a resumed run would differ in its last bits from the same step of an unbroken run.
    """
    model = trainer.strategy.model
    if isinstance(model, DistributedDataParallel):
        modes = {module: module.training for module in model.modules()}
        model.eval()  # running statistics must not change
        model(inputs).sum().backward()
        model.zero_grad()
        for module, mode in modes.items():
            module.training = mode
