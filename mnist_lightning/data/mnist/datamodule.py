"""MNISTDataModule: MNIST and related data sets, split into training, validation and test images."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.data.image_schema import SIDE, ImageSchema
from mnist_lightning.data.mnist import contents, fetch
from mnist_lightning.data.mnist.registry import DATASETS, DatasetName, DatasetSource
from mnist_lightning.data.samples import Samples
from mnist_lightning.errors import ConfigError, require_at_least


class MNISTDataModule(ClassificationDataModule):
    """MNIST or a related data set in memory: for MNIST, 55,000 training, 5,000 validation and 10,000 test images.

    Validation images are cut from the training file; the test file is read for testing only. Images are upright and
    labels count from 0, whatever the files hold. Mean and standard deviation are known for MNIST and Fashion-MNIST, and
    computed from the training file for the others and for your own IDX files, whose classes are counted there too.

    Args:
        data_dir: Folder of the data, created if missing; MNIST's four files go to `<data_dir>/MNIST/raw`, where
            torchvision looks too.
        batch_size: Training images in a batch (on each process), at least 1.
        val_size: Number of images cut from the training file for validation, at least 0; 0 trains on every image and
            validates on none.
        split_seed: Seed of that cut, at least 0; keep it fixed to compare runs on the same validation images.
        dataset: The data set. `emnist_balanced` has digits and letters in 47 classes, `emnist_letters` 26 letters,
            `emnist_byclass` 10 digits, 26 capital and 26 small letters.
        source: Where missing files come from: `download` (https mirrors only), `bundled` (the copy of MNIST in this
            package only), `auto` (mirrors first, then that copy) or `files` (your own IDX files, used as they are).
        mirrors: https addresses of folders that hold the four `.gz` files (or EMNIST's `gzip.zip`), tried in this order
            instead of the known mirrors.
        rotation: Largest angle, in degrees, by which a training image is rotated, in [0, 180). This and the amounts
            below are drawn anew for every image and epoch, uniformly between minus and plus the value; 0 switches one
            off.
        scale: Largest fraction by which a training image grows or shrinks, height and width each by its own draw, in
            [0, 1).
        shear: Largest angle, in degrees, by which a training image is slanted, in [0, 90).
        shift: Largest distance, in pixels, by which a training image is moved in each direction, at least 0.
        elastic: Standard deviation, in pixels, of a smooth random bending of training images, at least 0.
        seed: Seed of the order of training images and of their augmentation, at least 0. The command line sets it to
            `seed_everything`.
    """

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 64,
        val_size: int = 5_000,
        split_seed: int = 0,
        dataset: DatasetName = "mnist",
        source: fetch.Source = "auto",
        mirrors: list[str] | None = None,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        seed: int = 0,
    ) -> None:
        augmentation = Augmentation(rotation, scale, shear, shift, elastic)
        super().__init__(batch_size=batch_size, split_seed=split_seed, seed=seed, augmentation=augmentation)
        if dataset not in DATASETS:
            raise ConfigError(f"data.dataset must be one of {', '.join(DATASETS)}, got {dataset}")
        require_at_least(0, "data.val_size", val_size)
        self.data_dir = Path(data_dir).expanduser()
        self._published = DATASETS[dataset]
        self.folder = self.data_dir / self._published.folder / "raw"
        self.val_size = val_size
        self.source, self.mirrors = source, mirrors
        self._schema: ImageSchema | None = None
        self.save_hyperparameters(logger=False)  # `RunSummary` logs them at the end of the run

    @cached_property
    def dataset(self) -> DatasetSource:
        """The data set: a published one, or what your own IDX files hold."""
        return contents.described(self._published, self.data_dir, self.source)

    @property
    def schema(self) -> ImageSchema:
        """Size, normalisation and classes; reads the training file if mean and standard deviation are not known."""
        self._schema = self._schema or contents.schema_of(self.dataset, self.folder)
        return self._schema

    @property
    def model_arguments(self) -> dict[str, int]:
        """Model arguments determined by the data."""
        return {"num_classes": len((self._schema or self.dataset).class_names), "in_channels": 1, "image_size": SIDE}

    @property
    def files(self) -> list[Path]:
        """The files that images and labels are read from."""
        return [self.folder / file.name for file in self.dataset.files]

    def restore(self, inputs: object) -> None:
        """Normalise the images as a trained network expects them, if its classes are those of this data set."""
        self._schema = contents.restored(inputs, self.dataset) or self._schema

    def prepare_data(self) -> None:
        """Put the four files into the data folder, once a machine."""
        fetch.fetch(self.dataset, self.data_dir, source=self.source, mirrors=self.mirrors)

    def _read_splits(self, stage: str) -> None:
        """Map the files into memory and split the training file."""
        if stage == "fit":
            contents.check_same(self.schema, self.dataset, self.folder)
        if stage in ("fit", "validate"):
            images, labels = self._read("train")
            train, val = self.split(len(labels))
            self._splits |= {"train": Samples(images, labels, train), "val": Samples(images, labels, val)}
        else:
            images, labels = self._read("test")
            self._splits["test"] = Samples(images, labels, torch.arange(len(labels)))

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Return int64 indices of the training and the validation images among `count`, each in ascending order."""
        if self.val_size >= count:
            raise ConfigError(
                f"data.val_size must be in [0, {count - 1}], got {self.val_size}: the training file has {count} images"
            )
        shuffled = np.random.default_rng(self.split_seed).permutation(count)
        train, val = np.sort(shuffled[self.val_size :]), np.sort(shuffled[: self.val_size])
        return torch.from_numpy(train), torch.from_numpy(val)

    def _read(self, split: fetch.Split) -> tuple[Tensor, Tensor]:
        images, labels = contents.read_split(self.dataset, self.folder, split)
        return torch.from_numpy(images), torch.from_numpy(labels)
