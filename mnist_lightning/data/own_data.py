"""OwnDataModule: a person's own data, split by seed, and the rule which of its samples may be scored.

Knows nothing of images and tables: a subclass reads them.
"""

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path

from mnist_lightning.console import printable
from mnist_lightning.data.datamodule import ClassificationDataModule
from mnist_lightning.data.image_schema import ImageSchema
from mnist_lightning.data.samples import Samples
from mnist_lightning.data.splits import TrainingSource
from mnist_lightning.data.table.encoder import TableSchema
from mnist_lightning.errors import ConfigError, DatasetError, UserError

PURPOSES = {"train": "train on", "val": "validate on", "test": "test on"}


class OwnDataModule(ClassificationDataModule):
    """A folder or a file of a person's own; splits that do not come with it are held out from the training data.

    A subclass sets `path` and defines the abstract methods.
    """

    path: Path  # as the user named it
    _schema: ImageSchema | TableSchema | None = None  # a checkpoint's, or fitted to the training samples

    def _read_splits(self, stage: str) -> None:
        """Read and split what the stage needs, and print what was found."""
        if stage == "fit":
            if "train" not in self._splits:
                self._split_to_train()
            self._splits["val"] = self._samples_to_score("val")
            self._print(*self._description())
        else:
            split = "val" if stage == "validate" else "test"
            samples = self._splits[split] = self._samples_to_score(split)
            count, total = len(samples.indices), len(samples.labels)
            self._print(f"{self.path}: {count:,} of {total:,} {self.noun} are scored")

    def _split_to_train(self) -> None:
        """Split the data; a resumed run needs the data that it began with."""
        source = self._source()
        if self._schema and (before := self._schema.origin):
            if self._lies_at(before) and source.sha256 != before.sha256:
                raise DatasetError(f"{self._name} has changed since the run began; resuming needs the same {self.noun}")
            self._schema = replace(self._schema, origin=source)
        self._splits |= self._split(source)

    def _samples_to_score(self, split: str) -> Samples:
        """Return the samples of `val` or `test`, which the network must not have been trained on.

        The first of these that there is: samples that were read before; samples given for this split alone; if the data
        are those of the training, the samples that were held out from it; all samples of any other data.
        """
        if split in self._splits:
            return self._splits[split]
        if (given := self._given_split(split)) is not None:
            return given
        source, trained_on = self._source(), self._trained_on
        if source.sha256 == trained_on.sha256:
            if split not in trained_on.cut:
                raise self._lacks_split(split)
            if source.split_seed != trained_on.split_seed:
                raise ConfigError(
                    f"data.split_seed must be that of the training, {trained_on.split_seed}; with another, {self.noun} "
                    "that the network was trained on would be scored"
                )
            self._splits |= self._split(trained_on)
            return self._splits[split]
        if self._lies_at(trained_on):
            raise DatasetError(
                f"{self._name} has changed since the network was trained on it, so its {split} {self.noun} are not "
                "known; data under another name are scored whole"
            )
        return self._all_samples(split)

    @property
    def _name(self) -> str:
        return printable(str(self.path))

    @property
    def _trained_on(self) -> TrainingSource:
        source = self.schema.origin
        assert source
        return source

    def _lies_at(self, source: TrainingSource) -> bool:
        return self.path.absolute() == Path(source.path).absolute()

    def _split_sizes(self) -> str:
        """Return how many samples each split has, in words."""
        return ", ".join(
            f"{len(self._splits[split].indices):,} to {purpose}"
            for split, purpose in PURPOSES.items()
            if split in self._splits
        )

    @abstractmethod
    def _source(self) -> TrainingSource:
        """Return what would be trained on now: the data, their digest, the seed, and the splits to hold out."""

    @abstractmethod
    def _split(self, source: TrainingSource) -> dict[str, Samples]:
        """Return the splits by name, the training samples among them; fit the schema to these if there is none."""

    @abstractmethod
    def _given_split(self, split: str) -> Samples | None:
        """Return the samples that the user gave for a split; None if it is to be held out."""

    @abstractmethod
    def _all_samples(self, split: str) -> Samples:
        """Return all samples of data that the network was not trained on, to be scored as `split`."""

    @abstractmethod
    def _lacks_split(self, split: str) -> UserError:
        """Return the error that a split was given in training and is missing now."""

    @abstractmethod
    def _description(self) -> list[str]:
        """Return what `fit` prints about the data, in lines."""

    def _print(self, *lines: str) -> None:
        if not self.trainer or self.trainer.is_global_zero:
            print("\n".join(map(printable, lines)))
