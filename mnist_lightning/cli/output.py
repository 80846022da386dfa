"""What a command may print: streams that cannot fail, and no messages of libraries that do not concern the user."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def make_streams_safe() -> None:
    """Make printing safe if the shell has closed a stream, or a file name cannot be encoded."""
    for name in ("stdout", "stderr"):  # None if the shell has closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends
    for stream in (sys.stdout, sys.stderr):  # a file name that cannot be encoded must not end the program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def silenced_libraries() -> Iterator[None]:
    """Silence messages that do not concern the user: tips, missing hardware, deprecations in libraries.

    Enter it after Lightning is imported, which sets the level of its loggers to INFO. `unchanged_process` puts back the
    filters of warnings.
    """
    levels = {"lightning.pytorch": logging.WARNING, "lightning.fabric": logging.WARNING}
    for name in ("profilers", "callbacks.model_summary"):  # these print their tables there
        levels[f"lightning.pytorch.{name}"] = logging.INFO
    before = {name: logging.getLogger(name).level for name in levels}
    _set_levels(levels)
    # Only a run that is resumed in place has checkpoints in its folder, and there they are expected.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty", category=UserWarning)
    # A ModelCheckpoint of the user's that is evaluated, or resumed in a new run, has another folder than before.
    warnings.filterwarnings("ignore", message="The dirpath has changed from", category=UserWarning)
    # A callback that averages weights is no part of an evaluation of the average.
    warnings.filterwarnings("ignore", message="You're using the WeightAveraging callback", category=UserWarning)
    # torch's own pytree module, which Lightning 2.6 calls, uses a name that torch deprecates.
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
    try:
        yield
    finally:
        _set_levels(before)


def _set_levels(levels: Mapping[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
