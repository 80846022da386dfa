"""The kinds of data, each with its model and data module, and which kind a command line is about.

The options of a command depend on the kind, so it is determined before the command line is parsed.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule

from mnist_lightning.cli.safe_yaml import config_files, read_config, values_of
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

    It is named by `--data_kind` or a config file. Otherwise, it is that of the checkpoint, or of the options given.

    Raises:
        ConfigError: If there is no such kind.
    """
    root = Path(_option(args, "trainer.default_root_dir") or ".")
    reference = _option(args, "ckpt_path") or ("" if args[0] == "fit" else "best")
    name = (
        _option(args, OPTION)
        or next(filter(None, map(_kind_in_config, reversed(config_files(args)))), None)
        or (_kind_of_checkpoint(reference, root) if reference else None)
        or next((kind for kind, option in OPTION_OF.items() if values_of(args, f"--data.{option}")), KINDS[0])
    )
    if name not in KINDS:
        raise ConfigError(f"{OPTION} must be one of {', '.join(KINDS)}, got {name}")
    return name


def kind_of_content(checkpoint: Mapping[str, Any]) -> DataKind:
    """Return the kind of data that a checkpoint was trained on, going by its content."""
    if schema_from_plain(checkpoint.get("inputs")):
        return "table"
    schema = read_schema(checkpoint)
    return "pictures" if schema and schema.origin else "mnist"


def _kind_of_checkpoint(reference: str, root: Path) -> Any:
    """Return the kind that the config of a checkpoint's run names, or the kind of a file outside any run, or None."""
    path, is_named = Path(reference), re.fullmatch(run_folders.REFERENCE, reference)
    try:
        run = run_folders.named(reference, root) if is_named else run_folders.run_of(path)
        return _kind_in_config(run.logs / "config.yaml") if run else kind_of_content(read_checkpoint(path))
    except (CheckpointError, OSError, RuntimeError):  # RuntimeError: a loop of links; the command reports them
        return None


def _option(args: Sequence[str], name: str) -> str:
    """Return the last value of an option on a command line, or ""."""
    return (values_of(args, f"--{name}") or [""])[-1]


def _kind_in_config(file: str | Path) -> Any:
    """Return the entry `data_kind` of a config file; None if there is none or the file cannot be read."""
    try:
        return read_config(file).get(OPTION)
    except (ConfigError, OSError):  # reported when the file is parsed
        return None
