"""Errors that the user can fix, each with its exit code.

The command line turns any of these into one line on stderr and the exit code; code that uses the library can catch them
by type.
"""


class UserError(Exception):
    """An error that the user can fix; its message names what is wrong, where, and what to do."""

    exit_code = 1


class ConfigError(UserError, ValueError):
    """An option, a config file or the use of a command is wrong."""

    exit_code = 2


def require_at_least(least: int, name: str, value: int) -> None:
    """Raise a ConfigError if the value of an option is too small."""
    if value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")


class DivergenceError(UserError):
    """A loss, a gradient or a weight is not finite."""

    exit_code = 3


class DatasetError(UserError):
    """A data file is missing, damaged or not in the expected format."""

    exit_code = 4


class ImageError(UserError, ValueError):
    """An image cannot be read, or shows no digit."""

    exit_code = 4


class StorageError(UserError):
    """A folder or file cannot be written."""

    exit_code = 5


class CheckpointError(UserError):
    """A checkpoint is missing, corrupted, or belongs to another network or data set."""

    exit_code = 6
