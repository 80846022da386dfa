"""The kinds of data, each with its model and data module, and which kind a command line is about.

The options of a command depend on the kind, so it is determined before the command line is parsed.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from mnist_lightning.cli.safe_yaml import config_files, read_config
from mnist_lightning.data.image_folder.datamodule import PictureFolderDataModule
from mnist_lightning.data.image_schema import read_schema
from mnist_lightning.data.mnist.datamodule import MNISTDataModule
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.data.table.encoder import schema_from_plain
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.checkpoint_verification import read_checkpoint
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.table_classifier import TableClassifier

DataKind = Literal["mnist", "pictures", "table"]
KINDS: tuple[DataKind, ...] = get_args(DataKind)
OPTION = "data_kind"


@dataclass(frozen=True)
class Pair:
    """The classes for a kind of data.

    Args:
        model: The LightningModule.
        data: The LightningDataModule.
        from_data: Arguments of the model that the data determine: they are not options.
    """

    model: type[Classifier]
    data: type[LightningDataModule]
    from_data: tuple[str, ...]


OF_IMAGES = ("num_classes", "in_channels", "image_size")
PAIRS: Mapping[DataKind, Pair] = {
    "mnist": Pair(Classifier, MNISTDataModule, OF_IMAGES),
    "pictures": Pair(Classifier, PictureFolderDataModule, OF_IMAGES),
    "table": Pair(TableClassifier, TabularDataModule, ("in_features", "num_classes")),
}
OPTION_OF: Mapping[DataKind, str] = {"table": "csv_file", "pictures": "folder"}  # data options of one kind only


def kind_of_command(args: Sequence[str]) -> DataKind:
    """Return the kind of data that a command line is about.

    It is named by `--data_kind` or by a config file; otherwise it is that of the checkpoint, or of the options given.

    Raises:
        ConfigError: If there is no such kind, or the options contradict the checkpoint.
    """
    if name := _option(args, OPTION):
        return _checked(name, f"--{OPTION}")
    for file in reversed(config_files(args)):
        if name := _kind_in(Path(file)):
            return _checked(name, f"{OPTION} in {file}")
    reference = _option(args, "ckpt_path") or ("" if args[0] == "fit" else "best")
    given = next((kind for kind, option in OPTION_OF.items() if _option(args, f"data.{option}") is not None), None)
    root = Path(_option(args, "trainer.default_root_dir") or ".")
    trained = kind_of_checkpoint(reference, root) if reference else None
    if given and trained and given != trained:
        raise ConfigError(
            f"--data.{OPTION_OF[given]} is for the data kind {given}, but {reference} was trained on {trained}; "
            "pass the --ckpt_path of another run"
        )
    return trained or given or KINDS[0]


def kind_of_checkpoint(reference: str, root: Path) -> DataKind | None:
    """Return the kind of data that a checkpoint was trained on; None if the checkpoint cannot be read.

    Args:
        reference: As `run_folders.locate` takes it.
        root: Folder that contains `lightning_logs` and `checkpoints`.
    """
    path = Path(reference)
    try:
        is_named = re.fullmatch(run_folders.REFERENCE, reference)
        run = run_folders.named(reference, root) if is_named else run_folders.run_of(path)
        name = _kind_in(run.logs / "config.yaml") if run else None
        if kind := next((kind for kind in KINDS if kind == name), None):
            return kind
        checkpoint = read_checkpoint(run.checkpoints / f"{reference.split('/')[-1]}.ckpt" if run else path)
    except (CheckpointError, OSError, RuntimeError):  # RuntimeError: a loop of links; the command reports them
        return None
    return kind_of_content(checkpoint)


def kind_of_content(checkpoint: Mapping[str, Any]) -> DataKind:
    """Return the kind of data that a checkpoint was trained on, going by its content."""
    if schema_from_plain(checkpoint.get("inputs")):
        return "table"
    schema = read_schema(checkpoint)
    return "pictures" if schema and schema.origin else "mnist"


def _option(args: Sequence[str], name: str) -> str | None:
    """Return the last value of an option on a command line, or None."""
    pairs = [*itertools.pairwise(args), *(arg.split("=", 1) for arg in args if "=" in arg)]
    return next((value for option, value in reversed(pairs) if option == f"--{name}"), None)


def _kind_in(file: Path) -> Any:
    """Return the entry `data_kind` of a config file; None if there is none or the file cannot be read."""
    try:
        return read_config(file).get(OPTION)
    except (ConfigError, OSError):  # reported when the file is parsed
        return None


def _checked(name: object, where: str) -> DataKind:
    for kind in KINDS:
        if name == kind:
            return kind
    raise ConfigError(f"{where} must be one of {', '.join(KINDS)}, got {name}")
