"""A test's answers to each image as a table beside its score, for comparing runs image by image. No torch."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from mnist_lightning.errors import ConfigError

ANSWERS = "answers.csv"
COLUMNS = ["image", "label", "answer"]


class Answer(NamedTuple):
    """The answer to an image.

    Args:
        image: Place of the image in its file, from 0.
        label: Its class, from 0.
        answer: The class that was answered, from 0.
    """

    image: int
    label: int
    answer: int


def as_csv(rows: Iterable[tuple[int, int, int]]) -> str:
    """Return the table of answers: image, label and answer of each."""
    return "".join(f"{image},{label},{answer}\n" for image, label, answer in [COLUMNS, *rows])


def read_answers(path: Path) -> list[Answer]:
    """Return the answers in a file.

    Raises:
        ConfigError: If it is not there, or no table of answers.
    """
    try:
        header, *rows = csv.reader(path.read_text().splitlines())
        answers = [Answer(*map(int, row)) for row in rows]
    except FileNotFoundError:
        raise ConfigError(f"{path} is not there; `test` writes it") from None
    except (ValueError, TypeError, csv.Error) as error:
        raise ConfigError(f"{path} is no table of answers; `test` writes it anew") from error
    if header != COLUMNS or not answers:
        raise ConfigError(f"{path} is no table of answers; `test` writes it anew")
    return answers
