"""MNISTDataModule: the files of MNIST or its family, cut into training, validation and test, and their loaders."""

from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor

from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.image_schema import SIDE, ImageSchema, read_schema
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.mnist import fetch
from mnist_lightning.data.mnist.registry import DATASETS, DatasetName
from mnist_lightning.data.sharing import served_by
from mnist_lightning.data.statistics import mean_and_std
from mnist_lightning.errors import ConfigError, DatasetError, require_at_least


class MNISTDataModule(LightningDataModule):
    """MNIST or one of its family in memory: of MNIST 55,000 images to train on, 5,000 to validate on, 10,000 to test.

    Validation images are cut from the training file; the test file is read for testing only. Images are upright and
    labels count from 0, whatever the files have. Where mean and standard deviation of the training images are not
    known beforehand (KMNIST, EMNIST and QMNIST), they are computed from the training file.

    Args:
        data_dir: Folder of the data; MNIST's files go to `<data_dir>/MNIST/raw`, where torchvision looks too.
        batch_size: Training images a step (on each process), at least 1.
        val_size: Images cut from the training file for validation; 0 trains on every image.
        split_seed: Seed of that cut, at least 0; keep it fixed to compare runs on the same validation images.
        dataset: Which of the family. `emnist_balanced` has digits and letters in 47 classes, `emnist_letters` 26
            letters, `emnist_byclass` 10 digits, 26 capitals and 26 small letters.
        source: Where missing files come from: `download` (https mirrors only), `bundled` (MNIST's copy in the package
            only), `auto` (mirrors, then that copy) or `files` (your own IDX files, taken as they are).
        mirrors: https addresses of folders that hold the four `.gz` files (or EMNIST's `gzip.zip`), tried in this
            order in place of the known ones.
        rotation: Degrees by which each training image is turned at most, in [0, 180); like the amounts below, drawn
            anew for every image and epoch, uniformly between its negative and itself, and 0 for none.
        scale: Share by which a training image grows or shrinks, height and width each by its own draw, in [0, 1).
        shear: Degrees by which a training image is slanted, in [0, 90).
        shift: Pixels by which a training image is moved in each direction, at least 0.
        elastic: Standard deviation, in pixels, of a smooth random bending of training images, at least 0.
        seed: Seed of the order of training images and of their augmentation, at least 0. On the command line it is
            `seed_everything`.

    Raises:
        ConfigError: If a number is out of range, or there is no such data set.
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
        super().__init__()
        if dataset not in DATASETS:
            raise ConfigError(f"data.dataset must be one of {', '.join(DATASETS)}, got {dataset}")
        require_at_least(1, "data.batch_size", batch_size)
        require_at_least(0, "data.val_size", val_size)
        require_at_least(0, "data.split_seed", split_seed)
        require_at_least(0, "seed", seed)
        try:
            self.augmentation = Augmentation(rotation, scale, shear, shift, elastic)
        except ValueError as error:
            raise ConfigError(f"data.{error}") from error
        self.dataset = DATASETS[dataset]
        self.folder = Path(data_dir) / self.dataset.folder / "raw"
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.source = source
        self.mirrors = mirrors
        self.seed = seed
        # Not to the logger: it gets one table of hyper-parameters, written at the end of the run.
        self.save_hyperparameters(logger=False)

    @property
    def model_options(self) -> dict[str, int]:
        """The arguments of a model that are the data's to say."""
        return {"num_classes": len(self.dataset.class_names), "in_channels": 1, "image_size": SIDE}

    def prepare_data(self) -> None:
        """Put the four files into the data folder, once a machine."""
        fetch.fetch(self.dataset, self.data_dir, source=self.source, mirrors=self.mirrors)

    @property
    def files(self) -> list[Path]:
        """The files that images and labels are read from."""
        return [self.folder / file.name for file in self.dataset.files]

    @cached_property
    def schema(self) -> ImageSchema:
        """The form of the images, and their class names; reads the training file where mean and std are not known."""
        mean, std = self.dataset.statistics or mean_and_std(fetch.read_train(self.dataset, self.folder)[0])
        return ImageSchema(SIDE, SIDE, mean, std, self.dataset.class_names)

    def restore(self, inputs: object) -> None:
        """Normalise the images as a trained network expects them, if it was trained on this data set.

        Args:
            inputs: What its checkpoint holds of that name.
        """
        schema = read_schema({"inputs": inputs})
        if schema and schema.class_names == self.dataset.class_names:
            self.schema = schema

    def setup(self, stage: str) -> None:
        """Map the files into memory and split the training file."""
        if stage in ("fit", "validate"):
            self.train_file = self._tensors("train", *fetch.read_train(self.dataset, self.folder))
            self.train_indices, self.val_indices = self.split(len(self.train_file[1]))
        if stage == "test":
            self.test_file = self._tensors("test", *fetch.read_test(self.dataset, self.folder))

    def split(self, count: int) -> tuple[Tensor, Tensor]:
        """Return int64 indices of the training and the validation images among `count`, each in ascending order.

        Raises:
            ConfigError: If validation would leave no image to train on.
        """
        if self.val_size >= count:
            raise ConfigError(
                f"data.val_size must be in [0, {count - 1}], got {self.val_size}: the training file has {count} images"
            )
        shuffled = np.random.default_rng(self.split_seed).permutation(count)
        train, val = np.sort(shuffled[self.val_size :]), np.sort(shuffled[: self.val_size])
        return torch.from_numpy(train), torch.from_numpy(val)

    def train_dataloader(self) -> BatchLoader:
        """Serve the training images, shuffled and augmented by (seed, epoch)."""
        return self._loader(
            self.train_file,
            self.train_indices,
            self.batch_size,
            shuffle_seed=self.seed,
            augmentation=self.augmentation or None,
        )

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Serve the validation images in file order; nothing when there are none."""
        return self._loader(self.train_file, self.val_indices, self.schema.eval_batch_size) if self.val_size else []

    def test_dataloader(self) -> BatchLoader:
        """Serve every test image, in file order."""
        return self._loader(self.test_file, None, self.schema.eval_batch_size)

    def _tensors(self, split: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        if images.shape[1:] != (SIDE, SIDE):
            size = f"{images.shape[1]}×{images.shape[2]}"
            raise DatasetError(f"{self.folder}: {split} images are {size} pixels, the network takes {SIDE}×{SIDE}")
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _loader(
        self,
        file: tuple[Tensor, Tensor],
        indices: Tensor | None,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> BatchLoader:
        images, labels = file
        return BatchLoader(
            images,
            labels,
            indices=indices,
            batch_size=batch_size,
            mean=self.schema.mean,
            std=self.schema.std,
            shuffle_seed=shuffle_seed,
            augmentation=augmentation,
            **served_by(self.trainer, len(labels if indices is None else indices), batch_size, shuffle_seed),
        )
