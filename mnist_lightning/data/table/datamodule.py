"""TabularDataModule: a CSV table, split, encoded and served from memory."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mnist_lightning.console import listed
from mnist_lightning.data.augmentation import Augmentation
from mnist_lightning.data.own_data import OwnDataModule
from mnist_lightning.data.samples import RowDataset, Samples
from mnist_lightning.data.splits import HELD_OUT, TrainingSource, stratified_split
from mnist_lightning.data.table import encoder, reader
from mnist_lightning.data.table.encoder import MAX_CLASSES, NumberColumn, TableSchema
from mnist_lightning.data.table.reader import Table
from mnist_lightning.errors import CheckpointError, ConfigError, DatasetError, UserError


@dataclass(frozen=True)
class Rows(Samples):
    """The rows of one split, encoded for the network."""

    path: Path  # the file that holds them
    numbers: NDArray[np.int64]  # (N,), the number of each row in the file, the header being row 1


class TabularDataModule(OwnDataModule):
    """A CSV table in memory: 70 % of the rows for training, 15 % for validation, 15 % for testing, stratified by class.

    Numbers are standardised by mean and standard deviation of the training rows, and missing ones replaced by their
    median. Text is encoded one-hot; missing text is a category of its own, and a category that no training row has
    becomes zeros. A checkpoint holds all this. A file that the network was not trained on is scored whole.

    Args:
        csv_file: The table, with a header, in UTF-8, its fields separated by commas.
        target: The column to predict: text, numbers or truth values; each different value is a class.
        features: The columns to predict it from; null takes all other columns that have a name.
        batch_size: Training rows in a batch (on each process), at least 1.
        val_csv_file: A table to validate on, whole; null holds out 15 % of `csv_file`.
        test_csv_file: A table to test on, whole; null holds out 15 % of `csv_file`.
        split_seed: Seed of the random split, at least 0; keep it fixed to compare runs on the same rows.
        seed: Seed of the order of training rows, at least 0. The command line sets it to `seed_everything`.
    """

    noun = "rows"

    def __init__(
        self,
        csv_file: str = "",
        target: str = "",
        features: list[str] | None = None,
        batch_size: int = 64,
        val_csv_file: str | None = None,
        test_csv_file: str | None = None,
        split_seed: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size=batch_size, split_seed=split_seed, seed=seed)
        if not csv_file:
            raise ConfigError("data.csv_file must name a table: --data.csv_file mine.csv")
        if not target:
            raise ConfigError("data.target must name the column to predict: --data.target species")
        if features is not None:
            reader.check_features(features, target)
        self.path, self.target, self.features = Path(csv_file).expanduser(), target, features
        self.given_files = {"val": val_csv_file, "test": test_csv_file}
        self._schema: TableSchema | None = None
        self._missing: dict[str, int] = {}  # empty fields in the training rows, by column
        self.save_hyperparameters(logger=False)

    @property
    def schema(self) -> TableSchema:
        """Columns, encoding and classes: those of a checkpoint, or of the training rows, which are read if need be."""
        if self._schema is None:
            self._split_to_train()
        assert self._schema
        return self._schema

    @property
    def model_arguments(self) -> dict[str, int]:
        """Model arguments determined by the data."""
        return {"in_features": self.schema.in_features, "num_classes": len(self.schema.class_names)}

    @property
    def files(self) -> list[Path]:
        """The files that rows are read from."""
        return [self.path, *(Path(file).expanduser() for file in self.given_files.values() if file)]

    def restore(self, inputs: object) -> None:
        """Take the schema of a trained network, which must take the features asked for."""
        schema = encoder.schema_from_plain(inputs)
        if schema is None:
            raise CheckpointError("the checkpoint does not define the columns that its network takes")
        if self.features is not None and self.features != schema.features:
            wanted, got = ", ".join(schema.features), ", ".join(self.features)
            raise ConfigError(f"data.features must be those that the network was trained with, {wanted}; got {got}")
        self._schema = schema

    def samples(self, split: str) -> Rows:
        """Return the rows of `train`, `val` or `test`, once `setup` has read them."""
        rows = super().samples(split)
        assert isinstance(rows, Rows)
        return rows

    def training_rows(self) -> Rows | None:
        """Return the rows that the network was trained on; None if their file is missing or has changed."""
        source, path = self.schema.origin, Path(self.schema.origin.path)
        if "train" not in self._splits:
            if not path.exists() or _sha256(path) != source.sha256:
                return None
            self._splits["train"] = self._cut(path, self.schema.target, source)["train"]
        return self.samples("train")

    def _dataset(self, samples: Samples, augmentation: Augmentation | None) -> RowDataset:
        return RowDataset(samples)

    def _source(self) -> TrainingSource:
        if not self.path.is_file():
            raise DatasetError(f"{self.path}: no such CSV file")
        cut = tuple(split for split, file in self.given_files.items() if not file)
        return TrainingSource(str(self.path), _sha256(self.path), self.split_seed, cut)

    def _split(self, source: TrainingSource) -> dict[str, Samples]:
        return {**self._cut(self.path, self.target, source)}

    def _cut(self, path: Path, target: str, source: TrainingSource) -> dict[str, Rows]:
        table = self._read(path, target)
        classes = _classes_to_split(table, target, len(source.cut) + 1)
        pieces = stratified_split(classes, [HELD_OUT] * len(source.cut), source.split_seed)
        if self._schema is None:
            self._schema = encoder.fit_schema(table, pieces[0], target, source)
        missing = {name: int(reader.is_missing(column)[pieces[0]].sum()) for name, column in table.columns.items()}
        self._missing = {name: count for name, count in missing.items() if count}
        rows = self._encode(table, target)
        names = ("train", *source.cut)
        return {name: replace(rows, indices=torch.from_numpy(piece)) for name, piece in zip(names, pieces, strict=True)}

    def _given_split(self, split: str) -> Rows | None:
        file = self.given_files[split]
        if file and (self._lies_at(self._trained_on) or self._source().sha256 == self._trained_on.sha256):
            return self._encode(self._read(Path(file).expanduser(), self.target), self.target)
        return None  # also if `csv_file` is another table, which is then scored whole

    def _all_samples(self, split: str) -> Rows:
        return self._encode(self._read(self.path, self.target), self.target)

    def _lacks_split(self, split: str) -> UserError:
        return ConfigError(f"data.{split}_csv_file must name a file, as in training: {self.path} has no {split} rows")

    def _read(self, path: Path, target: str) -> Table:
        features = self._schema.features if self._schema else self.features
        table = reader.read_table(path, [target, *features] if features else None, texts=[target])
        if len(table.columns) < 2:
            raise DatasetError(f"{path} has no column besides {target}")
        return table

    def _encode(self, table: Table, target: str) -> Rows:
        inputs = torch.from_numpy(self.schema.encode(table))
        labels = torch.from_numpy(self.schema.labels(table, target))
        return Rows(inputs, labels, torch.arange(len(labels)), table.path, table.rows)

    def _description(self) -> list[str]:
        schema = self.schema
        lines = [
            f"{self.path}: {self._split_sizes()}; {len(schema.columns)} features, "
            f"{len(schema.class_names)} classes: {listed(schema.class_names)}"
        ]
        medians = {column.name: column.median for column in schema.columns if isinstance(column, NumberColumn)}
        for name, count in self._missing.items():
            rule = f"replaced by the median {medians[name]:g}" if name in medians else "a category of its own"
            lines.append(f"{self.path}, column {name}: empty in {count:,} training rows; {rule}")
        return lines


def _classes_to_split(table: Table, target: str, num_splits: int) -> NDArray[np.int64]:
    """Return the class of each row, int64 (N,), if there are enough rows of each for every split."""
    texts = encoder.label_texts(table, target)
    _, first, classes, counts = np.unique(texts.codes, return_index=True, return_inverse=True, return_counts=True)
    column = f"{table.path}, column {target}"
    if len(counts) < 2:
        raise DatasetError(f"{column}: all rows have the label {texts.at(0)}; at least two classes needed")
    if len(counts) > MAX_CLASSES:
        found = f"{len(counts):,} different labels, more than {MAX_CLASSES:,}"
        raise DatasetError(f"{column} has {found}; numbers are not classes")
    if num_splits > (least := counts.min()):
        row = first[counts.argmin()]
        what = f"the class {texts.at(row)} has {least} rows; at least {num_splits} needed, one for each split"
        raise table.fault(row, target, what)
    return np.asarray(classes, np.int64)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
