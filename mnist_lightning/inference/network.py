"""A trained network read from a checkpoint, with what its inputs and outputs mean."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mnist_lightning.data.image_schema import ImageSchema, read_schema
from mnist_lightning.data.mnist.registry import DATASETS, MNIST, DatasetSource, trained_on
from mnist_lightning.data.table.encoder import TableSchema, schema_from_plain
from mnist_lightning.errors import CheckpointError
from mnist_lightning.evaluation import calibration
from mnist_lightning.evaluation.calibration import UNCALIBRATED, Calibration
from mnist_lightning.inference.pixel_network import PixelNetwork
from mnist_lightning.models.cnn import SimpleCNN
from mnist_lightning.models.mlp import MLP
from mnist_lightning.runs import run_folders, verification


@dataclass(frozen=True)
class TrainedNetwork:
    """A network ready to be used.

    Args:
        network: In evaluation mode, float32, on the processor.
        schema: What it expects of an image, and its class names.
        path: The checkpoint it was read from.
        run: The run that trained it, if the checkpoint lies in one.
        epoch: Epoch it was saved in, from 0.
        data_dir: The folder of the data it was trained on, if the checkpoint says so; it may be gone since.
        calibration: How far its probabilities can be believed.
        dataset: What it was trained on.
    """

    network: SimpleCNN
    schema: ImageSchema
    path: Path
    run: run_folders.Run | None
    epoch: int
    data_dir: Path | None
    calibration: Calibration
    dataset: DatasetSource = MNIST

    @property
    def pixel_network(self) -> PixelNetwork:
        """The network from pixels to probabilities."""
        schema = self.schema
        return PixelNetwork(self.network, schema.mean, schema.std, self.calibration.temperature, schema.shape)

    @property
    def root(self) -> Path:
        """The folder that paths of the training are relative to."""
        return self.run.root if self.run else Path()

    @property
    def note(self) -> str:
        """What a person should know who shows it pictures; nothing where these are made as those it was trained on."""
        if self.dataset.made_as_mnist or self.schema.origin:
            return ""
        return (
            f"trained on {self.dataset.folder}, whose images were made in another way than pictures are prepared here, "
            "as MNIST's makers did: expect more mistakes than in test"
        )


@dataclass(frozen=True)
class TrainedTable:
    """A network for tables, ready to be used.

    Args:
        network: In evaluation mode, float32, on the processor.
        schema: What it expects of a table, and its class names.
        path: The checkpoint it was read from.
        epoch: Epoch it was saved in, from 0.
        calibration: How far its probabilities can be believed.
    """

    network: MLP
    schema: TableSchema
    path: Path
    epoch: int
    calibration: Calibration


def load_network(reference: str = "best", root: Path = Path()) -> TrainedNetwork:
    """Read a trained network.

    Args:
        reference: `best` or `last` of the newest run, `version_3/best`, `version_3/last`, or the path of a checkpoint.
        root: Folder that holds `lightning_logs` and `checkpoints`.

    Raises:
        CheckpointError: If there is none, or it is damaged or of another network.
    """
    located = run_folders.locate(reference, root)
    checkpoint = verification.read_checkpoint(located.path)
    if schema_from_plain(checkpoint.get("inputs")):
        raise CheckpointError(
            f"{located.path} was trained on a table: predict takes a .csv file for it; "
            "pictures, export and demo are for networks that were trained on images"
        )
    schema = read_schema(checkpoint)
    if schema is None:
        raise CheckpointError(
            f"{located.path} does not say what images its network takes; it was not saved by this project's fit"
        )
    network = SimpleCNN(num_classes=len(schema.class_names), in_channels=schema.channels, image_size=schema.height)
    verification.check_weights(located.path, checkpoint, network.state_dict())
    _load_weights(network, checkpoint)
    data_dir = _data_dir(checkpoint, located.run.root if located.run else Path())
    return TrainedNetwork(
        network=network,
        schema=schema,
        path=located.path,
        run=located.run,
        epoch=checkpoint["epoch"],
        data_dir=data_dir,
        calibration=calibration.from_checkpoint(checkpoint) or UNCALIBRATED,
        dataset=DATASETS[trained_on(checkpoint)],
    )


def load_table(reference: str = "best", root: Path = Path()) -> TrainedTable:
    """Read a network that was trained on a table.

    Args:
        reference: As `load` takes it.
        root: Folder that holds `lightning_logs` and `checkpoints`.

    Raises:
        CheckpointError: If there is none, or it is damaged or of another network.
    """
    located = run_folders.locate(reference, root)
    checkpoint = verification.read_checkpoint(located.path)
    schema = schema_from_plain(checkpoint.get("inputs"))
    if schema is None:
        raise CheckpointError(f"{located.path} was not trained on a table: it cannot label rows of a .csv file")
    weights = checkpoint["state_dict"].items()
    widths = [len(value) for name, value in weights if name.endswith(".bias") and value.ndim == 1]
    shape = (schema.in_features, len(schema.class_names), [width for width in widths[:-1] if width])
    with torch.device("meta"):  # the biases of a forged file can ask for more weights than any memory holds
        verification.check_weights(located.path, checkpoint, MLP(*shape).state_dict())
    network = MLP(*shape)
    _load_weights(network, checkpoint)
    calibrated = calibration.from_checkpoint(checkpoint) or UNCALIBRATED
    return TrainedTable(network, schema, located.path, checkpoint["epoch"], calibrated)


def _load_weights(network: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Give a network the weights of a checkpoint, and put it into evaluation mode."""
    weights = checkpoint["state_dict"]
    network.load_state_dict({name: weights[verification.NETWORK_PREFIX + name] for name in network.state_dict()})
    network.eval()


def _data_dir(checkpoint: dict[str, Any], root: Path) -> Path | None:
    try:
        data_dir = checkpoint["datamodule_hyper_parameters"]["data_dir"]
    except (KeyError, TypeError):
        return None
    return root / data_dir if isinstance(data_dir, str) else None
