"""The groups of options, whose arguments they are, and what their types do not say about their values."""

from collections.abc import Mapping, Sequence
from inspect import Parameter, signature

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from mnist_lightning.cli.parser import place_of
from mnist_lightning.cli.tasks import PAIRS, DataKind
from mnist_lightning.errors import ConfigError
from mnist_lightning.training.callbacks.early_stopping import EarlyStopping
from mnist_lightning.training.callbacks.figures import Dashboard
from mnist_lightning.training.callbacks.run_checkpoint import RunCheckpoint
from mnist_lightning.training.trainer import AutoTrainer

Group = Mapping[str, Parameter]

GROUPS: dict[str, Group] = {
    "trainer": signature(Trainer).parameters | signature(AutoTrainer).parameters,
    "early_stopping": signature(EarlyStopping).parameters,
    "checkpoint": signature(RunCheckpoint).parameters,
    "tensorboard": signature(Dashboard).parameters,
}

# What Lightning takes although it cannot or must not be: -1 accumulated batches, say, would climb the loss.
SMALLEST = {"accumulate_grad_batches": 1, "check_val_every_n_epoch": 1, "gradient_clip_val": 0, "max_epochs": -1}


def groups_of(kind: DataKind) -> dict[str, Group]:
    """Return the groups of options for a kind of data."""
    pair = PAIRS[kind]
    model = {name: value for name, value in signature(pair.model).parameters.items() if name not in pair.from_data}
    return GROUPS | {"model": model, "data": signature(pair.data).parameters}


def check_options(options: Namespace, args: Sequence[str]) -> None:
    """Refuse what the types let pass.

    Raises:
        ConfigError: If a group is none, an option that needs a value is null, or a value is out of range.
    """
    for group, parameters in groups_of(options.data_kind).items():
        if options[group] is None:
            raise ConfigError(f"{group}{place_of(group, args)} may not be null; left out, it has its defaults")
        for name, parameter in parameters.items():
            needs_value = parameter.default is not None and parameter.default is not parameter.empty
            if needs_value and options[group].get(name, ...) is None:
                key = f"{group}.{name}"
                default = "" if parameter.default == "" else f"; {parameter.default} is the default"
                raise ConfigError(f"{key}{place_of(key, args)} may not be null{default}")
    for name, smallest in SMALLEST.items():
        value = options.trainer[name]
        if value is not None and not smallest <= value < 2**31:
            key = f"trainer.{name}"
            raise ConfigError(f"{key}{place_of(key, args)} must be in [{smallest}, 2**31), got {value}")
    if options.seed_everything is None or not 0 <= options.seed_everything < 2**32:  # what numpy's generator takes
        raise ConfigError(f"seed_everything must be in [0, 2**32), got {options.seed_everything}")
    if "://" in str(options.trainer.default_root_dir):
        raise ConfigError(f"trainer.default_root_dir must be a local folder, got {options.trainer.default_root_dir}")
