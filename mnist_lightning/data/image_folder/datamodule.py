"""PictureFolderDataModule: a folder of images for each class, decoded once, split and served from memory."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.console import listed, printable
from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.image_folder import duplicates
from mnist_lightning.data.image_folder.cache import IMAGES, Decoded, cache_folder, decode, read_decoded
from mnist_lightning.data.image_folder.index import UNSPLIT, ClassFolders, Indices, is_text, read_class_folders
from mnist_lightning.data.image_schema import LEAST_SIDE, MOST_SIDE, ImageSchema, read_schema
from mnist_lightning.data.own_data import OwnDataModule
from mnist_lightning.data.samples import Samples
from mnist_lightning.data.splits import TrainingSource
from mnist_lightning.data.statistics import mean_and_std
from mnist_lightning.errors import CheckpointError, ConfigError, DatasetError, UserError


class PictureFolderDataModule(OwnDataModule):
    """A folder of images in memory: 70 % for training, 15 % for validation, 15 % for testing, stratified by class.

    `folder/cat/1.jpg` is an image of the class `cat`. If the folder holds folders `train`, `val` and `test` around
    those of the classes, they are the splits; a missing `val` or `test` is held out from the training images. Images
    are turned upright, resized to a square with black borders (their proportions kept) and decoded once, into
    `<data_dir>/pictures`. Images with equal pixels go to the same split; no image that is scored is trained on.

    Args:
        folder: The folder of images.
        size: Pixels a side that every image is resized to, in [8, 256]; larger ones show more detail and train slower.
        colour: Whether the network sees red, green and blue, or shades of grey.
        batch_size: Training images in a batch (on each process), at least 1.
        split_seed: Seed of the random split, at least 0; keep it fixed to compare runs on the same images.
        data_dir: Folder of the decoded images, created if missing; it must lie outside of `folder`.
        rotation: Largest angle, in degrees, by which a training image is rotated, in [0, 180). This and the amounts
            below are drawn anew for every image and epoch, uniformly between minus and plus the value; 0 switches one
            off.
        scale: Largest fraction by which a training image grows or shrinks, height and width each by its own draw, in
            [0, 1).
        shear: Largest angle, in degrees, by which a training image is slanted, in [0, 90).
        shift: Largest distance, in pixels, by which a training image is moved in each direction, at least 0.
        elastic: Standard deviation, in pixels, of a smooth random bending of training images, at least 0.
        flip: Probability of mirroring a training image left to right, in [0, 1); 0.5 if left and right do not matter.
        seed: Seed of the order of training images and of their augmentation, at least 0. The command line sets it to
            `seed_everything`.
    """

    def __init__(
        self,
        folder: str = "",
        size: int = 32,
        colour: bool = True,
        batch_size: int = 64,
        split_seed: int = 0,
        data_dir: str = "data",
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        flip: float = 0.0,
        seed: int = 0,
    ) -> None:
        augmentation = Augmentation(rotation, scale, shear, shift, elastic, flip)
        super().__init__(batch_size=batch_size, split_seed=split_seed, seed=seed, augmentation=augmentation)
        if not folder:
            raise ConfigError("data.folder must name a folder of images: --data.folder mine")
        for name, text in (("data.folder", folder), ("data.data_dir", data_dir)):
            if not is_text(text):
                raise ConfigError(f"{name} must be text, got {printable(text)}; rename the folder")
        if not LEAST_SIDE <= size <= MOST_SIDE:
            raise ConfigError(f"data.size must be in [{LEAST_SIDE}, {MOST_SIDE}], got {size}; 32 is usual")
        self.path = Path(folder).expanduser()
        self.size, self.channels = size, 3 if colour else 1
        self.cache = cache_folder(Path(data_dir).expanduser(), self.path, size, self.channels)
        if Path(os.path.realpath(self.cache)).is_relative_to(os.path.realpath(self.path)):
            fault = f"{printable(data_dir)} would be taken for a class; run the command in another folder"
            raise ConfigError(f"data.data_dir must lie outside of data.folder, where {fault}")
        self._schema: ImageSchema | None = None
        self._duplicates: duplicates.Pairs = []
        self.save_hyperparameters(logger=False)

    @cached_property
    def folders(self) -> ClassFolders:
        """The files in the folder."""
        return read_class_folders(self.path)

    @cached_property
    def decoded(self) -> Decoded:
        """The pixels of the images, once `prepare_data` has decoded them."""
        decoded = read_decoded(self.folders, self.cache, self.size, self.channels)
        if decoded is None:
            raise DatasetError(f"{self._name} changed while its images were read; start again")
        return decoded

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes: those of a checkpoint, or of the folders."""
        return self._schema.class_names if self._schema else self.folders.class_names

    @property
    def schema(self) -> ImageSchema:
        """Size, normalisation and classes: those of a checkpoint, or of the training images once they are set up."""
        if self._schema is None:
            raise ConfigError("the schema of the images is known once `prepare_data` and `setup('fit')` have run")
        return self._schema

    @property
    def model_arguments(self) -> dict[str, int]:
        """Model arguments determined by the data."""
        return {"num_classes": len(self.class_names), "in_channels": self.channels, "image_size": self.size}

    @property
    def files(self) -> list[Path]:
        """The file that images are read from."""
        return [self.cache / IMAGES]

    def restore(self, inputs: object) -> None:
        """Take the schema of a trained network, whose images must have had the same size and number of channels."""
        schema = read_schema({"inputs": inputs})
        if schema is None or schema.origin is None:
            raise CheckpointError("the checkpoint was not trained on a folder of images")
        if (self.size, self.channels) != (schema.height, schema.channels):
            wanted = f"{schema.height} and {str(schema.channels == 3).lower()}"
            raise ConfigError(f"data.size and data.colour must be those that the network was trained with: {wanted}")
        self._schema = schema

    def prepare_data(self) -> None:
        """Decode the images, once a machine."""
        decode(self.folders, self.cache, self.size, self.channels)

    def image_files(self, split: str) -> list[str]:
        """Return the files of `train`, `val` or `test`, relative to the folder, once `setup` has read the split."""
        return [self.folders.files[index] for index in self.samples(split).indices.tolist()]

    def _source(self) -> TrainingSource:
        digest = duplicates.training_digest(self.folders, self.decoded.digests)
        return TrainingSource(str(self.path), digest, self.split_seed, duplicates.missing_splits(self.folders))

    def _split(self, source: TrainingSource) -> dict[str, Samples]:
        splits, self._duplicates = duplicates.split_images(self.folders, self.decoded.digests, source.split_seed)
        if self._schema is None:
            mean, std = mean_and_std(self.decoded.images, splits["train"])
            self._schema = ImageSchema(self.size, self.size, mean, std, self.class_names, self.channels, source)
        return {name: self._samples(indices) for name, indices in splits.items()}

    def _given_split(self, split: str) -> Samples | None:
        if split not in self.folders.splits:
            return None
        return self._samples(duplicates.given_splits(self.folders, self.decoded.digests)[0][split])

    def _all_samples(self, split: str) -> Samples:
        if UNSPLIT not in self.folders.splits:
            raise DatasetError(f"{self._name} holds {', '.join(self.folders.splits)}, but no folder {split}")
        return self._samples(self.folders.splits[UNSPLIT])

    def _lacks_split(self, split: str) -> UserError:
        return DatasetError(f"{self._name} had a folder {split} when the network was trained on it, and has none now")

    def _samples(self, indices: Indices) -> Samples:
        return Samples(*self._tensors, torch.from_numpy(indices))

    @cached_property
    def _tensors(self) -> tuple[Tensor, Tensor]:
        """The images and their labels, int64 (N,), counted as the network counts the classes."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        if unknown := next((name for name in self.folders.class_names if name not in numbers), None):
            fault = f"{unknown} is not a class of this network: {listed(self.class_names)}"
            raise DatasetError(printable(f"{self.path / unknown}: {fault}"))
        label_of_class = np.array([numbers[name] for name in self.folders.class_names], np.int64)
        return torch.from_numpy(self.decoded.images), torch.from_numpy(label_of_class[self.folders.labels])

    def _description(self) -> list[str]:
        lines = [f"{self.path}: {self._split_sizes()}; {len(self.class_names)} classes: {listed(self.class_names)}"]
        shared = duplicates.in_two_classes(self.folders, self.decoded.digests)
        notes = {
            "not used, because they lie in no class folder": self.folders.strays,
            "removed as duplicates": [f"{one} (same pixels as {other})" for one, other in self._duplicates],
            "same pixels in two classes": [f"{one} and {other}" for one, other in shared],
        }
        return lines + [f"{note}: {listed(files)}" for note, files in notes.items() if files]
