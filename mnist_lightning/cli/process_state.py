"""What a command changes in its process, put back when it returns control to a program that called it."""

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

LOGGERS = ("matplotlib", "optuna", "tensorboard")  # whose levels commands change; Lightning's: `silence_libraries`


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Put back environment variables, streams, warning filters, logging levels, signal handlers and torch's settings.

    The random state of torch, NumPy and Python is that of the command afterwards.
    """
    environment, streams = dict(os.environ), (sys.stdout, sys.stderr)
    error_handlers = [(stream, stream.errors) for stream in streams if isinstance(stream, io.TextIOWrapper)]
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()} if is_main else {}
    torch_settings = _torch_settings()
    try:
        with warnings.catch_warnings():
            yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        sys.stdout, sys.stderr = streams
        for stream, errors in error_handlers:
            with suppress(OSError, ValueError):  # it is closed, or its buffer cannot be written
                stream.reconfigure(errors=errors)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if torch_settings != _torch_settings():
            _set_torch(*torch_settings or (False, False, False, 0))


def _torch_settings() -> tuple[bool, bool, bool, int] | None:
    """Return whether torch is deterministic, only warns, benchmarks, and its threads; None if it is not imported."""
    if sys.modules.get("torch") is None:
        return None
    import torch

    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_num_threads(),
    )


def _set_torch(deterministic: bool, warn_only: bool, benchmark: bool, threads: int) -> None:
    import torch

    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.backends.cudnn.benchmark = benchmark
    if threads:
        torch.set_num_threads(threads)
