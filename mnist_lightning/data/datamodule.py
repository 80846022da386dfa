"""ClassificationDataModule: what the data modules for MNIST, for image folders and for tables have in common.

Knows nothing of files and formats: a subclass reads them.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import LightningDataModule

from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.samples import ImageDataset, RowDataset, Samples
from mnist_lightning.errors import ConfigError, require_at_least

if TYPE_CHECKING:
    from mnist_lightning.data.table.encoder import TableSchema


SPLITS = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}  # by stage


class ClassificationDataModule(LightningDataModule, ABC):
    """Labelled samples in memory, served in whole batches.

    A subclass puts files in place in `prepare_data`, and defines `_read_splits`, `schema`, `model_arguments`, `files`
    and `restore`. The loaders and their distribution over a process group are defined here.

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
    @abstractmethod
    def schema(self) -> "ImageSchema | TableSchema":
        """What a network has to know of its inputs; every checkpoint holds it as `inputs`."""

    @property
    @abstractmethod
    def model_arguments(self) -> dict[str, int]:
        """Model arguments determined by the data."""

    @property
    @abstractmethod
    def files(self) -> list[Path]:
        """The files that samples are read from."""

    @abstractmethod
    def restore(self, inputs: object) -> None:
        """Take the schema of a trained network, the entry `inputs` of its checkpoint, instead of computing it."""

    def setup(self, stage: str | None = None) -> None:
        """Read what a stage needs: `fit`, `validate`, `test` or `predict`; None reads everything.

        Raises:
            ConfigError: If there is no such stage.
        """
        if stage is not None and stage not in SPLITS:
            raise ConfigError(f"setup: stage must be one of {', '.join(SPLITS)}, or None for all, got {stage!r}")
        for each in ("fit", "test") if stage is None else (stage,):
            self._read_splits(each)

    def samples(self, split: str) -> Samples:
        """Return the samples of `train`, `val` or `test`, once `setup` has read them."""
        if split not in self._splits:
            stages = " or ".join(f"setup({stage!r})" for stage, splits in SPLITS.items() if split in splits)
            raise ConfigError(f"the {split} {self.noun} are not read yet: call prepare_data(), then {stages}")
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

    predict_dataloader = test_dataloader

    @abstractmethod
    def _read_splits(self, stage: str) -> None:
        """Fill `_splits` for a stage."""

    def _loader(self, split: str, batch_size: int, seed: int | None = None) -> BatchLoader:
        dataset = self._dataset(self.samples(split), None if seed is None else self.augmentation)
        if not (trainer := self.trainer):
            return BatchLoader(dataset, batch_size=batch_size, seed=seed)
        batches = -(-len(dataset) // batch_size)
        may_idle = seed is not None or getattr(trainer.lightning_module, "ranks_may_idle", False)
        if batches < trainer.world_size and not may_idle:
            raise ConfigError(
                f"{trainer.world_size} processes cannot share the {batches} batches of {batch_size} {self.noun} to be "
                f"scored, because {type(trainer.lightning_module).__name__} logs in each batch; use {batches} devices"
            )
        group, device = trainer.distributed_sampler_kwargs, trainer.strategy.root_device
        return BatchLoader(dataset, batch_size=batch_size, seed=seed, group=group, device=device)

    def _dataset(self, samples: Samples, augmentation: Augmentation | None) -> RowDataset:
        assert isinstance(self.schema, ImageSchema)
        return ImageDataset(samples, self.schema.mean, self.schema.std, augmentation)
