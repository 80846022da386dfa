"""What commands print and parse: printable text, one-line usage errors. Neither torch nor Lightning."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

SHOWN = 5  # names listed in a message


def tell(text: str) -> None:
    """Print text on stderr that may name what comes out of a file."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def printable(line: str) -> str:
    r"""Return a line that cannot steer a terminal: what is not printable in it is escaped, line breaks too.

    >>> printable("7\x1b[2J.png")
    '7\\x1b[2J.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def listed(names: Sequence[str]) -> str:
    """Return the first of some names as a message lists them.

    >>> listed(("a", "b")), listed(tuple("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def leave_closed_terminal() -> bool:
    """Send stdout and stderr nowhere if their terminal was closed, for printing would fail; tell whether it was."""
    closed = False
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:  # input/output error
            closed = True
            send_nowhere(stream)
    return closed


def send_nowhere(stream: int) -> None:
    """Let what is still printed on stdout (1) or stderr (2) vanish."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream)
    os.close(nowhere)


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
