"""Every private name of Lightning and jsonargparse that this project uses, each with its reason.

The tests in `tests/training/test_lightning_patches.py` fail when Lightning no longer needs an entry.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jsonargparse import _common, _loaders_dumpers, _optionals
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.callbacks.timer import Interval
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor
from torchmetrics import Metric

LOADERS = ("loaders", "loader_exceptions", "loader_json_superset", "loader_params")  # what `set_loader` changes


def patch_trainer(trainer: Trainer) -> None:
    """Change behaviours of a Trainer that would break resuming, signals and validation at intervals of time.

    - With `max_steps`, Lightning 2.6.6 resumes from the end of an epoch by ending that epoch again, over no batches
      (`_FitLoop._iteration_based_training`). PL #19617, open.
    - On SIGTERM its handler broadcasts to the other ranks from within the handler, and waits forever if one rank alone
      received the signal (`_SignalConnector._sigterm_notifier_fn`). PL #20806, open. `RunCheckpoint` lets all ranks
      agree after a step instead.
    - With `val_check_interval` as a time, it sets no such attribute, which its own EarlyStopping reads.
    """
    trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
    trainer.val_check_interval = getattr(trainer, "val_check_interval", 0.0)
    trainer._signal_connector._sigterm_notifier_fn = lambda number, frame: None  # type: ignore[method-assign,assignment]


@contextmanager
def default_arguments() -> Iterator[None]:
    """Give constructors of Lightning the defaults with which a config can name their classes alone.

    Required is `save_dir`, but the folder of a run's loggers is the run's. `Timer` has an enum as default, which
    jsonargparse cannot write into a config.
    """
    functions = [each.__init__ for each in (TensorBoardLogger, CSVLogger, Timer)]
    before = [function.__defaults__ or () for function in functions]
    functions[0].__defaults__, functions[1].__defaults__ = (("", *defaults) for defaults in before[:2])
    functions[2].__defaults__ = tuple("step" if isinstance(each, Interval) else each for each in before[2])
    try:
        yield
    finally:
        for function, defaults in zip(functions, before, strict=True):
            function.__defaults__ = defaults


def set_position(trainer: Trainer, epoch: int, step: int) -> None:
    """Let a Trainer log at the epoch and step of a checkpoint that it tests; Lightning logs at 0."""
    trainer.fit_loop.epoch_progress.current.completed = epoch
    trainer.fit_loop.epoch_loop._batches_that_stepped = step


def validation_is_due(trainer: Trainer) -> bool:
    """Return whether Lightning validates after the present batch.

    Resumed from a checkpoint saved before it, Lightning would skip that validation (PL #19815, open).
    """
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def restore_loader_position(trainer: Trainer) -> None:
    """Give the loader its restored state if `estimated_stepping_batches` made it before the state arrived.

    PL #20550, open.
    """
    trainer.fit_loop._load_combined_loader_states()


def metrics_logged_at_epoch_end(trainer: Trainer) -> dict[str, float]:
    """Return what Lightning logs at the end of a training epoch, after the checkpoint of that epoch is saved.

    `Trainer.logged_metrics` also holds what was logged before, and `callback_metrics` what is not for loggers.
    """
    results = trainer.fit_loop.epoch_loop._results
    return {name: float(value) for name, value in results.metrics(on_step=False)["log"].items()}


def sums_of_epoch(trainer: Trainer) -> dict[str, Any]:
    """Return what `self.log` has summed up in the present training epoch, by key.

    Lightning saves none of it in mid-epoch: a resumed epoch would log the mean of its remaining batches.
    """
    results = trainer.fit_loop.epoch_loop._results
    return {key: result for key, result in results.items() if result.is_tensor and result.meta.on_epoch}


def add_to_sum(result: Any, before: dict[str, Tensor]) -> None:
    """Put an earlier state of a sum, a minimum or a maximum before its present one."""
    extreme = result.meta.is_max_reduction or result.meta.is_min_reduction
    for name, value in before.items():
        combine = result.meta.reduce_fx if extreme else torch.add
        setattr(result, name, combine(value, getattr(result, name)))
    result._computed = None


def validation_metrics(trainer: Trainer) -> list[Metric]:
    """Return the torchmetrics that a module has logged in validation; Lightning resets them when it validates again."""
    return [result.value for result in trainer.fit_loop.epoch_loop.val_loop._results.values() if not result.is_tensor]


def finish_restart(trainer: Trainer) -> None:
    """Mark Lightning's loop as no longer restarting, at the end of an epoch that was resumed in the middle.

    It would not step plateau schedules at that end, because checkpoints hold no metrics (PL #14702); `ExactResume`
    restores them.
    """
    trainer.fit_loop._restarting = False


@contextmanager
def jsonargparse_unchanged() -> Iterator[None]:
    """Put back jsonargparse's global settings and loaders, which other parsers use; it has no getters for them."""
    registries = (_common.parsing_settings, *(vars(_loaders_dumpers)[name] for name in LOADERS))
    before, read_mode = [dict(each) for each in registries], _optionals._config_read_mode
    try:
        yield
    finally:
        for registry, entries in zip(registries, before, strict=True):
            registry.clear()
            registry.update(entries)
        _optionals._config_read_mode = read_mode


def subcommand_parser(cli: LightningCLI, command: str) -> LightningArgumentParser:
    """Return the parser of a subcommand, to change its defaults and texts; LightningCLI has no hook for that."""
    return cli._subcommand_parsers[command]


def option_parsers(parser: LightningArgumentParser, command: str) -> list[LightningArgumentParser]:
    """Return a parser and that of one of its subcommands; neither argparse nor jsonargparse lists them."""
    groups = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return [parser, *(choices[command] for choices in groups if command in choices)]


def option_names(parser: LightningArgumentParser, command: str) -> set[str]:
    """Return all options of a parser and of one of its subcommands; neither argparse nor jsonargparse lists them."""
    return {name for each in option_parsers(parser, command) for name in each._option_string_actions}


def set_help(parser: LightningArgumentParser, option: str, text: str) -> None:
    """Change the help of an option that LightningCLI adds; it offers no other way."""
    next(action for action in parser._actions if action.dest == option).help = text
