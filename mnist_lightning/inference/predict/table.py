"""`predict` for the rows of a CSV file: only the columns of the features are read. No Lightning."""

from pathlib import Path

import torch

from mnist_lightning.console import printable
from mnist_lightning.data.table.reader import read_table
from mnist_lightning.inference.network import TrainedTable, load_table
from mnist_lightning.inference.predict.output import COLUMNS, GUESSES, Row, percent, write_rows

BATCH_SIZE = 4096  # rows that go through the network at once; bounds the memory
SHOWN_ROWS = 20


def predict_table(csv_file: Path, reference: str, unsure_below: float | None, output: Path | None) -> int:
    """Label every row of a CSV file, show the first and file all; return the exit code 0.

    Args:
        csv_file: The table; it may lack the column that was learned, and have others.
        reference: The checkpoint, as `runs.locate` takes it.
        unsure_below: Probability in [0, 1] below which an answer counts as unsure; None takes the checkpoint's own.
        output: The .csv or .json file to write.

    Raises:
        CheckpointError: If there is no trained network for tables, or it is damaged.
        ConfigError: If pandas is not installed.
        DatasetError: If the table cannot be read, or does not fit.
        StorageError: If the labels cannot be written.
    """
    trained = load_table(reference)
    if unsure_below is None:
        unsure_below = trained.calibration.unsure_below
    print(f"network: {printable(str(trained.path))}, epoch {trained.epoch}; unsure below {unsure_below:.2f}")
    rows = label_rows(trained, csv_file, unsure_below)
    for row in rows[:SHOWN_ROWS]:
        probability, unsure = row["probability"], "  unsure" if row["unsure"] else ""
        assert isinstance(probability, float)
        print(f"row {row['row']}: {printable(str(row['label']))} {percent(probability)}{unsure}")
    if len(rows) > SHOWN_ROWS:
        print("…" if output else "… (--output labels.csv writes them all)")
    print(f"{len(rows):,} rows labelled, {sum(row['unsure'] is True for row in rows):,} of them unsure")
    if output:
        write_rows(output, rows)
        print(f"labels: {printable(str(output))}")
    return 0


def label_rows(trained: TrainedTable, csv_file: Path, unsure_below: float) -> list[Row]:
    """Return the label of each row with its number in the file, the two next ones, and whether it is unsure.

    Raises:
        ConfigError: If pandas is not installed.
        DatasetError: If the table cannot be read, or does not fit.
    """
    table = read_table(csv_file, trained.schema.features)
    inputs = torch.from_numpy(trained.schema.encode(table))
    names = trained.schema.class_names
    columns = ("file", "row", *COLUMNS[1:])
    rows: list[Row] = []
    for start in range(0, len(inputs), BATCH_SIZE):
        with torch.inference_mode():
            logits = trained.network(inputs[start : start + BATCH_SIZE])
            probabilities = (logits / trained.calibration.temperature).softmax(dim=1)
        best = probabilities.topk(min(GUESSES, len(names)))  # (B, 3)
        for number, values, places in zip(
            table.rows[start : start + BATCH_SIZE].tolist(), best.values.tolist(), best.indices.tolist(), strict=True
        ):
            guesses = [item for place, value in zip(places, values, strict=True) for item in (names[place], value)]
            guesses += [None] * (2 * GUESSES - len(guesses))  # of two classes, no third
            rows.append(dict(zip(columns, (str(csv_file), number, *guesses, values[0] < unsure_below), strict=True)))
    return rows
