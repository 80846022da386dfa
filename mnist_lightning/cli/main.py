"""The entry point of the command line: run the command that is named.

Modules are imported when a command needs them: `--help` and `--version` import neither torch nor Lightning.
"""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from mnist_lightning.cli import exit_codes
from mnist_lightning.cli.help_texts import COMMANDS, HELP, OWN_COMMANDS
from mnist_lightning.cli.process_state import make_streams_safe, silenced_libraries, unchanged_process
from mnist_lightning.console import did_you_mean, expand_home

if TYPE_CHECKING:
    from lightning.pytorch import Callback

HELP_FLAGS = {"-h", "--help"}


def main(args: list[str] | None = None, callbacks: "Sequence[Callback]" = ()) -> NoReturn:
    """Run a command and exit with what `run` returns, which also takes these arguments."""
    code = run(args, callbacks)
    if code == 0 and "lightning" in sys.modules:
        from mnist_lightning.training.distributed import leave_process_group

        leave_process_group()
    sys.exit(code)


def run(args: list[str] | None = None, callbacks: "Sequence[Callback]" = ()) -> int:
    """Run a command and leave this process as it was.

    Returns 0 for success, 1 partial, 2 usage or config, 3 diverged, 4 data, 5 disk, 6 checkpoint.

    Args:
        args: The command line without the name of the program; None means `sys.argv`.
        callbacks: Further callbacks of the Trainer, for programs that call this function.
    """
    args = [expand_home(arg) for arg in (sys.argv[1:] if args is None else args)]
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    with unchanged_process():
        make_streams_safe()
        if not args or args[0] in HELP_FLAGS:
            print(HELP, end="")
            return 0 if args else 2
        if args[0] == "--version":
            from mnist_lightning import __version__

            print(f"mnist-lightning {__version__}")
            return 0
        return exit_codes.run(partial(_run, args, callbacks, debug=debug), args[0], debug=debug)


def _run(args: list[str], callbacks: "Sequence[Callback]", *, debug: bool) -> int:
    if sys.stderr.isatty() and not HELP_FLAGS & {*args}:
        print("loading …", end="\r", file=sys.stderr, flush=True)  # torch and Lightning take seconds
    if args[0] in OWN_COMMANDS:
        return int(import_module(OWN_COMMANDS[args[0]]).main(args[1:]))
    if args[0] not in COMMANDS:
        known = did_you_mean(args[0], (*COMMANDS, *OWN_COMMANDS))
        return exit_codes.fail(f"unknown command {args[0]}{known}", 2)
    from mnist_lightning.cli.lightning_cli import TrainerCLI

    with nullcontext() if debug else silenced_libraries():
        TrainerCLI(args, callbacks)
    return 0
