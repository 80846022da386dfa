"""The labels of a person's pictures as text: lines for the screen, a CSV or JSON file. No torch."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.console import printable
from mnist_lightning.errors import StorageError
from mnist_lightning.inference.prediction import Prediction

Labelled = Sequence[tuple[Path, Prediction]]
Row = dict[str, str | int | float | bool | None]  # values by column

GUESSES = 3
COLUMNS = ("file", "label", "probability", "second", "second_probability", "third", "third_probability", "unsure")


class Screen:
    """Lines of a table, as wide as its pictures' names and its classes' names need.

    Args:
        paths: The pictures that there will be lines for.
        class_names: The labels that there may be.
    """

    def __init__(self, paths: Sequence[Path], class_names: Sequence[str]) -> None:
        self.file_width = max(len("file"), *(len(printable(str(path))) for path in paths))
        self.label_width = max(len("label"), *(len(printable(name)) for name in class_names))

    @property
    def header(self) -> str:
        """The line of the columns' names."""
        guess = f"{'':{self.label_width}}          "
        return f"{'file':{self.file_width}}  {'label':{self.label_width}}           {'then':{len(guess)}}{guess}  ink"

    def line(self, path: Path, prediction: Prediction) -> str:
        """Return the line of a picture: its three most probable classes, its ink, and whether the label is unsure."""
        guesses = (
            f"{printable(guess.label):{self.label_width}} {percent(guess.probability):>8}" for guess in prediction.top3
        )
        ink = (prediction.input.ink if prediction.input else None) or ""
        unsure = "unsure" if prediction.unsure else ""
        return f"{printable(str(path)):{self.file_width}}  {'  '.join(guesses)}  {ink:5}  {unsure}".rstrip()


def percent(probability: float) -> str:
    """Return a probability as the screen shows it; rounded, what is not quite certain would seem certain.

    >>> percent(0.5), percent(0.99999)
    ('50.00%', '99.99%')
    """
    return f"{min(probability, 0.9999):.2%}"


def write_labels(path: Path, labelled: Labelled) -> None:
    """Write a table, whole or not at all, as CSV or JSON by the suffix of its name.

    Raises:
        StorageError: If it cannot be written.
    """
    write_rows(path, [row(picture, prediction) for picture, prediction in labelled])


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same columns, at least one, as `write_labels` does.

    Raises:
        StorageError: If it cannot be written.
    """
    text = json.dumps(rows, indent=1) + "\n" if path.suffix.lower() == ".json" else csv_text(rows)
    # What a file name holds that is no text comes out as the bytes it was.
    data = text.encode("utf-8", "surrogateescape")
    try:
        replace_file(path, data)
    except OSError as error:
        raise StorageError(f"cannot write {printable(str(path))}: {error.strerror or error}") from error


def row(path: Path, prediction: Prediction) -> Row:
    """Return the values of `COLUMNS` for one picture."""
    guesses: list[str | float | None] = [value for guess in prediction.top3 for value in guess]
    guesses += [None] * (2 * GUESSES - len(guesses))  # of two classes, no third
    return dict(zip(COLUMNS, (str(path), *guesses, prediction.unsure), strict=True))


def csv_text(rows: Sequence[Row]) -> str:
    """Return rows, at least one, as CSV with a header; truth is written `true` and `false`, as JSON has it."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(rows[0])
    for values in rows:
        writer.writerow([str(value).lower() if isinstance(value, bool) else value for value in values.values()])
    return file.getvalue()
