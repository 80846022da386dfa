"""Label the rows of a CSV file; only the columns of the features are read. No Lightning."""

from pathlib import Path

import torch

from mnist_lightning.data.table.encoder import TableSchema
from mnist_lightning.data.table.reader import read_table
from mnist_lightning.inference.network import TrainedNetwork
from mnist_lightning.inference.predict.output import Labelled
from mnist_lightning.inference.prediction import Prediction, predictions_from


def label_rows(trained: TrainedNetwork[TableSchema], csv_file: Path, unsure_below: float) -> list[Labelled]:
    """Return the prediction for each row of a CSV file, with the row's number in the file.

    The file may lack the target column, and have other columns. If it cannot be read, or does not fit the network, that
    is a DatasetError.
    """
    table = read_table(csv_file, trained.schema.features)
    predictions: list[Prediction] = []
    for inputs in torch.split(torch.from_numpy(trained.schema.encode(table)), trained.schema.eval_batch_size):
        with torch.inference_mode():
            probabilities = (trained.network(inputs) / trained.calibration.temperature).softmax(dim=1)
        predictions += predictions_from(probabilities, trained.schema.class_names, unsure_below)
    return [Labelled(csv_file, *pair) for pair in zip(predictions, table.rows.tolist(), strict=True)]
