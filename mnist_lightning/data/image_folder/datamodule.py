"""PictureFolderDataModule: a folder of pictures for each class, decoded once, split and served as MNIST is."""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule

from mnist_lightning.console import listed, printable
from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.image_folder.cache import IMAGES, Decoded, cache_folder, decode, read_decoded
from mnist_lightning.data.image_folder.duplicates import (
    given_parts,
    identity,
    in_two_classes,
    parts_to_cut,
    split_pictures,
)
from mnist_lightning.data.image_folder.index import WHOLE, ClassFolders, Indices, is_text, read_class_folders
from mnist_lightning.data.image_schema import LEAST_SIDE, MOST_SIDE, ImageSchema, read_schema
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.sharing import served_by
from mnist_lightning.data.splits import Origin
from mnist_lightning.data.statistics import mean_and_std
from mnist_lightning.errors import CheckpointError, ConfigError, DatasetError, require_at_least

USES = {"train": "train on", "val": "validate on", "test": "test on"}


class PictureFolderDataModule(LightningDataModule):
    """Pictures in folders, in memory: 70 % to train on, 15 % to validate on, 15 % to test on, of every class alike.

    `folder/cat/1.jpg` is a picture of the class `cat`. Where the folder holds folders `train`, `val` and `test` around
    those of the classes, they are the parts; `val` and `test`, if they are missing, are cut from the rest. Pictures are
    turned upright, resized to a square with black beside what is longer or wider, and decoded once, into
    `<data_dir>/pictures`. Pictures of the same pixels go to the same part; one that is in a part to validate or test on
    is not trained on.

    Args:
        folder: The folder.
        size: Pixels a side that every picture is resized to, in [8, 256].
        colour: Whether the network sees colours, or greys.
        batch_size: Training pictures a step (on each process), at least 1.
        split_seed: Seed of the split, at least 0; keep it fixed to compare runs on the same pictures.
        data_dir: Folder of the decoded pictures.
        rotation: Degrees by which each training picture is turned at most, in [0, 180); like the amounts below, drawn
            anew for every picture and epoch, uniformly between its negative and itself, and 0 for none.
        scale: Share by which a training picture grows or shrinks, height and width each by its own draw, in [0, 1).
        shear: Degrees by which a training picture is slanted, in [0, 90).
        shift: Pixels by which a training picture is moved in each direction, at least 0.
        elastic: Standard deviation, in pixels, of a smooth random bending of training pictures, at least 0.
        flip: Share of the training pictures that are mirrored, left for right, in [0, 1); 0.5 where sides mean nothing.
        seed: Seed of the order of training pictures and of their augmentation, at least 0. On the command line it is
            `seed_everything`.

    Raises:
        ConfigError: If the folder is not named or holds that of the decoded pictures, or a number is out of range.
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
        super().__init__()
        if not folder:
            raise ConfigError("data.folder must name a folder of pictures: --data.folder mine")
        for name, text in (("data.folder", folder), ("data.data_dir", data_dir)):
            if not is_text(text):
                raise ConfigError(f"{name} must be text, got {printable(text)}; rename the folder")
        require_at_least(1, "data.batch_size", batch_size)
        require_at_least(0, "data.split_seed", split_seed)
        require_at_least(0, "seed", seed)
        if not LEAST_SIDE <= size <= MOST_SIDE:
            raise ConfigError(f"data.size must be in [{LEAST_SIDE}, {MOST_SIDE}], got {size}; 32 is usual")
        try:
            self.augmentation = Augmentation(rotation, scale, shear, shift, elastic, flip)
        except ValueError as error:
            raise ConfigError(f"data.{error}") from error
        self.folder = Path(folder)
        self.size, self.channels = size, 3 if colour else 1
        self.batch_size = batch_size
        self.split_seed, self.seed = split_seed, seed
        self.cache = cache_folder(Path(data_dir), self.folder, size, self.channels)
        if Path(os.path.realpath(self.cache)).is_relative_to(os.path.realpath(folder)):
            raise ConfigError(
                f"data.data_dir must lie outside of data.folder, where {printable(data_dir)} would be taken for a "
                "class; type the command in another folder"
            )
        self._schema: ImageSchema | None = None
        self._parts: dict[str, Indices] = {}
        self.save_hyperparameters(logger=False)

    @cached_property
    def folders(self) -> ClassFolders:
        """What the folder holds."""
        return read_class_folders(self.folder)

    @cached_property
    def decoded(self) -> Decoded:
        """The pictures, once `prepare_data` has decoded them."""
        return read_decoded(self.folders, self.cache, self.size, self.channels)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes: a checkpoint's, or those of the folders."""
        return self._schema.class_names if self._schema else self.folders.class_names

    @property
    def model_options(self) -> dict[str, int]:
        """The arguments of a model that are the data's to say."""
        return {"num_classes": len(self.class_names), "in_channels": self.channels, "image_size": self.size}

    @property
    def schema(self) -> ImageSchema:
        """What the network takes: a checkpoint's, or what the training pictures say, once they were set up."""
        if self._schema is None:
            raise ConfigError("the form of the pictures is known once `prepare_data` and `setup('fit')` have run")
        return self._schema

    @property
    def files(self) -> list[Path]:
        """The files that images are read from."""
        return [self.cache / IMAGES]

    def restore(self, inputs: object) -> None:
        """Take the form of the pictures from a checkpoint, in place of what the folder would say.

        Args:
            inputs: What the checkpoint holds of that name.

        Raises:
            CheckpointError: If its network was not trained on folders of pictures.
            ConfigError: If pictures of another form are asked for.
        """
        schema = read_schema({"inputs": inputs})
        if schema is None or schema.origin is None:
            raise CheckpointError("the checkpoint was not trained on folders of pictures")
        if (self.size, self.channels) != (schema.height, schema.channels):
            raise ConfigError(
                f"data.size and data.colour must be those that the network was trained with: {schema.height} and "
                f"{str(schema.channels == 3).lower()}"
            )
        self._schema = schema

    def prepare_data(self) -> None:
        """Decode the pictures, once a machine."""
        decode(self.folders, self.cache, self.size, self.channels)

    def setup(self, stage: str) -> None:
        """Map the decoded pictures into memory and split them."""
        if stage == "fit":
            if "train" not in self._parts:
                self._split_to_train()
            self._say(*self._describe())
        else:
            part = "val" if stage == "validate" else "test"
            self._parts[part] = self._to_score(part)
            count, of = len(self._parts[part]), len(self.folders.files)
            self._say(f"{self.folder}: {count:,} of {of:,} pictures are scored")
        self._tensors = torch.from_numpy(self.decoded.images), torch.from_numpy(self._labels())

    def train_dataloader(self) -> BatchLoader:
        """Serve the training pictures, shuffled and augmented by (seed, epoch)."""
        return self._loader("train", self.batch_size, self.seed, self.augmentation or None)

    def val_dataloader(self) -> BatchLoader:
        """Serve the validation pictures, in the order of their names."""
        return self._loader("val", self.schema.eval_batch_size)

    def test_dataloader(self) -> BatchLoader:
        """Serve every test picture, in the order of their names."""
        return self._loader("test", self.schema.eval_batch_size)

    def part(self, name: str) -> list[str]:
        """Return the pictures of `train`, `val` or `test`, relative to the folder, once they were set up."""
        return [self.folders.files[place] for place in self._parts[name]]

    def _split_to_train(self) -> None:
        """Split what the folder holds, and say what its training pictures look like where no checkpoint does."""
        self._split = split_pictures(self.folders, self.decoded.digests, self.split_seed)
        self._parts = dict(self._split.parts)
        cut = parts_to_cut(self.folders)
        origin = Origin(str(self.folder), identity(self.folders, self.decoded.digests), self.split_seed, cut)
        if self._schema and self._schema.origin:
            before = self._schema.origin
            if _same_place(origin.path, before.path) and origin.sha256 != before.sha256:
                raise DatasetError(
                    f"{printable(str(self.folder))} has changed since the run began; a run goes on with the same "
                    "pictures only"
                )
        if self._schema is None:
            mean, std = mean_and_std(self.decoded.images, self._parts["train"])
            self._schema = ImageSchema(self.size, self.size, mean, std, self.class_names, self.channels)
        self._schema = replace(self._schema, origin=origin)

    def _to_score(self, part: str) -> Indices:
        """Return the places of the pictures to validate or test on."""
        origin = self.schema.origin
        assert origin
        given, name = self.folders.parts, printable(str(self.folder))
        if part in self._parts:
            return self._parts[part]
        if part in given:
            return given_parts(self.folders, self.decoded.digests)[0][part]
        if identity(self.folders, self.decoded.digests) == origin.sha256:
            if part not in origin.cut:
                raise DatasetError(f"{name} had a folder {part} when the network was trained on it, and has none now")
            if self.split_seed != origin.split_seed:
                raise ConfigError(
                    f"data.split_seed must be that of the training, {origin.split_seed}; with another, pictures it was "
                    "trained on would be scored"
                )
            return split_pictures(self.folders, self.decoded.digests, self.split_seed).parts[part]
        if _same_place(str(self.folder), origin.path):
            raise DatasetError(
                f"{name} has changed since the network was trained on it, so its {part} pictures are not known any "
                "more; another folder is scored whole"
            )
        if WHOLE not in given:
            raise DatasetError(f"{name} holds {', '.join(given)}, but no folder {part}")
        return given[WHOLE]

    def _labels(self) -> Indices:
        """Return the label of each picture, int64 (N,), as the network counts the classes."""
        numbers = {name: number for number, name in enumerate(self.class_names)}
        if unknown := next((name for name in self.folders.class_names if name not in numbers), None):
            raise DatasetError(
                f"{printable(str(self.folder / unknown))}: {printable(unknown)} is no class of this network: "
                f"{printable(listed(self.class_names))}"
            )
        of_class = np.array([numbers[name] for name in self.folders.class_names], np.int64)
        return of_class[self.folders.labels]

    def _loader(
        self, part: str, batch_size: int, shuffle_seed: int | None = None, augmentation: Augmentation | None = None
    ) -> BatchLoader:
        images, labels = self._tensors
        places = self._parts[part]
        return BatchLoader(
            images,
            labels,
            indices=torch.from_numpy(places),
            batch_size=batch_size,
            mean=self.schema.mean,
            std=self.schema.std,
            shuffle_seed=shuffle_seed,
            augmentation=augmentation,
            **served_by(self.trainer, len(places), batch_size, shuffle_seed, noun="pictures"),
        )

    def _say(self, *lines: str) -> None:
        if not self.trainer or self.trainer.is_global_zero:
            print("\n".join(map(printable, lines)))

    def _describe(self) -> list[str]:
        """Return what was made of the folder, in lines."""
        counts = ", ".join(f"{len(self._parts[part]):,} to {use}" for part, use in USES.items())
        lines = [f"{self.folder}: {counts}; {len(self.class_names)} classes: {listed(self.class_names)}"]
        if strays := self.folders.strays:
            lines.append(f"in no class's folder, and left out: {listed(strays)}")
        if copies := self._split.copies:
            lines.append(f"left out, the same pixels being scored: {_pairs(copies)}")
        if twice := in_two_classes(self.folders, self.decoded.digests):
            lines.append(f"the same pixels in two classes: {_pairs(twice)}")
        return lines


def _same_place(one: str, other: str) -> bool:
    return Path(one).absolute() == Path(other).absolute()


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return listed([f"{one} as {other}" for one, other in pairs])
