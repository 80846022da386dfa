"""The parser of the commands that need no Trainer. No Lightning."""

import argparse
import difflib
from typing import NoReturn

from mnist_lightning.errors import ConfigError, printable


class CommandParser(argparse.ArgumentParser):
    """Parse the options of one command; a mistake costs one line, which names the nearest valid option.

    Args:
        command: Its name.
        description: What it does.
        examples: Command lines, shown at the end of its help.
    """

    def __init__(self, command: str, description: str, examples: str) -> None:
        super().__init__(
            prog=f"python -m mnist_lightning {command}",
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError with argparse's message, and the nearest option where one is unknown."""
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown == message:
            raise ConfigError(printable(message))
        option = unknown.split()[0].split("=")[0]
        matches = difflib.get_close_matches(option, self._option_string_actions, n=1, cutoff=0.6)
        hint = f"did you mean {matches[0]}?" if matches else "--help lists the options"
        raise ConfigError(f"unknown option {printable(option)}; {hint}")
