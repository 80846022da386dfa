"""Predictions as text: lines for the terminal, and a CSV or JSON file. No torch."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.atomic_write import write_output_file
from mnist_lightning.console import printable
from mnist_lightning.inference.prediction import MAX_CLASSES, Prediction

COLUMNS = ("label", "probability", "second", "second_probability", "third", "third_probability", "unsure")


class Labelled(NamedTuple):
    """A prediction and what it was made for: an image file, or a row of a CSV file, whose header is row 1."""

    file: Path
    prediction: Prediction
    row: int | None = None


class ImageTable:
    """Format predictions for images as lines of a table, wide enough for all file and class names."""

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str]) -> None:
        self.file_width = max(len("file"), *(len(printable(str(path))) for path in paths))
        self.label_width = max(len("label"), *(len(printable(name)) for name in class_names))

    @property
    def header(self) -> str:
        """The line of column names."""
        width = self.label_width + len(" 100.00%  ")  # of a probability and the gap behind it
        return f"{'file':{self.file_width}}  {'label':{width}} {'then':{2 * width}}  ink"

    def line(self, path: Path, prediction: Prediction) -> str:
        """Return the line of an image: its most probable classes, its ink, and whether the prediction is unsure."""
        classes = (
            f"{printable(label):{self.label_width}} {percent(probability):>8}" for label, probability in prediction.top3
        )
        ink = (prediction.input.ink if prediction.input else None) or ""
        unsure = "unsure" if prediction.unsure else ""
        return f"{printable(str(path)):{self.file_width}}  {'  '.join(classes)}  {ink:5}  {unsure}".rstrip()


def percent(probability: float) -> str:
    """Return a probability in percent; rounding never turns it into certainty.

    >>> percent(0.5), percent(0.99999)
    ('50.00%', '99.99%')
    """
    return f"{min(probability, 0.9999):.2%}"


def write_predictions(path: Path, labelled: Sequence[Labelled]) -> None:
    """Write predictions, at least one, as CSV or JSON depending on the file's suffix."""
    rows = [_row(each) for each in labelled]
    text = json.dumps(rows, indent=1) + "\n" if path.suffix.lower() == ".json" else _csv(rows)
    write_output_file(path, text.encode("utf-8", "surrogateescape"))  # file names that are not UTF-8 keep their bytes


def _row(labelled: Labelled) -> dict[str, str | int | float | bool | None]:
    file, prediction, row = labelled
    missing = MAX_CLASSES - len(prediction.top3)  # with two classes, there is no third
    classes = [value for each in (*prediction.top3, *[(None, None)] * missing) for value in each]
    place: dict[str, str | int | float | bool | None] = {"file": str(file)} | ({} if row is None else {"row": row})
    return place | dict(zip(COLUMNS, (*classes, prediction.unsure), strict=True))


def _csv(rows: Sequence[dict[str, str | int | float | bool | None]]) -> str:
    """Return rows as CSV with a header; booleans are written `true` and `false`, as in JSON."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in row.values()])
    return file.getvalue()
