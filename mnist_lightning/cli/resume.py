"""Resuming from a checkpoint: whether anything is left to train, and which options differ from those before."""

import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from mnist_lightning.cli.class_groups import flat_config
from mnist_lightning.cli.parser import OptionParser
from mnist_lightning.cli.run_session import RunSession
from mnist_lightning.cli.saved_config import Change, changes, saved_arguments, saved_options
from mnist_lightning.console import printable
from mnist_lightning.data.mnist.registry import trained_on
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.runs.checkpoint_verification import check_resumable
from mnist_lightning.training.callbacks.early_stopping import RunEarlyStopping
from mnist_lightning.training.callbacks.exact_resume import is_within_epoch
from mnist_lightning.training.distributed import is_first
from mnist_lightning.training.trainer import reason_of_end

# Options of the data that do not determine which samples an epoch serves, in which order and how augmented.
SOURCES = {"data.source", "data.mirrors"}


def with_checkpoint(
    session: RunSession, parser: OptionParser, args: list[str], config: Namespace
) -> tuple[Namespace, list[Change]]:
    """Return the options of a command that uses a checkpoint, and those that change when a run is resumed.

    The options of the checkpoint's run are the defaults unless the command line has --config. Exits if nothing is left
    to train.

    Raises:
        CheckpointError: If the checkpoint was trained on another data set, cannot be resumed, or is of another project.
        ConfigError: If a changed option determines the remaining batches of an epoch that is not complete.
    """
    located, checkpoint, command = session.located, session.checkpoint, args[0]
    assert located
    if not config[command].config:
        config = parser.parse_command([command, *saved_arguments(located, checkpoint), *args[1:]])
    options = config[command]
    options.ckpt_path = None  # if Lightning saw it, the checkpoint's hyper-parameters would override the command line
    trained, requested = trained_on(checkpoint), options.data.get("dataset")
    if requested not in (None, trained):  # tables and folders of images have no names to compare
        raise CheckpointError(
            f"{located.path} was trained on {trained}, but data.dataset is {requested}; "
            "pass a checkpoint of that data set"
        )
    if command != "fit":
        return config, []
    check_resumable(located.path, checkpoint)
    if reason := why_finished(checkpoint, options):
        session.repair()
        _exit_as_finished(session, reason)
    before = saved_options(located, checkpoint)
    now = flat_config(yaml.safe_load(parser.dump(config, skip_unset=False))["fit"])
    changed = changes(before, now)
    if "trainer" not in before:  # without a saved config, the options of the other groups are not known
        changed = [change for change in changed if change.old is not None]
    for name, old, new in changed:
        if name == "model.init_from":
            raise ConfigError(
                f"cannot change model.init_from ({old} to {new}) of a run that is resumed: its weights are in the "
                "checkpoint; without --ckpt_path, a new run starts from others"
            )
        if is_within_epoch(checkpoint) and name.startswith(("data.", "seed_everything")) and name not in SOURCES:
            raise ConfigError(
                f"cannot change {name} ({old} to {new}) in mid-epoch: it determines the remaining batches; "
                "resume from an end-of-epoch checkpoint"
            )
        if is_first():
            print(printable(f"{name}: changed from {old} to {new}"))
    return config, changed


def why_finished(checkpoint: Mapping[str, Any], options: Namespace) -> str:
    """Return why nothing is left to train with these options of `fit`, or ""."""
    trainer, early_stopping = options.trainer, options.early_stopping
    state = checkpoint["callbacks"].get(RunEarlyStopping(**early_stopping.as_dict()).state_key, {})
    epochs = int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    steps = checkpoint["global_step"]
    if 0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) <= epochs:
        return f"trained {epochs} epochs; a larger --trainer.max_epochs resumes it"
    if 0 <= trainer.max_steps <= steps:
        return f"trained {steps} steps; a larger --trainer.max_steps resumes it"
    if early_stopping.enabled and state.get("wait_count", -1) >= early_stopping.patience:
        return f"no better score in {early_stopping.patience} epochs; a larger --early_stopping.patience resumes it"
    return ""


def check_trained(session: RunSession, trainer: Trainer) -> None:
    """Raise a ConfigError if the options left no step to train; exit if a callback such as Timer has ended the run."""
    if trainer.global_step != session.checkpoint.get("global_step", 0):
        return
    if session.checkpoint and trainer.should_stop:
        _exit_as_finished(session, reason_of_end(trainer))
    raise ConfigError(
        "nothing was trained: trainer.max_epochs, max_steps, max_time or limit_train_batches leaves no step"
    )


def _exit_as_finished(session: RunSession, reason: str) -> NoReturn:
    if is_first():
        assert session.located
        print(f"{session.run.name if session.run else session.located.path} has finished: {reason}")
    sys.exit(0)
