"""The `config.yaml` of a run: written by `fit`, read by the commands that use the run, compared with new options."""

import json
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.cli.class_groups import flat_config
from mnist_lightning.cli.classes import data_of_content, default_model, determined_by
from mnist_lightning.cli.safe_yaml import read_config
from mnist_lightning.console import printable
from mnist_lightning.errors import CheckpointError
from mnist_lightning.models.network import DETERMINED
from mnist_lightning.runs.run_folders import Located
from mnist_lightning.training.classifier import Classifier

CONFIG = "config.yaml"
NOTE = "# up to step"  # starts the lines that record what changed when a run was resumed


class Change(NamedTuple):
    """An option whose value differs between two configs; None stands for a value that a config lacks."""

    name: str  # dotted, such as `model.lr`
    old: Any
    new: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return the options that differ between two nested configs, by name; `ckpt_path` is ignored.

    >>> changes({"model": {"lr": 0.1}, "seed": 0}, {"model": {"lr": 0.2}, "seed": 0})
    [Change(name='model.lr', old=0.1, new=0.2)]
    """
    old, new = _leaves(before), _leaves(after)
    names = sorted((old.keys() | new.keys()) - {"ckpt_path"})
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves


class SaveConfig(SaveConfigCallback):
    """Write the complete config of a run into its log folder, so that `fit --config` can repeat the run.

    The file of a run that is resumed after some optimizer steps contains the options in effect, below comments with the
    previous values of those that changed.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, folder: Path, changed: Sequence[Change], step: int
    ) -> None:
        super().__init__(parser, config)
        self.path = folder / CONFIG
        self.notes = [f"{NOTE} {step}: {change.name} was {change.old!r}" for change in changed]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; Lightning's own method would wait for the other processes, which do not write."""
        before = self.path.read_text(errors="replace").splitlines() if self.path.is_file() else []
        notes = [line for line in before if line.startswith(NOTE)] + self.notes
        config = self.config.clone()
        config.pop("ckpt_path", None)  # otherwise `--ckpt_path last --config FILE` would not resume
        text = self.parser.dump(config, skip_unset=False)
        replace_file(self.path, "".join(f"{printable(note)}\n" for note in notes).encode() + text.encode())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file again if LearningRateFinder or BatchSizeFinder has found a value."""
        datamodule = getattr(trainer, "datamodule", None)
        for group, name, owner in (("model", "lr", pl_module), ("data", "batch_size", datamodule)):
            options, found = self.config[group], getattr(owner, "hparams", {}).get(name)
            if found is not None and options.get(name) not in (None, found):
                pl_module.print(f"{group}.{name}: {options[name]} was given, {found:g} was found")
                options[name] = found
                self.setup(trainer, pl_module, "fit")


def saved_arguments(located: Located, checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the options that a checkpoint was trained with, as a command line.

    Raises:
        CheckpointError: If the run has no saved config, or the checkpoint was not saved by this project.
    """
    if not located.run:
        options = saved_options(located, checkpoint)
        return [f"--{name}={json.dumps(value, default=str)}" for name, value in options.items()]
    config = located.run.logs / CONFIG
    if not config.is_file():
        raise CheckpointError(f"{config} is missing, and with it the options of the run; pass --config FILE")
    return ["--config", str(config)]


def saved_options(located: Located, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint was trained with: those of its run's saved config or its hyper-parameters.

    Raises:
        CheckpointError: If there is no saved config and the checkpoint was not saved by this project.
    """
    if located.run and (located.run.logs / CONFIG).is_file():
        return flat_config(read_config(located.run.logs / CONFIG))
    kind = data_of_content(checkpoint)
    model_class = default_model(kind)
    model, data = (checkpoint.get(key) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    known = signature(Classifier).parameters | signature(model_class).parameters
    if not isinstance(model, dict) or not {"lr"} <= model.keys() <= known.keys():
        raise CheckpointError(f"{located.path} was not saved by this project's {model_class.__name__}")
    if isinstance(network := model.get("network"), dict):
        init_args = {name: value for name, value in network["init_args"].items() if name not in DETERMINED}
        model = model | {"network": network | {"init_args": init_args}}
    groups = {"model": model, "data": data if isinstance(data, dict) else {}}
    linked = {*determined_by(kind), "seed"}  # not options: the data or another option determines them
    options = {
        group: {name: value for name, value in values.items() if name not in linked and value is not None}
        for group, values in groups.items()
    }
    return {"seed_everything": groups["data"].get("seed", 0), **options}
