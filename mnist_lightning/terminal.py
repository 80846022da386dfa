"""What is printed for the user: nothing that steers a terminal, nothing into one that is gone."""

import os
import sys


def tell(line: str) -> None:
    """Print a line on stderr that may name what comes out of a file."""
    print(printable(line), file=sys.stderr)


def printable(text: str) -> str:
    r"""Return text with its control characters escaped.

    >>> printable("a\x1b[2Jb")
    'a\\x1b[2Jb'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


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
