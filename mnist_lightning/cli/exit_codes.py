"""How a command ends: any error becomes one line on stderr and an exit code."""

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType

from mnist_lightning.console import discard_output, leave_closed_terminal, print_stderr
from mnist_lightning.errors import ConfigError, DivergenceError, StorageError, UserError

HOW_TO_RESUME = {"fit": "; resume with fit --ckpt_path last", "sweep": "; the same command resumes the sweep"}
TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
NOT_CREATED = r"Does not validate against .*?\n  - (?:Problem with given class_path .*?:\n)?\s*(.+?)\n"  # jsonargparse
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def run(command: Callable[[], int], name: str, *, debug: bool) -> int:
    """Run a command and return its exit code; `unchanged_process` puts the handlers of signals back.

    With `debug`, the traceback of an error is printed.
    """
    if threading.current_thread() is threading.main_thread():  # no other thread may handle signals
        for number in TERMINATION:
            signal.signal(number, _exit_on_signal)
    try:
        return command()
    except UserError as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, ConfigError | DivergenceError) and not _is_first_process():
            return error.exit_code  # the first process reports the same error
        return fail(str(error), error.exit_code)
    except BrokenPipeError:
        discard_output(1)
        return fail("the output was closed before the command had finished", 1)
    except OSError as error:
        if error.errno == errno.EIO and leave_closed_terminal():
            return 128 + signal.SIGHUP
        if debug:
            traceback.print_exc()
        if error.errno not in DISK_ERRORS:
            return fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)
        return fail(f"{error.filename or 'disk'}: {error.strerror}", StorageError.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interruption during training into exit code 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return fail(f"interrupted{HOW_TO_RESUME.get(name, '')}", 130)
    except Exception as error:
        if debug:
            raise
        if type(error).__name__ == "TrainingSpikeException":  # of Lightning, which this module does not import
            return fail(f"{error}{HOW_TO_RESUME.get(name, '')}", DivergenceError.exit_code)
        if reason := _reason_not_created(error):
            return fail(reason, 2)
        if _is_usage_error(error):
            return fail(" ".join(str(error).split()), 2)
        return fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)


def _is_first_process() -> bool:
    """Return whether this is the first process of the run on this machine, going by Lightning, torchrun or SLURM."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit with the code that a shell reports for the signal; during training, a callback saves the run first."""
    leave_closed_terminal()
    sys.exit(128 + number)


def _reason_not_created(error: BaseException | None) -> str:
    """Return why a class named in the options could not be created, or ""; jsonargparse says it among many lines."""
    text = str(error)
    while error:
        if isinstance(error, ImportError):
            return " ".join(str(error).split())
        error = error.__cause__ or error.__context__
    reason = re.match(NOT_CREATED, text, re.DOTALL)
    return reason[1] if reason else ""


def _is_usage_error(error: Exception) -> bool:
    """Return whether this is Lightning's error for options that contradict each other or the data."""
    if type(error).__name__ == "MisconfigurationException":
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("lightning.")


def fail(line: str, exit_code: int) -> int:
    """Print an error and return its exit code."""
    print_stderr(f"error: {line}")
    return exit_code
