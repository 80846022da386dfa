"""The options that a run was trained with: saved beside its logs, read from there or from a checkpoint itself."""

import json
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.cli.changes import Change
from mnist_lightning.cli.tasks import PAIRS, kind_of_content
from mnist_lightning.cli.validation import groups_of
from mnist_lightning.console import print_stderr, printable
from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs.run_folders import Located

CONFIG = "config.yaml"
NOTE = "# up to step"  # begins the lines that say what a resumption changed


class SaveConfig(SaveConfigCallback):
    """Write the complete config of a training run into its log folder, for `fit --config` to use again.

    A resumed run's file holds the options in force; what they were before stands above them, in comments.

    Args:
        parser: The parser of `fit`.
        config: What it parsed.
        folder: The run's log folder.
        changed: The options that differ from those before, when the run is resumed.
        step: The optimizer step that it is resumed after.
    """

    def __init__(
        self, parser: LightningArgumentParser, config: Namespace, folder: Path, changed: Sequence[Change], step: int
    ) -> None:
        super().__init__(parser, config, save_to_log_dir=False)
        self.path = folder / CONFIG
        self.notes = [f"{NOTE} {step}: {change.name} was {change.old!r}" for change in changed]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; Lightning's own would wait for the other processes, which have none to write."""
        self.save_config(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the file; a resumed run's replaces the one from before."""
        before = self.path.read_text(errors="replace").splitlines() if self.path.is_file() else []
        notes = [line for line in before if line.startswith(NOTE)] + self.notes
        text = self.parser.dump(self.config, skip_unset=False)
        replace_file(self.path, "".join(f"{printable(note)}\n" for note in notes).encode() + text.encode())


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
        print_stderr(f"{run.logs / CONFIG} is missing: going by the options that {located.path} holds")
    seed = f"--seed_everything={held.pop('seed_everything')}"
    return [seed, *(f"--{group}.{name}={_typed(value)}" for group in held for name, value in held[group].items())]


def held_options(located: Located, checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint itself holds: the seed, those of the model and those of the data.

    Raises:
        CheckpointError: If it was not saved by this project.
    """
    hparams, data = (checkpoint.get(key) for key in ("hyper_parameters", "datamodule_hyper_parameters"))
    kind = kind_of_content(checkpoint)
    groups, said_by_data = groups_of(kind), PAIRS[kind].from_data
    model = _plain_options(hparams, (*groups["model"], *said_by_data))
    if "lr" not in model or model != hparams:
        raise CheckpointError(f"{located.path} was not saved by this project's {PAIRS[kind].model.__name__}")
    model = {name: value for name, value in model.items() if name in groups["model"]}
    data = _plain_options(data, groups["data"])
    return {"seed_everything": data.pop("seed", 0), "model": model, "data": data}


def _plain_options(values: object, known: Container[str]) -> dict[str, Any]:
    """Return what is a number, a text or a list of them in a dictionary out of a checkpoint, of known names only."""
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if name in known and _is_plain(value)}


def _is_plain(value: object) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return all(isinstance(item, int | float | str) for item in items)


def _typed(value: object) -> object:
    """Return a value as it is typed on a command line."""
    return json.dumps(value) if isinstance(value, list | tuple) else value
