"""The command line: what answers at once, which command runs, and how a failure is told.

Nothing heavy is imported before it is needed: `--help` and `--version` import neither torch nor Lightning.
"""

import errno
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING

from mnist_lightning.console import leave_closed_terminal, send_nowhere, tell
from mnist_lightning.errors import ConfigError, DivergenceError, StorageError, UserError

if TYPE_CHECKING:
    from lightning.pytorch import Callback

HELP = """\
usage: python -m mnist_lightning COMMAND [OPTION ...]

Train, validate, test and use a classifier of images (MNIST or one of its family) or of a table's rows.

commands:
  fit        train; the run goes to lightning_logs/version_N and checkpoints/version_N
  validate   score a checkpoint on the validation images
  test       score a checkpoint on the test images
  predict    label your own pictures of digits, or the rows of a .csv file
  export     write a trained network to an ONNX, pt2 or safetensors file, and prove that it computes the same
  demo       open a page to draw digits on, on this machine
             (without --ckpt_path, all of these take the best checkpoint of the newest run)
  repeat     train with several seeds: mean and spread
  compare    whether two tested runs differ by more than chance
  sweep      search for good options: many runs, which Optuna chooses
  doctor     check this machine: versions, accelerator, data, folders, mirrors

options:
  --help     this text; after a command, every option it has
  --version  the version
  --debug    with any command: a traceback where something fails

examples:
  python -m mnist_lightning fit --config configs/default.yaml
  python -m mnist_lightning fit --config configs/default.yaml --model.lr 3e-4 --trainer.max_epochs 5
  python -m mnist_lightning fit --ckpt_path last
  python -m mnist_lightning test
  python -m mnist_lightning fit --config configs/tabular.yaml --data.csv_file mine.csv --data.target species
  python -m mnist_lightning predict digit.png
  python -m mnist_lightning export --format onnx
  tensorboard --logdir lightning_logs
"""

COMMANDS = ("fit", "validate", "test")
# The others, each with the module whose `main` runs it.
OWN_COMMANDS = {
    "compare": "mnist_lightning.cli.compare",
    "demo": "mnist_lightning.inference.demo.command",
    "doctor": "mnist_lightning.cli.doctor",
    "export": "mnist_lightning.inference.export.command",
    "predict": "mnist_lightning.inference.predict.command",
    "repeat": "mnist_lightning.tuning.repeat",
    "sweep": "mnist_lightning.tuning.sweep.command",
}
HOW_TO_GO_ON = {
    "fit": "; fit --ckpt_path last goes on from what was saved last",
    "sweep": "; the same command goes on",
}
HELP_FLAGS = {"-h", "--help"}
TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def main(args: list[str] | None = None, callbacks: "Sequence[Callback]" = ()) -> None:
    """Run a command and exit: 0 done, 1 done in part, 2 usage or config, 3 diverged, 4 data, 5 disk, 6 checkpoint.

    Args:
        args: The command line without the program's name; None takes `sys.argv`.
        callbacks: What else watches the training or evaluation, for programs that start one.
    """
    args = sys.argv[1:] if args is None else args
    for name in ("stdout", "stderr"):  # None where the shell has closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
    for stream in (sys.stdout, sys.stderr):  # a name that cannot be encoded must not end the program
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    if not args or args[0] in HELP_FLAGS:
        print(HELP, end="")
        sys.exit(0 if args else 2)
    if args[0] == "--version":
        from mnist_lightning import __version__

        print(f"mnist-lightning {__version__}")
        sys.exit(0)
    sys.exit(_run(args, callbacks, debug=debug))


def _run(args: list[str], callbacks: "Sequence[Callback]", *, debug: bool) -> int:
    before = {number: signal.signal(number, _exit_on_signal) for number in TERMINATION}
    try:
        if sys.stderr.isatty() and not HELP_FLAGS & {*args}:
            print("loading …", end="\r", file=sys.stderr, flush=True)  # torch and Lightning take seconds
        if args[0] in OWN_COMMANDS:
            return int(import_module(OWN_COMMANDS[args[0]]).main(args[1:]))
        if args[0] not in COMMANDS:
            return _fail(f"unknown command {args[0]}{_nearest_command(args[0])}", 2)
        from mnist_lightning.cli.lightning_cli import TrainerCLI

        if not debug:
            _quieten()
        TrainerCLI(args, callbacks)
    except UserError as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, ConfigError | DivergenceError) and not _is_first_here():
            return error.exit_code  # the first of the processes finds it too, and says it
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        send_nowhere(1)
        return _fail("nobody reads the output any more", 1)
    except OSError as error:
        if error.errno == errno.EIO and leave_closed_terminal():
            return 128 + signal.SIGHUP
        if debug:
            traceback.print_exc()
        if error.errno not in DISK_ERRORS:
            return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)
        return _fail(f"{error.filename or 'disk'}: {error.strerror}", StorageError.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interruption while it trains into exit code 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        return _fail(f"interrupted{HOW_TO_GO_ON.get(args[0], '')}", 130)
    except Exception as error:
        if debug:
            raise
        if _is_about_options(error):
            return _fail(" ".join(str(error).split()), 2)
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _is_first_here() -> bool:
    """Tell whether this is the first of a training's processes on this machine, as Lightning, torchrun or SLURM say."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """End with the code that a shell gives a process ended by the signal; while it trains, the run saves first."""
    leave_closed_terminal()
    sys.exit(128 + number)


def _is_about_options(error: Exception) -> bool:
    """Tell whether this is how Lightning says that options do not go together, or not with the data."""
    if type(error).__name__ == "MisconfigurationException":
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("lightning.")


def _fail(line: str, exit_code: int) -> int:
    tell(f"error: {line}")
    return exit_code


def _nearest_command(name: str) -> str:
    import difflib

    commands = (*COMMANDS, *OWN_COMMANDS)
    matches = difflib.get_close_matches(name, commands, n=1)
    return f"; did you mean {matches[0]}?" if matches else f"; there are {', '.join(commands)}"


def _quieten() -> None:
    """Silence what is no news to the user: adverts, hardware that is not there, others' deprecations."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's table was asked for
    # We check the folder ourselves: only a run that is resumed in place finds checkpoints there.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty", category=UserWarning)
    # torch's pytree warns about a name that torch itself uses, called through Lightning 2.6.
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
