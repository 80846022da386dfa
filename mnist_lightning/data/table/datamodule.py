"""TabularDataset, a table as the lab reads it, and TabularDataModule, which splits, encodes and serves one."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mnist_lightning.console import listed, printable
from mnist_lightning.data.loader import RowLoader
from mnist_lightning.data.sharing import served_by
from mnist_lightning.data.splits import SHARE, Origin, stratified_split
from mnist_lightning.data.table.reader import (
    Table,
    Texts,
    check_columns,
    count_missing,
    numbers_in,
    read_header,
    read_table,
)
from mnist_lightning.data.table.schema import (
    MAX_CLASSES,
    NumberColumn,
    TableSchema,
    fit_schema,
    in_order,
    label_texts,
    schema_from_plain,
)
from mnist_lightning.errors import CheckpointError, ConfigError, DatasetError, require_at_least

# Fixed, so that what validate and test compute depends on nothing that a run can choose.
EVAL_BATCH_SIZE = 4096


class TabularDataset(Dataset[tuple[Tensor, Tensor]]):
    """The rows of a CSV file: item i is its features, float32 (F,), and its label, int64 ().

    The numbers are those of the file; `TabularDataModule` also standardises them, takes texts and fills gaps. Labels
    that are whole numbers stay what they are; any others become their place among the different labels, sorted.

    Args:
        csv_file: The file.
        features: The columns of the features, in order; every field in them is a number.
        target: The column of the labels.

    Raises:
        ConfigError: If pandas is not installed, or the columns are no features and a target.
        DatasetError: If the file is no table with these columns, a feature is no number, or a label is missing.
    """

    def __init__(self, csv_file: str | os.PathLike[str], features: Sequence[str], target: str) -> None:
        _check_features(features, target)
        table = read_table(Path(csv_file), [*features, target], texts=[target])
        self.features = torch.from_numpy(np.stack([_numbers(table, name) for name in features], axis=1))  # (N, F)
        texts = label_texts(table, target)
        numbers = numbers_in(texts.values)
        if np.isin(numbers % 1, [0.0]).all():
            of_code = numbers.astype(np.int64)
        else:
            places = {name: place for place, name in enumerate(in_order(set(texts.values)))}
            of_code = np.array([places[value] for value in texts.values])
        self.labels = torch.from_numpy(of_code[texts.codes])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.labels[index]


@dataclass(frozen=True)
class Rows:
    """Rows of a file as the network takes them.

    Args:
        path: The file.
        inputs: float32 (N, in_features).
        labels: int64 (N,).
        numbers: int64 (N,), the number of each row in the file, the header being row 1.
        indices: int64 (M,), which of them to serve.
    """

    path: Path
    inputs: Tensor
    labels: Tensor
    numbers: NDArray[np.int64]
    indices: Tensor


class TabularDataModule(LightningDataModule):
    """A CSV table in memory: 70 % of the rows to train on, 15 % to validate on, 15 % to test on, of every class alike.

    Numbers are standardised by mean and standard deviation of the training rows, and where one is missing, their median
    stands; texts become one-hot categories, a missing one a category of its own, and one that no training row has sets
    none. A network that is trained keeps all this in its checkpoint. A file that it was not trained on is scored whole.

    Args:
        csv_file: The table, with a header, in UTF-8, fields separated by commas.
        target: The column to learn: texts, numbers or truth values, each different one a class.
        features: The columns to learn it from; null takes all others that have a name.
        batch_size: Training rows a step (on each process), at least 1.
        val_csv_file: A table to validate on, whole; null cuts 15 % of `csv_file`.
        test_csv_file: A table to test on, whole; null cuts 15 % of `csv_file`.
        split_seed: Seed of these cuts, at least 0; keep it fixed to compare runs on the same rows.
        seed: Seed of the order of training rows, at least 0. On the command line it is `seed_everything`.

    Raises:
        ConfigError: If the file or the target is not named, or a number is out of range.
    """

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
        super().__init__()
        if not csv_file:
            raise ConfigError("data.csv_file must name a table: --data.csv_file mine.csv")
        if not target:
            raise ConfigError("data.target must name the column to learn: --data.target species")
        require_at_least(1, "data.batch_size", batch_size)
        require_at_least(0, "data.split_seed", split_seed)
        require_at_least(0, "seed", seed)
        if features is not None:
            _check_features(features, target)
        self.csv_file, self.target, self.features = csv_file, target, features
        self.batch_size = batch_size
        self.val_csv_file, self.test_csv_file = val_csv_file, test_csv_file
        self.split_seed, self.seed = split_seed, seed
        self._schema: TableSchema | None = None
        self._restored = False  # the schema is a checkpoint's
        self._parts: dict[str, Rows] = {}
        self._missing: dict[str, int] = {}  # empty fields of the training rows, by column
        self.save_hyperparameters(logger=False)

    @property
    def schema(self) -> TableSchema:
        """What the network takes: a checkpoint's, or what the training rows say, for which the file is read."""
        if self._schema is None:
            self._load()
        assert self._schema
        return self._schema

    @property
    def model_options(self) -> dict[str, int]:
        """The arguments of a model that are the data's to say."""
        return {"in_features": self.schema.in_features, "num_classes": len(self.schema.class_names)}

    def restore(self, inputs: object) -> None:
        """Take the form of the rows from a checkpoint, in place of what the file would say.

        Args:
            inputs: What the checkpoint holds of that name.

        Raises:
            CheckpointError: If it is no table's.
            ConfigError: If other features are asked for.
        """
        schema = schema_from_plain(inputs)
        if schema is None:
            raise CheckpointError("the checkpoint does not say what columns its network takes")
        if self.features is not None and self.features != schema.features:
            raise ConfigError(
                f"data.features must be those that the network was trained with, {', '.join(schema.features)}; "
                f"got {', '.join(self.features)}"
            )
        self._schema, self._restored = schema, True

    @property
    def files(self) -> list[Path]:
        """The files that rows are read from."""
        return [Path(file) for file in (self.csv_file, self.val_csv_file, self.test_csv_file) if file]

    def setup(self, stage: str) -> None:
        """Read what the stage needs."""
        if stage == "fit":
            if "train" not in self._parts:
                self._load()
            if self.val_csv_file:
                self._parts["val"] = self._whole(self.val_csv_file)
            self._say(*self._describe())
        else:
            part = "val" if stage == "validate" else "test"
            rows = self._parts[part] = self._to_score(part)
            self._say(f"{rows.path}: {len(rows.indices):,} of {len(rows.labels):,} rows are scored")

    def train_dataloader(self) -> RowLoader:
        """Serve the training rows, shuffled by (seed, epoch)."""
        return self._loader("train", self.batch_size, self.seed)

    def val_dataloader(self) -> RowLoader:
        """Serve the validation rows in the order of the file."""
        return self._loader("val", EVAL_BATCH_SIZE)

    def test_dataloader(self) -> RowLoader:
        """Serve every test row, in the order of the file."""
        return self._loader("test", EVAL_BATCH_SIZE)

    def part(self, name: str) -> Rows:
        """Return the rows of `train`, `val` or `test`, once they were set up."""
        return self._parts[name]

    def training_rows(self) -> Rows | None:
        """Return the rows that the network was trained on; None where its file is gone, or another by now."""
        origin = self.schema.origin
        if "train" not in self._parts and _sha256(Path(origin.path)) == origin.sha256:
            self._parts["train"] = self._cut(origin, self.schema.target)["train"]
        return self._parts.get("train")

    def _load(self) -> None:
        """Read the file to train on, and its form from it where no checkpoint gave one."""
        cut = tuple(part for part, file in (("val", self.val_csv_file), ("test", self.test_csv_file)) if not file)
        path = Path(self.csv_file)
        if not path.is_file():
            raise DatasetError(f"{path}: no such CSV file")
        origin = Origin(self.csv_file, _sha256(path), self.split_seed, cut)
        if self._restored and self._schema:
            before = self._schema.origin
            if origin.path == before.path and origin.sha256 != before.sha256:
                raise DatasetError(f"{path} has changed since the run began; a run goes on with the same rows only")
            self._schema = replace(self._schema, origin=origin)
        self._parts |= self._cut(origin, self.target)

    def _cut(self, origin: Origin, target: str) -> dict[str, Rows]:
        """Return the parts of a file that is trained on, by name."""
        table = self._read(origin.path, target)
        labels = _classes_to_split(table, target, len(origin.cut) + 1)
        places = stratified_split(labels, [SHARE] * len(origin.cut), origin.split_seed)
        if self._schema is None:
            features = [name for name in table.columns if name != target]
            self._schema = fit_schema(table, places[0], features, target, origin)
        missing = {name: count_missing(column, places[0]) for name, column in table.columns.items()}
        self._missing = {name: count for name, count in missing.items() if count}
        whole = self._encode(table, target)
        return {
            part: replace(whole, indices=torch.from_numpy(chosen))
            for part, chosen in zip(("train", *origin.cut), places, strict=True)
        }

    def _to_score(self, part: str) -> Rows:
        """Return the rows to validate or test on."""
        if part in self._parts:
            return self._parts[part]
        other, origin = (self.val_csv_file if part == "val" else self.test_csv_file), self.schema.origin
        same_name = self.csv_file == origin.path
        if same_name and other:
            return self._whole(other)
        path = Path(self.csv_file)
        if path.is_file() and _sha256(path) == origin.sha256:
            if other:
                return self._whole(other)
            if self.split_seed != origin.split_seed or part not in origin.cut:
                raise ConfigError(
                    f"data.split_seed and the files to validate and test on must be those of the training "
                    f"(split_seed {origin.split_seed}); with others, rows it was trained on would be scored"
                )
            self._parts |= self._cut(replace(origin, path=self.csv_file), self.target)
            return self._parts[part]
        if same_name and path.is_file():
            raise DatasetError(
                f"{path} has changed since the network was trained on it, so its {part} rows are not known any more; "
                "a file of another name is scored whole"
            )
        return self._whole(self.csv_file)

    def _whole(self, csv_file: str) -> Rows:
        return self._encode(self._read(csv_file, self.target), self.target)

    def _read(self, csv_file: str, target: str) -> Table:
        path = Path(csv_file)
        header = read_header(path)
        check_columns(path, header, [target])
        features = self._schema.features if self._schema else self.features
        if features is None:
            features = [name for name in header if name and name != target]
            if not features:
                raise DatasetError(f"{path} has no column besides {target}")
        return read_table(path, [*features, target], texts=[target])

    def _encode(self, table: Table, target: str) -> Rows:
        inputs = torch.from_numpy(self.schema.encode(table))
        labels = torch.from_numpy(self.schema.labels(table, target))
        return Rows(table.path, inputs, labels, table.rows, torch.arange(len(labels)))

    def _loader(self, part: str, batch_size: int, shuffle_seed: int | None = None) -> RowLoader:
        rows = self._parts[part]
        return RowLoader(
            rows.inputs,
            rows.labels,
            indices=rows.indices,
            batch_size=batch_size,
            shuffle_seed=shuffle_seed,
            **served_by(self.trainer, len(rows.indices), batch_size, shuffle_seed, noun="rows"),
        )

    def _say(self, *lines: str) -> None:
        if not self.trainer or self.trainer.is_global_zero:
            print("\n".join(map(printable, lines)))

    def _describe(self) -> list[str]:
        """Return what was made of the table, in lines."""
        schema, parts = self.schema, self._parts
        cut = [f"{len(parts[part].indices):,} to {use}" for part, use in USES.items() if part in parts]
        lines = [
            f"{self.csv_file}: {', '.join(cut)}; {len(schema.columns)} features, "
            f"{len(schema.class_names)} classes: {listed(schema.class_names)}"
        ]
        numbers = {column.name: column.median for column in schema.columns if isinstance(column, NumberColumn)}
        for name, count in self._missing.items():
            rule = f"the median {numbers[name]:g} stands there" if name in numbers else "that is a category of its own"
            lines.append(f"{self.csv_file}, column {name}: empty in {count:,} training rows; {rule}")
        return lines


USES = {"train": "train on", "val": "validate on", "test": "test on"}


def _check_features(features: Sequence[str], target: str) -> None:
    if not features:
        raise ConfigError("data.features must name a column; null takes all but the target")
    for name in features:
        if name == target:
            raise ConfigError(f"data.features must not hold the target {target}")
        if list(features).count(name) > 1:
            raise ConfigError(f"data.features holds {name} twice")


def _numbers(table: Table, name: str) -> NDArray[np.float32]:
    column = table.columns[name]
    if isinstance(column, Texts):
        place = np.flatnonzero(np.append(np.isnan(numbers_in(column.values)), False)[column.codes])[0]
        raise table.fault(place, name, f"{column.at(place)!r} is no number; TabularDataModule also takes texts")
    if len(missing := np.flatnonzero(np.isnan(column))):
        raise table.fault(missing[0], name, "the number is missing; TabularDataModule also fills gaps")
    return column.astype(np.float32)


def _classes_to_split(table: Table, target: str, parts: int) -> NDArray[np.int64]:
    """Return a number for each row's class, int64 (N,), when every part can have a row of every class."""
    texts = label_texts(table, target)
    _, first, classes, counts = np.unique(texts.codes, return_index=True, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise DatasetError(
            f"{table.path}, column {target}: all rows have the label {texts.at(0)}; two classes are needed"
        )
    if len(counts) > MAX_CLASSES:
        raise DatasetError(
            f"{table.path}, column {target} has {len(counts):,} different labels, more than {MAX_CLASSES:,}; a number "
            "to predict is no class"
        )
    if parts > (least := counts.min()):
        place = first[counts.argmin()]
        raise table.fault(
            place, target, f"the class {texts.at(place)} has {least} of {parts} rows: each part of the split needs one"
        )
    numbers: NDArray[np.int64] = classes.astype(np.int64)
    return numbers


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
