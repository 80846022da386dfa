"""The options that a checkpoint was trained with: from its run's config or, without one, from the checkpoint itself."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from mnist_lightning.errors import CheckpointError
from mnist_lightning.option_groups import GROUPS
from mnist_lightning.runs import Located
from mnist_lightning.terminal import tell

CONFIG = "config.yaml"


def saved_config(located: Located) -> Path | None:
    """Return the file of the options that a checkpoint's run had last, if it is there."""
    saved = located.run.logs / CONFIG if located.run else None
    return saved if saved and saved.is_file() else None


def saved_options(located: Located, checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the options that a checkpoint was trained with, as a command line.

    Raises:
        CheckpointError: If it was not saved by this project.
    """
    held = held_options(located, checkpoint)
    if saved := saved_config(located):
        return ["--config", str(saved)]
    if run := located.run:
        tell(f"{run.logs / CONFIG} is missing: going by the options that {located.path} holds")
    seed = f"--seed_everything={held.pop('seed_everything')}"
    return [seed, *(f"--{group}.{name}={value}" for group in held for name, value in held[group].items())]


def held_options(located: Located, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint itself holds: the seed, those of the model and those of the data.

    Raises:
        CheckpointError: If it was not saved by this project.
    """
    hparams, data = (checkpoint.get(key) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    model = _plain_options(hparams, GROUPS["model"])
    if not {"lr", "seed"} <= model.keys() or model != hparams:
        raise CheckpointError(f"{located.path} was not saved by this project's Classifier")
    data = {name: value for name, value in _plain_options(data, GROUPS["data"]).items() if name != "seed"}
    return {"seed_everything": model.pop("seed"), "model": model, "data": data}


def _plain_options(values: object, known: Container[str]) -> dict[str, Any]:
    """Return what is a number or text in a dictionary out of a checkpoint, of known names only."""
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if name in known and isinstance(value, int | float | str)}
