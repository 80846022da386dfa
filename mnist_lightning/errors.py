"""What can go wrong for the user, each with the exit code that tells it.

The command line turns any of these into one line on stderr and the code; a library user catches them by type.
"""


class UserError(Exception):
    """A fault that the user can mend; its message says what, where and what to do."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """An option, a config file or the use of a command is wrong."""

    exit_code = 2


def require_at_least(least: int, name: str, value: int) -> None:
    """Raise a ConfigError unless an option's value is at least so much."""
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")


class DivergenceError(UserError):
    """A loss, a gradient or a weight is no longer finite."""

    exit_code = 3


class DatasetError(UserError):
    """A data file is missing, damaged or not what its format demands."""

    exit_code = 4


class ImageError(UserError, ValueError):
    """A picture cannot be read, or shows no digit."""

    exit_code = 4


class StorageError(UserError):
    """A folder or file cannot be written."""

    exit_code = 5


class ProcessLostError(UserError):
    """Another process of the same training has ended; its exit code is this one's, unless a signal ended it."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = max(exit_code, 1)


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to something else."""

    exit_code = 6
