"""Observe what an attack does to this process: code that runs, system calls, time and memory."""

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType

CANARY = "canary-of-an-attack"  # the folder that a payload would create

# Audit events that reading a checkpoint or a config never raises.
FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "socket.getaddrinfo",
    "socket.connect",
)
MAX_EXTRA_MIB = 256
HANGS_AFTER_S = 120  # refusing takes half a second, but a machine may be slow


class Watch:
    """Record forbidden events and traces of a payload while on; an audit hook cannot be removed."""

    def __init__(self) -> None:
        self.on = False
        self.events: list[str] = []
        sys.addaudithook(self._see)

    def _see(self, event: str, args: tuple[object, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN or (event == "os.mkdir" and CANARY in str(args[0])):
            self.events.append(f"{event} {args}")
        elif event in ("exec", "compile"):
            code = args[0]
            text = str(code.co_consts) if isinstance(code, CodeType) else str(code)
            if CANARY in text:
                self.events.append(f"{event} {text}")

    @contextmanager
    def __call__(self) -> Iterator[list[str]]:
        self.on, self.events = True, []
        try:
            yield self.events
        finally:
            self.on = False


watch = Watch()


class HangsError(BaseException):
    """Raised in code that takes too long; handlers of ordinary errors do not catch it."""


@contextmanager
def unharmed(root: Path) -> Iterator[None]:
    """Check that the code in this context starts no process, takes little memory, and does not hang."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise HangsError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_S)
    before_mib = peak_mib()
    try:
        with watch() as events:
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not events, events
    assert not (root / CANARY).exists()
    assert peak_mib() - before_mib < MAX_EXTRA_MIB, f"{before_mib} MiB before, {peak_mib()} after"


def peak_mib() -> float:
    """Return the peak memory of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def listing(root: Path) -> list[str]:
    """Return the paths of everything in a folder."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))
