"""What going on from a checkpoint means: how far its training has come, and which options are not what they were."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace

from mnist_lightning.cli.changes import ORDER_OF_IMAGES, Change, changes
from mnist_lightning.cli.config import read_config
from mnist_lightning.cli.saved_config import held_options, saved_config
from mnist_lightning.data.mnist.registry import trained_on
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.runs.run_folders import Located
from mnist_lightning.training.callbacks.early_stopping import EarlyStopping
from mnist_lightning.training.callbacks.exact_resume import is_within_epoch


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    """Return how many epochs were finished when a checkpoint was saved; 0 for none."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]) if checkpoint else 0


def check_dataset(located: Located, checkpoint: Mapping[str, Any], data: Namespace) -> None:
    """Check that a network meets the data set that it was trained on; a table has no name to compare.

    Raises:
        CheckpointError: If the options of the data name another.
    """
    trained, asked = trained_on(checkpoint), data.get("dataset")
    if asked and trained != asked:
        raise CheckpointError(
            f"{located.path} was trained on {trained}, but data.dataset is {asked}; pass a checkpoint of that data set"
        )


def why_finished(checkpoint: Mapping[str, Any], options: Namespace) -> str:
    """Return why a training with these options of `fit` has nothing left to do, nothing where it has."""
    trainer, early_stopping = options.trainer, options.early_stopping
    stopper = checkpoint["callbacks"].get(EarlyStopping(**early_stopping.as_dict()).state_key)
    waited = stopper.get("wait_count") if isinstance(stopper, dict) else None
    epochs, steps = epochs_done(checkpoint), checkpoint["global_step"]
    if 0 <= (-1 if trainer.max_epochs is None else trainer.max_epochs) <= epochs:
        return f"trained {epochs} epochs; a larger --trainer.max_epochs goes on"
    if 0 <= trainer.max_steps <= steps:
        return f"trained {steps} steps; a larger --trainer.max_steps goes on"
    if early_stopping.enabled and isinstance(waited, int) and waited >= early_stopping.patience:
        return f"no better score in {early_stopping.patience} epochs; a larger --early_stopping.patience goes on"
    return ""


def changed_options(located: Located, checkpoint: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """Return how options of `fit`, as plain values, differ from those that a checkpoint was trained with.

    Raises:
        ConfigError: If one of them decides which images come next, in the middle of an epoch.
        CheckpointError: If the checkpoint was not saved by this project.
    """
    if saved := saved_config(located):
        changed = changes(read_config(saved), now)
    else:
        held = held_options(located, checkpoint)
        groups = {group: {name: now[group][name] for name in held[group]} for group in ("model", "data")}
        changed = changes(held, groups | {"seed_everything": now["seed_everything"]})
    within = is_within_epoch(checkpoint)
    if change := next((change for change in changed if within and change.name in ORDER_OF_IMAGES), None):
        raise ConfigError(
            f"{change.name} was {change.old} and cannot become {change.new} within an epoch, for it decides "
            "what comes next; go on from an epoch's own checkpoint"
        )
    return changed
