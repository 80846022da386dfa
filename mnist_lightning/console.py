"""What commands print and parse: printable text, messages on wrong options. Neither torch nor Lightning."""

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

MAX_NAMES = 5  # names listed in a message
MAX_CHARACTERS = 300  # of a line that quotes a value


def print_stderr(text: str) -> None:
    """Print text on stderr; the text may quote the content of a file."""
    print("\n".join(map(printable, text.split("\n"))), file=sys.stderr)


def printable(line: str) -> str:
    r"""Return a line that cannot control a terminal: unprintable characters and line breaks are escaped.

    >>> printable("7\x1b[2J.png")
    '7\\x1b[2J.png'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def shortened(line: str) -> str:
    """Return the start of a line, as much as a message has room for."""
    return line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]} …"


def listed(names: Sequence[str]) -> str:
    """Return the first few names as a message lists them.

    >>> listed(("a", "b")), listed(tuple("abcdefg"))
    ('a, b', 'a, b, c, d, e and 2 more')
    """
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """Return the end of a message about an unknown name: the nearest known name, or else a text, or all known names.

    >>> did_you_mean("fot", ("fit", "test")), did_you_mean("guess", ("fit", "test"))
    ('; did you mean fit?', '; expected one of fit, test')
    """
    known = tuple(known)
    is_option = name.startswith("-")  # options share long prefixes, so they have to be more alike
    if matches := difflib.get_close_matches(name, known, n=1, cutoff=0.7 if is_option else 0.6):
        return f"; did you mean {matches[0]}?"
    return f"; expected one of {', '.join(known)}" if otherwise is None else otherwise


def exit_with_usage_error(message: str) -> NoReturn:
    """Print a message and exit with code 2."""
    print_stderr(f"error: {message}")
    sys.exit(2)


def expand_home(text: str) -> str:
    """Return a path, or an option with a path behind `=`, with `~` as its first folder replaced by the home folder.

    A shell does the same at the start of a word, but not behind `=`, and not in a config file.

    >>> expand_home("--output=~/a.csv") == f"--output={os.path.expanduser('~/a.csv')}"
    True
    """
    option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
    return option + equals + (os.path.expanduser(value) if re.match(r"~(/|$)", value) else value)


def leave_closed_terminal() -> bool:
    """Discard further output if the terminal was closed, because printing would fail; return whether it was."""
    closed = False
    for stream in (1, 2):
        try:
            os.write(stream, b"")
        except OSError:  # input/output error
            closed = True
            discard_output(stream)
    return closed


def discard_output(stream: int) -> None:
    """Discard all further output on stdout (1) or stderr (2)."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream)
    os.close(devnull)


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return the `type` of an argument that is a whole number, at least `low` and at most `high`.

    >>> whole_number(1)("3")
    3
    """

    def parse(text: str) -> int:
        if text.isdecimal() and int(text) >= low and (high is None or int(text) <= high):
            return int(text)
        allowed = f"at least {low}" if high is None else f"in [{low}, {high}]"
        raise argparse.ArgumentTypeError(f"must be a whole number {allowed}, got {text}")

    return parse


class CommandParser(argparse.ArgumentParser):
    """Parse the options of one command; a wrong option ends the program with exit code 2 and names the nearest one.

    Its help gives the description and the examples, command lines that work, without `python -m mnist_lightning`.
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

    def add_checkpoint_option(self) -> None:
        """Add the option `--ckpt_path`, which is `best` by default."""
        text = "best or last of the newest run, version_3/best, or a file (default: best)"
        self.add_argument("--ckpt_path", default="best", metavar="CHECKPOINT", help=text)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2."""
        if unknown := unknown_option(message, self._option_string_actions):
            message = unknown
        elif match := re.match(r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", message):
            choices = match[3].replace("'", "").split(", ")
            allowed, nearest = ", ".join(choices), did_you_mean(match[2], choices, "")
            message = f"{match[1]} must be one of {allowed}, got {match[2]}{nearest}"
        exit_with_usage_error(message.removeprefix("argument "))


def unknown_option(message: str, known: Iterable[str]) -> str:
    """Return argparse's message on an unknown option with the nearest known option, or "" for any other message.

    >>> unknown_option("unrecognized arguments: --formt=onnx", ("--format", "--help"))
    'unknown option --formt; did you mean --format?'
    """
    if match := re.search(r"unrecognized arguments: ([^\s=]+)", message):
        return f"unknown option {match[1]}{did_you_mean(match[1], known, '; --help lists the options')}"
    return ""
