"""The LightningModule and the LightningDataModule of a command line, whose parameters are its options.

They are determined before the command line is parsed, so that `--help`, flat options and messages are those of the
class: as named, else those of the checkpoint, else the defaults.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning.pytorch import LightningDataModule, LightningModule

from mnist_lightning.cli.class_groups import GROUPS, named_classes, split_group
from mnist_lightning.cli.safe_yaml import CONFIG_OPTIONS, read_config, values_of
from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.data.image_folder.datamodule import PictureFolderDataModule
from mnist_lightning.data.image_schema import read_schema
from mnist_lightning.data.mnist.datamodule import MNISTDataModule
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.data.table.encoder import schema_from_plain
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.models.class_path import path_of, resolve_subclass
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.checkpoint_verification import read_checkpoint
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.table_classifier import TableClassifier

T = TypeVar("T")

# By options that name the data.
DATA_OF: dict[str, type[LightningDataModule]] = {"csv_file": TabularDataModule, "folder": PictureFolderDataModule}
OF_IMAGES = ("num_classes", "in_channels", "image_size")
OF_ROWS = ("num_classes", "in_features")


class Classes:
    """The classes that a command line is about.

    A class that cannot be imported, or is of another type, is a ConfigError.

    Args:
        args: The command line, from the subcommand on.
    """

    data: type[LightningDataModule]  # as named, else that of the checkpoint, else as the options tell
    model: type[LightningModule]  # as named, else that of the checkpoint, else the one that belongs to the data

    def __init__(self, args: Sequence[str]) -> None:
        reference = (values_of(args, "--ckpt_path") or ["" if args[0] == "fit" else "best"])[-1]
        root = Path((values_of(args, "--trainer.default_root_dir") or ["."])[-1])
        saved = {} if values_of(args, *CONFIG_OPTIONS) or not reference else _of_checkpoint(reference, root)
        by_option = next((kind for name, kind in DATA_OF.items() if values_of(args, f"--data.{name}")), MNISTDataModule)
        data, model = (next(named_classes(args, group), None) or saved.get(group) for group in GROUPS)
        self.data = _resolve("data", data, LightningDataModule) if data else by_option
        self.model = _resolve("model", model, LightningModule) if model else default_model(self.data)

    @property
    def paths(self) -> dict[str, str]:
        """The class path of each group that a config has to name, because it is not the default."""
        chosen = {"data": (self.data, MNISTDataModule), "model": (self.model, default_model(self.data))}
        return {group: path_of(kind) for group, (kind, default) in chosen.items() if kind is not default}


def _resolve(group: str, path: str, kind: type[T]) -> type[T]:
    try:
        return resolve_subclass(path, kind)
    except ConfigError as error:
        raise ConfigError(f"{group}: {error}") from error


def default_model(data: type[LightningDataModule]) -> type[Classifier]:
    """Return the model that belongs to a class of data modules."""
    return TableClassifier if issubclass(data, TabularDataModule) else Classifier


def determined_by(data: type[LightningDataModule]) -> tuple[str, ...]:
    """Return the names of the model arguments that a class of data modules determines."""
    if issubclass(data, TabularDataModule):
        return OF_ROWS
    own = issubclass(data, ClassificationDataModule)
    return tuple(name for name in {*OF_IMAGES, *OF_ROWS} if name in (OF_IMAGES if own else dir(data)))


def data_of_content(checkpoint: Mapping[str, Any]) -> type[LightningDataModule]:
    """Return the class of the data that a checkpoint was trained on, going by its content."""
    if schema_from_plain(checkpoint.get("inputs")):
        return TabularDataModule
    schema = read_schema(checkpoint)
    return PictureFolderDataModule if schema and schema.origin else MNISTDataModule


def _of_checkpoint(reference: str, root: Path) -> dict[str, str]:
    """Return the class paths in the saved config of a checkpoint's run, or that of the data of any other checkpoint."""
    path, is_named = Path(reference), re.fullmatch(run_folders.REFERENCE, reference)
    try:
        run = run_folders.named(reference, root) if is_named else run_folders.run_of(path)
        if run is None:
            return {"data": path_of(data_of_content(read_checkpoint(path)))}
        config = read_config(run.logs / "config.yaml")
    except (CheckpointError, ConfigError, OSError, RuntimeError):  # RuntimeError: a loop of links; reported later
        return {}
    groups = {group: split_group(group, config.get(group))[0] for group in GROUPS}
    return {"data": path_of(MNISTDataModule)} | {group: path for group, path in groups.items() if path}
