"""A trained network, read from a checkpoint together with the schema of its data."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from mnist_lightning.data.image_schema import ImageSchema, read_schema
from mnist_lightning.data.mnist.registry import DATASETS, MNIST, DatasetSource, trained_on
from mnist_lightning.data.table.encoder import TableSchema, schema_from_plain
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.evaluation import calibration
from mnist_lightning.evaluation.calibration import UNCALIBRATED, Calibration
from mnist_lightning.inference.pixel_network import PixelNetwork
from mnist_lightning.models.class_path import ClassPath, build, class_path_of
from mnist_lightning.models.cnn import SimpleCNN
from mnist_lightning.models.mlp import MLP
from mnist_lightning.runs import checkpoint_verification, run_folders

SchemaT = TypeVar("SchemaT", ImageSchema, TableSchema)


@dataclass(frozen=True)
class TrainedNetwork(Generic[SchemaT]):
    """A trained network, ready for inference."""

    network: nn.Module  # in evaluation mode, float32, on the CPU
    schema: SchemaT  # the images or rows that it takes, and its class names
    path: Path  # the checkpoint that it was read from
    epoch: int  # in which it was saved, from 0
    calibration: Calibration = UNCALIBRATED  # the temperature of its logits, and the threshold for unsure predictions
    run: run_folders.Run | None = None  # that trained it, if the checkpoint belongs to one
    data_dir: Path | None = None  # of its training, if the checkpoint names one; it may no longer exist
    dataset: DatasetSource = MNIST  # it was trained on; meaningless if the schema has an origin of its own
    class_path: ClassPath | None = None  # of a network that is neither SimpleCNN nor MLP

    @property
    def root(self) -> Path:
        """The folder that the paths of its training are relative to."""
        return self.run.root if self.run else Path()

    @property
    def pixel_network(self: "TrainedNetwork[ImageSchema]") -> PixelNetwork:
        """The network from uint8 pixels to probabilities."""
        schema = self.schema
        return PixelNetwork(self.network, schema.mean, schema.std, self.calibration.temperature, schema.shape)

    @property
    def preprocessing_warning(self: "TrainedNetwork[ImageSchema]") -> str | None:
        """A warning for those who show it their own images, or None if its training images were made as MNIST's."""
        if self.dataset.made_as_mnist or self.schema.origin:
            return None
        return (
            f"trained on {self.dataset.folder}, whose images were not made in the way in which images are preprocessed "
            "here, that of MNIST: expect more errors than in test"
        )


def load_network(kind: type[SchemaT], reference: str = "best", root: Path = Path()) -> TrainedNetwork[SchemaT]:
    """Read a network that was trained on images or on a table, whichever `kind` of schema is given.

    The checkpoint is found as `run_folders.locate` does. If there is none, or it is corrupted, of another network or of
    another kind, that is a CheckpointError.
    """
    located = run_folders.locate(reference, root)
    path = located.path
    checkpoint = checkpoint_verification.read_checkpoint(path)
    schema = schema_from_plain(checkpoint.get("inputs")) or read_schema(checkpoint)
    if schema is None:
        raise CheckpointError(f"{path} does not define what its network takes; it was not saved by this project's fit")
    if not isinstance(schema, kind):
        raise CheckpointError(
            f"{path} was trained on a table: predict takes a .csv file with it; "
            "images, export and demo need a network that was trained on images"
            if isinstance(schema, TableSchema)
            else f"{path} was not trained on a table: it cannot label the rows of a .csv file"
        )
    class_path = _class_path(checkpoint)
    try:
        network = build(class_path, nn.Module) if class_path else _build(schema, checkpoint["state_dict"])
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
    prefix = checkpoint_verification.NETWORK_PREFIX
    expected = {prefix + name: value for name, value in network.state_dict().items()}
    checkpoint_verification.check_weights(path, checkpoint, expected)
    weights = {name.removeprefix(prefix): checkpoint["state_dict"][name] for name in expected}
    network.to_empty(device="cpu").load_state_dict(weights)
    options = checkpoint.get("datamodule_hyper_parameters")
    data_dir = options.get("data_dir") if isinstance(options, dict) else None
    run_root = located.run.root if located.run else Path()
    return TrainedNetwork(
        network=network.eval(),
        schema=schema,
        path=path,
        epoch=checkpoint["epoch"],
        calibration=calibration.from_checkpoint(checkpoint) or UNCALIBRATED,
        run=located.run,
        data_dir=run_root / data_dir if isinstance(data_dir, str) else None,
        dataset=DATASETS[trained_on(checkpoint)],
        class_path=class_path,
    )


def _class_path(checkpoint: Mapping[str, Any]) -> ClassPath | None:
    """Return the class path of a network of the user's or of a library's."""
    options = checkpoint.get("hyper_parameters")
    network = options.get("network") if isinstance(options, dict) else None
    if not isinstance(network, dict) or network.get("class_path") == class_path_of(MLP)["class_path"]:
        return None
    return class_path_of(network)


def _build(schema: ImageSchema | TableSchema, weights: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network for the schema; the hidden widths of an MLP are those of the weights."""
    if isinstance(schema, ImageSchema):
        return SimpleCNN(num_classes=len(schema.class_names), in_channels=schema.channels, image_size=schema.height)
    widths = [len(value) for name, value in weights.items() if name.endswith(".bias") and value.ndim == 1]
    with torch.device("meta"):  # takes no memory: a forged checkpoint could ask for more weights than fit in it
        return MLP(schema.in_features, len(schema.class_names), [width for width in widths[:-1] if width])
