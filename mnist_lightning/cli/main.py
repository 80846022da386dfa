"""The entry point of the command line: run a command, and turn any error into one line and an exit code.

Modules are imported when a command needs them: `--help` and `--version` import neither torch nor Lightning.
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

from mnist_lightning.console import did_you_mean, discard_output, leave_closed_terminal, print_stderr
from mnist_lightning.errors import ConfigError, DivergenceError, StorageError, UserError

if TYPE_CHECKING:
    from lightning.pytorch import Callback

HELP = """\
usage: python -m mnist_lightning COMMAND [OPTION ...]

Train, evaluate and use a classifier of images (MNIST, its variants, a folder of images) or of the rows of a table.

commands:
  fit        train a network; logs go to lightning_logs/version_N, checkpoints to checkpoints/version_N
  validate   evaluate a checkpoint on the validation images
  test       evaluate a checkpoint on the test images
  predict    predict the labels of images of digits, or of the rows of a .csv file
  export     write a trained network to an ONNX, pt2 or safetensors file, and check that its outputs are the same
  demo       serve a web page on this machine to draw digits on
             (without --ckpt_path, all of these use the best checkpoint of the newest run)
  repeat     train with several seeds; report mean and standard deviation
  compare    test whether two runs differ significantly in test accuracy
  sweep      search for good options with Optuna, over many runs
  doctor     check this machine: versions, device, data, folders

options:
  --help     show this text; after a command, show all its options
  --version  show the version
  --debug    with any command: show the traceback of an error

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
# The other commands, each with the module whose `main` runs it.
OWN_COMMANDS = {
    "compare": "mnist_lightning.cli.compare",
    "demo": "mnist_lightning.inference.demo.command",
    "doctor": "mnist_lightning.cli.doctor",
    "export": "mnist_lightning.inference.export.command",
    "predict": "mnist_lightning.inference.predict.command",
    "repeat": "mnist_lightning.tuning.repeat",
    "sweep": "mnist_lightning.tuning.sweep",
}
HOW_TO_RESUME = {
    "fit": "; resume with fit --ckpt_path last",
    "sweep": "; the same command resumes the sweep",
}
HELP_FLAGS = {"-h", "--help"}
TERMINATION = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO)


def main(args: list[str] | None = None, callbacks: "Sequence[Callback]" = ()) -> None:
    """Run a command and exit: 0 success, 1 partial, 2 usage or config, 3 diverged, 4 data, 5 disk, 6 checkpoint.

    Args:
        args: The command line without the name of the program; None means `sys.argv`.
        callbacks: Further callbacks of the Trainer, for programs that call this function.
    """
    args = sys.argv[1:] if args is None else args
    for name in ("stdout", "stderr"):  # None if the shell has closed it
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open until the process ends
    for stream in (sys.stdout, sys.stderr):  # a file name that cannot be encoded must not end the program
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
        if not debug:
            _silence_libraries()
        if args[0] in OWN_COMMANDS:
            return int(import_module(OWN_COMMANDS[args[0]]).main(args[1:]))
        if args[0] not in COMMANDS:
            return _fail(f"unknown command {args[0]}{did_you_mean(args[0], (*COMMANDS, *OWN_COMMANDS))}", 2)
        from mnist_lightning.cli.lightning_cli import TrainerCLI

        if not debug:
            _silence_libraries()  # once more: importing Lightning sets its loggers to INFO
        TrainerCLI(args, callbacks)
    except UserError as error:
        if debug:
            traceback.print_exc()
        if isinstance(error, ConfigError | DivergenceError) and not _is_first_process():
            return error.exit_code  # the first process reports the same error
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        discard_output(1)
        return _fail("the output was closed before the command had finished", 1)
    except OSError as error:
        if error.errno == errno.EIO and leave_closed_terminal():
            return 128 + signal.SIGHUP
        if debug:
            traceback.print_exc()
        if error.errno not in DISK_ERRORS:
            return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)
        return _fail(f"{error.filename or 'disk'}: {error.strerror}", StorageError.exit_code)
    except (KeyboardInterrupt, SystemExit) as stop:
        # Lightning turns an interruption during training into exit code 1.
        if isinstance(stop, SystemExit) and not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        return _fail(f"interrupted{HOW_TO_RESUME.get(args[0], '')}", 130)
    except Exception as error:
        if debug:
            raise
        if _is_usage_error(error):
            return _fail(" ".join(str(error).split()), 2)
        return _fail(f"unexpected {type(error).__name__}: {error}; --debug shows where", 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _is_first_process() -> bool:
    """Return whether this is the first process of the run on this machine, going by Lightning, torchrun or SLURM."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "SLURM_LOCALID"))


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """Exit with the code that a shell reports for the signal; during training, a callback saves the run first."""
    leave_closed_terminal()
    sys.exit(128 + number)


def _is_usage_error(error: Exception) -> bool:
    """Return whether this is Lightning's error for options that contradict each other or the data."""
    if type(error).__name__ == "MisconfigurationException":
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return isinstance(error, ValueError) and frame.f_globals["__name__"].startswith("lightning.")


def _fail(line: str, exit_code: int) -> int:
    print_stderr(f"error: {line}")
    return exit_code


def _silence_libraries() -> None:
    """Silence messages that do not concern the user: tips, missing hardware, deprecations in libraries."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler prints its table there
    # Only a run that is resumed in place has checkpoints in its folder, and there they are expected.
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty", category=UserWarning)
    # A ModelCheckpoint of the user's that is evaluated, or resumed in a new run, has another folder than before.
    warnings.filterwarnings("ignore", message="The dirpath has changed from", category=UserWarning)
    # torch's own pytree module, which Lightning 2.6 calls, uses a name that torch deprecates.
    warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
