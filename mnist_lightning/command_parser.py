"""The argument parser of the commands that need no Trainer: help that ends with examples, errors of a line."""

import argparse
import difflib
import re
import sys
from typing import NoReturn

from mnist_lightning.terminal import tell


class CommandParser(argparse.ArgumentParser):
    """Parse the options of one command; a mistake ends the program with exit code 2 and names the nearest option.

    Args:
        command: The name of the command, as in `python -m mnist_lightning COMMAND`.
        description: What it does.
        examples: Command lines that work, without `python -m mnist_lightning`.
    """

    def __init__(self, command: str, description: str, *examples: str) -> None:
        program = "python -m mnist_lightning"
        lines = "\n".join(f"  {program} {example}" for example in examples)
        super().__init__(
            prog=f"{program} {command}",
            description=description,
            epilog=f"example{'s' * (len(examples) > 1)}:\n{lines}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with 2."""
        if match := re.match(r"unrecognized arguments: (\S+)", message):
            option = match[1].split("=")[0]
            message = f"unknown option {option}{_nearest(option, list(self._option_string_actions))}"
        elif match := re.match(r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = match[3].replace("'", "")
            message = f"{match[1]} must be one of {choices}, got {match[2]}{_nearest(match[2], choices.split(', '))}"
        tell(f"error: {message.removeprefix('argument ')}")
        sys.exit(2)


def _nearest(name: str, known: list[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    if matches:
        return f"; did you mean {matches[0]}?"
    return "; --help lists the options" if name.startswith("-") else ""
