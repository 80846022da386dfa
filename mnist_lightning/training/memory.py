"""Settings of the process that make training steps faster: denormals, fresh and freed memory."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils import deterministic

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep freed memory in this process, up to the largest amount it ever used at once.

    glibc returns large freed blocks to the system, and each step gets them back page by page, filled with zeros:
    thousands of page faults a step, a third of its time on a virtual machine. Other C libraries are not changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # not glibc
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_INT)
    mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


@contextmanager
def fast_memory() -> Iterator[None]:
    """Flush denormals to zero and leave fresh memory as it is, until the context ends; keep freed memory for good.

    Gradients of a trained network are below 1e-38, where Intel's CPUs are slow; threads inherit the setting, so it is
    made before torch starts them. Deterministic mode fills fresh memory to expose bugs, which costs time at every step.
    """
    keep_freed_memory()
    fills = deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]  # made at import by torch
    deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    flushes = not torch.full((), 1e-40).mul(1)  # torch does not tell otherwise
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushes)
        deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
