"""What the C library does with memory that a training step gives back."""

import ctypes

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to the largest amount it ever used at once.

    glibc returns large blocks to the system as they are freed, and every step gets them back page by page, filled with
    zeros: thousands of page faults a step, a third of its time on a virtual machine. Other C libraries are left alone.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # no glibc
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_INT)
    mallopt(M_TRIM_THRESHOLD, LARGEST_INT)
