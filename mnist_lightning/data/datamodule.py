"""ClassificationDataModule: what the data modules for MNIST, for image folders and for tables have in common.

Knows nothing of files and formats: a subclass reads them.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule

from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.samples import Samples
from mnist_lightning.errors import ConfigError, require_at_least

if TYPE_CHECKING:
    from mnist_lightning.data.table.encoder import TableSchema


class ClassificationDataModule(LightningDataModule):
    """Labelled samples in memory, served in whole batches.

    A subclass puts files in place in `prepare_data`, fills `_splits` in `setup`, and defines `schema`,
    `model_arguments`, `files` and `restore`. The loaders and their distribution over a process group are defined here.

    Args:
        batch_size: Training samples in a batch (on each process), at least 1.
        split_seed: Seed of the random split, at least 0.
        seed: Seed of the order of training samples and of their augmentation, at least 0.
        augmentation: How far training images are distorted.
    """

    noun = "images"  # what messages call the samples

    def __init__(
        self, *, batch_size: int, split_seed: int, seed: int, augmentation: Augmentation | None = None
    ) -> None:
        super().__init__()
        require_at_least(1, "data.batch_size", batch_size)
        require_at_least(0, "data.split_seed", split_seed)
        require_at_least(0, "seed", seed)
        self.batch_size, self.split_seed, self.seed = batch_size, split_seed, seed
        self.augmentation = augmentation or None
        self._splits: dict[str, Samples] = {}

    def __str__(self) -> str:
        # Lightning's own version (2.6) fails on loaders that are not torch's.
        sizes = ", ".join(f"{len(samples.indices):,} {split}" for split, samples in self._splits.items())
        return f"{type(self).__name__} ({sizes or 'not set up'})"

    @property
    def schema(self) -> "ImageSchema | TableSchema":
        """What a network has to know of its inputs; every checkpoint holds it as `inputs`."""
        raise NotImplementedError

    @property
    def model_arguments(self) -> dict[str, int]:
        """Model arguments determined by the data."""
        raise NotImplementedError

    @property
    def files(self) -> list[Path]:
        """The files that samples are read from."""
        raise NotImplementedError

    def restore(self, inputs: object) -> None:
        """Take the schema of a trained network, the entry `inputs` of its checkpoint, instead of computing it."""
        raise NotImplementedError

    def samples(self, split: str) -> Samples:
        """Return the samples of `train`, `val` or `test`, once `setup` has read them."""
        return self._splits[split]

    def train_dataloader(self) -> BatchLoader:
        """Serve the training samples, shuffled and augmented by (seed, epoch)."""
        return self._loader("train", self.batch_size, self.seed)

    def val_dataloader(self) -> BatchLoader | list[BatchLoader]:
        """Serve the validation samples in file order; an empty list if there are none."""
        return self._loader("val", self.schema.eval_batch_size) if len(self.samples("val").indices) else []

    def test_dataloader(self) -> BatchLoader:
        """Serve every test sample, in file order."""
        return self._loader("test", self.schema.eval_batch_size)

    def _loader(self, split: str, batch_size: int, shuffle_seed: int | None = None) -> BatchLoader:
        samples = self.samples(split)
        loader = self._make_loader(samples, batch_size, shuffle_seed)
        if trainer := self.trainer:
            batches = -(-len(samples.indices) // batch_size)
            if shuffle_seed is None and batches < trainer.world_size:  # every rank needs a batch
                raise ConfigError(
                    f"{trainer.world_size} processes cannot share the {batches} batches of {batch_size} {self.noun} to "
                    f"be scored; use --trainer.devices {batches}"
                )
            loader.rank, loader.world_size = trainer.global_rank, trainer.world_size
            loader.device = trainer.strategy.root_device
        return loader

    def _make_loader(self, samples: Samples, batch_size: int, shuffle_seed: int | None) -> BatchLoader:
        assert isinstance(self.schema, ImageSchema)
        return BatchLoader(
            samples.inputs,
            samples.labels,
            indices=samples.indices,
            batch_size=batch_size,
            mean=self.schema.mean,
            std=self.schema.std,
            shuffle_seed=shuffle_seed,
            augmentation=None if shuffle_seed is None else self.augmentation,
        )
