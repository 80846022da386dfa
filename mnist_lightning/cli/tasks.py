"""The kinds of data that there are, each with what trains on it; which one a command is about, before it is parsed.

The options of a command depend on it, so it is looked for on the command line and in config files by hand.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from mnist_lightning.cli.config import read_config
from mnist_lightning.cli.parser import config_files
from mnist_lightning.data.image_folder.datamodule import PictureFolderDataModule
from mnist_lightning.data.image_schema import read_schema
from mnist_lightning.data.mnist.datamodule import MNISTDataModule
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.data.table.encoder import schema_from_plain
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.verification import read_checkpoint
from mnist_lightning.training.callbacks.result_writer import ScoreReport
from mnist_lightning.training.callbacks.table_result_writer import TableScoreReport
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.table_classifier import TableClassifier

DataKind = Literal["mnist", "pictures", "table"]
KINDS: tuple[DataKind, ...] = get_args(DataKind)
OPTION = "data_kind"


@dataclass(frozen=True)
class Pair:
    """What trains on a kind of data.

    Args:
        model: The LightningModule.
        data: The LightningDataModule.
        score_report: What tells and files its scores.
        from_data: Arguments of the model that the data say: they are no options.
    """

    model: type[Classifier]
    data: type[LightningDataModule]
    score_report: type[ScoreReport]
    from_data: tuple[str, ...]


FORM = ("num_classes", "in_channels", "image_size")  # of images

PAIRS: Mapping[DataKind, Pair] = {
    "mnist": Pair(Classifier, MNISTDataModule, ScoreReport, FORM),
    "pictures": Pair(Classifier, PictureFolderDataModule, ScoreReport, FORM),
    "table": Pair(TableClassifier, TabularDataModule, TableScoreReport, ("in_features", "num_classes")),
}
OPTION_OF: Mapping[DataKind, str] = {"table": "csv_file", "pictures": "folder"}  # of the data, that no other kind has


def kind_of_command(args: Sequence[str]) -> DataKind:
    """Return the kind of data that a command is about.

    It is what the command line says, or a config file on it, or that of the run whose checkpoint is asked for, or else
    the one that has the options given.

    Raises:
        ConfigError: If it is none that there is.
    """
    if said := _option(args, OPTION):
        return _checked(said, f"--{OPTION}")
    for file in reversed(config_files(args)):
        if said := _said_in(Path(file)):
            return _checked(said, f"{OPTION} in {file}")
    reference = _option(args, "ckpt_path") or ("" if args[0] == "fit" else "best")
    given = next((kind for kind, option in OPTION_OF.items() if _option(args, f"data.{option}") is not None), None)
    if reference:
        trained = kind_of_checkpoint(reference, Path(_option(args, "trainer.default_root_dir") or "."))
        if given and trained and given != trained:
            raise ConfigError(
                f"--data.{OPTION_OF[given]} is for networks of the data kind {given}, and {reference} is one of "
                f"{trained}; pass the --ckpt_path of another run"
            )
        return trained or given or KINDS[0]
    return given or KINDS[0]


def kind_of_checkpoint(reference: str, root: Path) -> DataKind | None:
    """Return the kind of data that a checkpoint was trained on; None where it cannot be told.

    Args:
        reference: As `run_folders.locate` takes it.
        root: Folder that holds `lightning_logs` and `checkpoints`.
    """
    path = Path(reference)
    try:
        run = (
            run_folders.named(reference, root)
            if re.fullmatch(run_folders.REFERENCE, reference)
            else run_folders.run_of(path)
        )
        said = _said_in(run.logs / "config.yaml") if run else None
        for kind in KINDS:
            if said == kind:
                return kind
        checkpoint = read_checkpoint(run.checkpoints / f"{reference.split('/')[-1]}.ckpt" if run else path)
    except (CheckpointError, OSError, RuntimeError):  # the last for a loop of links; the command itself will say so
        return None
    return kind_of_content(checkpoint)


def kind_of_content(checkpoint: Mapping[str, Any]) -> DataKind:
    """Return the kind of data that a checkpoint's content says."""
    if schema_from_plain(checkpoint.get("inputs")):
        return "table"
    schema = read_schema(checkpoint)
    return "pictures" if schema and schema.origin else "mnist"


def _option(args: Sequence[str], name: str) -> str | None:
    """Return the last value that a command line gives to an option; None where it gives none."""
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    return next((value for option, value in reversed(pairs) if option == f"--{name}"), None)


def _said_in(file: Path) -> Any:
    """Return what a config file says the data are; nothing where it says nothing, or cannot be read yet."""
    try:
        return read_config(file).get(OPTION)
    except (ConfigError, OSError):  # whoever uses the file will say so
        return None


def _checked(said: object, where: str) -> DataKind:
    for kind in KINDS:
        if said == kind:
            return kind
    raise ConfigError(f"{where} must be one of {', '.join(KINDS)}, got {said}")
