"""MNISTDataModule: MNIST's files, the split into training, validation and test, and their loaders."""

from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from mnist_lightning.data import idx, sources
from mnist_lightning.data.augment import Augmentation
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.spec import ImageSpec
from mnist_lightning.errors import ConfigError, DatasetError

# Fixed, so that what validate and test compute depends on nothing that a run can choose.
EVAL_BATCH_SIZE = 500


class MNISTDataModule(LightningDataModule):
    """MNIST in memory: 55,000 images to train on, 5,000 to validate on, 10,000 to test on.

    Validation images are cut from the training file; the test file is read for testing only.

    Args:
        data_dir: Folder of the data; the files go to `<data_dir>/MNIST/raw`, where torchvision looks too.
        batch_size: Training images a step (on each process), at least 1.
        val_size: Images cut from the training file for validation; 0 trains on every image.
        split_seed: Seed of that cut, at least 0; keep it fixed to compare runs on the same validation images.
        source: Where missing files come from: `download` (https mirrors only), `bundled` (the copy in the package
            only), `auto` (mirrors, then the bundled copy) or `files` (your own IDX files, taken as they are).
        mirrors: https addresses of folders that hold the four `.gz` files, tried in this order in place of the known
            ones.
        rotation: Degrees by which each training image is turned at most, in [0, 180); like the amounts below, drawn
            anew for every image and epoch, uniformly between its negative and itself, and 0 for none.
        scale: Share by which a training image grows or shrinks, height and width each by its own draw, in [0, 1).
        shear: Degrees by which a training image is slanted, in [0, 90).
        shift: Pixels by which a training image is moved in each direction, at least 0.
        elastic: Standard deviation, in pixels, of a smooth random bending of training images, at least 0.
        seed: Seed of the order of training images and of their augmentation, at least 0. On the command line it is
            `seed_everything`.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(
        self,
        data_dir: str = "data",
        batch_size: int = 64,
        val_size: int = 5_000,
        split_seed: int = 0,
        source: sources.Source = "auto",
        mirrors: list[str] | None = None,
        rotation: float = 0.0,
        scale: float = 0.0,
        shear: float = 0.0,
        shift: float = 0.0,
        elastic: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("data.batch_size", batch_size, 1),
            ("data.val_size", val_size, 0),
            ("data.split_seed", split_seed, 0),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        try:
            self.augmentation = Augmentation(rotation, scale, shear, shift, elastic)
        except ValueError as error:
            raise ConfigError(f"data.{error}") from error
        self.spec = sources.MNIST.spec
        self.data_dir = Path(data_dir)
        self.batch_size = batch_size
        self.val_size = val_size
        self.split_seed = split_seed
        self.source = source
        self.mirrors = mirrors
        self.seed = seed
        # Not to the logger: it gets one table of hyper-parameters, written at the end of the run.
        self.save_hyperparameters(logger=False)

    def prepare_data(self) -> None:
        """Put the four files into the data folder, once a machine."""
        sources.fetch(sources.MNIST, self.data_dir, source=self.source, mirrors=self.mirrors)

    @property
    def files(self) -> list[Path]:
        """The files that images and labels are read from."""
        folder = self.data_dir / sources.MNIST.folder / "raw"
        return [folder / file.name for file in sources.MNIST.files]

    def setup(self, stage: str) -> None:
        """Map the files into memory and split the training file."""
        folder = self.data_dir / sources.MNIST.folder / "raw"
        if stage in ("fit", "validate"):
            self.train_file = _read_pair(folder, "train", self.spec)
            self.train_indices, self.val_indices = self.split(len(self.train_file[1]))
        if stage == "test":
            self.test_file = _read_pair(folder, "t10k", self.spec)

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
        return self._loader(self.train_file, self.val_indices, EVAL_BATCH_SIZE) if self.val_size else []

    def test_dataloader(self) -> BatchLoader:
        """Serve every test image, in file order."""
        return self._loader(self.test_file, None, EVAL_BATCH_SIZE)

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
        trainer = self.trainer  # None when a person asks for a loader by hand
        batches = -(-len(labels if indices is None else indices) // batch_size)
        if shuffle_seed is None and trainer and batches < trainer.world_size:
            raise ConfigError(
                f"{trainer.world_size} processes cannot share the {batches} batches of {batch_size} images to be scored"
                f"; use --trainer.devices {batches}"
            )
        return BatchLoader(
            images,
            labels,
            indices=indices,
            batch_size=batch_size,
            mean=self.spec.mean,
            std=self.spec.std,
            shuffle_seed=shuffle_seed,
            augmentation=augmentation,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
            device=trainer.strategy.root_device if trainer else "cpu",
        )


def _read_pair(folder: Path, prefix: str, spec: ImageSpec) -> tuple[Tensor, Tensor]:
    images, labels = idx.read_split(
        folder / f"{prefix}-images-idx3-ubyte", folder / f"{prefix}-labels-idx1-ubyte", len(spec.class_names)
    )
    if images.shape[1:] != (spec.height, spec.width):
        size, taken = f"{images.shape[1]}×{images.shape[2]}", f"{spec.height}×{spec.width}"
        raise DatasetError(f"{folder}: {prefix} images are {size} pixels, the network takes {taken}")
    return torch.from_numpy(images), torch.from_numpy(labels)
