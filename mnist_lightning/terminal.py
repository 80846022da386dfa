"""What is printed for the user: nothing that steers a terminal, nothing into one that is gone."""

import os
import sys
from collections.abc import Sequence

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
