from pathlib import Path

import pytest
import torch

from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.predictions import Predictions, read_hits


def test_a_predictions_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    predictions = Predictions(torch.eye(3)[[2, 0]], torch.tensor([2, 1]), torch.tensor([5, 9]))
    path = tmp_path / "predictions.csv"
    path.write_text(predictions.as_csv())
    assert path.read_text() == "index,label,prediction\n5,2,2\n9,1,0\n"
    assert read_hits(path) == {(5, 2): True, (9, 1): False}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "index,label,prediction\n",
        "image,label,answer\n1,2,3\n",
        "index,label,prediction\n1,x,2\n",
        "index,label,prediction\n1,2\n",
    ],
)
def test_other_content_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "predictions.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is not a predictions file"):
        read_hits(path)
