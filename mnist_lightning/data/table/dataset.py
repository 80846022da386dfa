"""TabularDataset: the rows of a CSV file as a torch Dataset, for a DataLoader of your own."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from mnist_lightning.data.table.encoder import in_order, label_texts
from mnist_lightning.data.table.reader import Table, check_features, is_missing, numbers_in, read_table


class TabularDataset(Dataset[tuple[Tensor, Tensor]]):
    """The rows of a CSV file: item i is its features, float32 (F,), and its label, int64 ().

    Features are the numbers in the file; `TabularDataModule` also standardises them, encodes text and replaces missing
    fields. Integer labels are kept; other labels become their index among the sorted different labels.

    Args:
        csv_file: The file, with a header, in UTF-8.
        features: The columns of the features, in order; every field in them must be a number.
        target: The column of the labels.

    Raises:
        ConfigError: If pandas is not installed, or the columns are not features and a target.
        DatasetError: If the file is not a table with these columns, a feature is not a number, or a label is missing.
    """

    def __init__(self, csv_file: str | os.PathLike[str], features: Sequence[str], target: str) -> None:
        check_features(features, target)
        table = read_table(Path(csv_file).expanduser(), [*features, target], texts=[target])
        self.features = torch.from_numpy(np.stack([_numbers(table, name) for name in features], axis=1))  # (N, F)
        texts = label_texts(table, target)
        numbers = numbers_in(texts.values)
        if np.isin(numbers % 1, [0.0]).all():
            label_of_code = numbers.astype(np.int64)
        else:
            labels = {name: label for label, name in enumerate(in_order(set(texts.values)))}
            label_of_code = np.array([labels[value] for value in texts.values])
        self.labels = torch.from_numpy(label_of_code[texts.codes])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.features[index], self.labels[index]


def _numbers(table: Table, name: str) -> NDArray[np.float32]:
    column = table.numbers(name, otherwise="is not a number; TabularDataModule also takes text")
    if len(missing := np.flatnonzero(is_missing(column))):
        raise table.fault(missing[0], name, "the number is missing; TabularDataModule also takes missing fields")
    return column.astype(np.float32)
