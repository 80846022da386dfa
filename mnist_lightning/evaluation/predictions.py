"""The predictions of an evaluation, and the file `predictions.csv` that `test` writes. Importing it loads no torch."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

PREDICTIONS = "predictions{}.csv"  # with the suffix of the result
COLUMNS = ["index", "label", "prediction"]


@dataclass(frozen=True)
class Predictions:
    """The outputs for N samples, in file order, on the CPU."""

    logits: Tensor  # float32 (N, classes)
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64 (N,), the position of each sample in its file, ascending

    @property
    def predicted(self) -> Tensor:
        """The predicted classes, int64 (N,)."""
        return self.logits.argmax(dim=1)

    def as_csv(self) -> str:
        """Return the content of `predictions.csv`."""
        columns = (self.indices.tolist(), self.labels.tolist(), self.predicted.tolist())
        rows = zip(*columns, strict=True)
        return "".join(f"{index},{label},{prediction}\n" for index, label, prediction in [COLUMNS, *rows])


def read_hits(path: Path) -> dict[tuple[int, int], bool]:
    """Return for each sample in a predictions file, given by its position and label, whether its prediction is correct.

    A missing or another file is a ConfigError.
    """
    try:
        header, *lines = csv.reader(path.read_text().splitlines())
        rows = [[int(field) for field in line] for line in lines]
        hits = {(index, label): label == prediction for index, label, prediction in rows}
        if header != COLUMNS or not hits:
            raise ValueError(f"expected the columns {COLUMNS} and at least one row")
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist; run `test` to write it") from None
    except (ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is not a predictions file; run `test` to write it again") from error
    return hits
