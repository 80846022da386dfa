"""How the C library handles memory that a training step frees."""

import ctypes

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
