"""What a command changes in its process, put back when it returns control to a program that called it."""

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

LOGGERS = ("matplotlib", "optuna", "tensorboard")  # whose levels commands change
# Lightning's, while a command runs; the last two print their tables at this level.
LEVELS = {
    "lightning.pytorch": logging.WARNING,
    "lightning.fabric": logging.WARNING,
    "lightning.pytorch.profilers": logging.INFO,
    "lightning.pytorch.callbacks.model_summary": logging.INFO,
}


@contextmanager
def unchanged_process() -> Iterator[None]:
    """Put back environment variables, streams, warning filters, logging levels, signal handlers and torch's settings.

    The random state of torch, NumPy and Python is that of the command afterwards.
    """
    environment, streams = dict(os.environ), (sys.stdout, sys.stderr)
    error_handlers = [(stream, stream.errors) for stream in streams if isinstance(stream, io.TextIOWrapper)]
    levels = _levels(LOGGERS)
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
        _set_levels(levels)
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        if sys.modules.get("torch"):
            _set_torch(*torch_settings)


def make_streams_safe() -> None:
    """Make printing safe if the shell has closed a stream, or a file name cannot be encoded."""
    for name in ("stdout", "stderr"):  # None if the shell has closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def silenced_libraries() -> Iterator[None]:
    """Silence messages that do not concern the user: tips, missing hardware, deprecations in libraries.

    Enter it after Lightning is imported, which sets the level of its loggers to INFO. `unchanged_process` puts back the
    filters of warnings.
    """
    for message, category in (
        # Only a run that is resumed in place has checkpoints in its folder, and there they are expected.
        ("Checkpoint directory .* exists and is not empty", UserWarning),
        # A ModelCheckpoint of the user's that is evaluated, or resumed in a new run, has another folder than before.
        ("The dirpath has changed from", UserWarning),
        # A callback that averages weights is no part of an evaluation of the average.
        ("You're using the WeightAveraging callback", UserWarning),
        # torch's own pytree module, which Lightning 2.6 calls, uses a name that torch deprecates.
        (".*LeafSpec", FutureWarning),
    ):
        warnings.filterwarnings("ignore", message, category)
    before = _levels(LEVELS)
    _set_levels(LEVELS)
    try:
        yield
    finally:
        _set_levels(before)


def _levels(names: Iterable[str]) -> dict[str, int]:
    return {name: logging.getLogger(name).level for name in names}


def _set_levels(levels: Mapping[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _torch_settings() -> tuple[int, bool, int | None]:
    """Return how strictly torch is deterministic, whether it benchmarks, and its threads; as at import if it is not."""
    if not sys.modules.get("torch"):  # None where importing it is to fail
        return 0, False, None
    import torch

    return torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark, torch.get_num_threads()


def _set_torch(deterministic: int, benchmark: bool, threads: int | None) -> None:
    import torch

    torch.set_deterministic_debug_mode(deterministic)
    torch.backends.cudnn.benchmark = benchmark
    if threads not in (None, torch.get_num_threads()):
        torch.set_num_threads(threads)
