from types import SimpleNamespace
from typing import cast

import pytest
import torch
from lightning.pytorch import Trainer

from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.samples import ImageDataset, RowDataset, Samples
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector


def lone_process() -> Trainer:
    """A trainer whose process hears of no other, for data of three classes."""
    strategy = SimpleNamespace(root_device=torch.device("cpu"), reduce=lambda part, reduce_op: part)
    datamodule = SimpleNamespace(schema=SimpleNamespace(class_names=("a", "b", "c")))
    return cast(Trainer, SimpleNamespace(strategy=strategy, datamodule=datamodule))


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_ranks_predict_every_image_once_and_in_file_order(world_size: int) -> None:
    indices = torch.arange(40) * 2 + 5  # of a file of 100 images, in whose first row each image's place is written
    images = torch.zeros(100, 4, 4, dtype=torch.uint8)
    images[:, 0, 0] = torch.arange(100)
    labels = torch.arange(100) % 3
    samples = Samples(images, labels, indices)
    seen = []
    for rank in range(world_size):
        group = {"num_replicas": world_size, "rank": rank}
        loader = BatchLoader(ImageDataset(samples, std=1 / 255), batch_size=8, group=group)
        collector = PredictionCollector()
        for batch_images, batch_labels in loader:
            places = batch_images[:, 0, 0, 0]
            collector.add(torch.stack([places, -places, places / 2], dim=1).bfloat16().double(), (None, batch_labels))
        predictions = collector.gather(lone_process(), loader)
        assert torch.equal(predictions.logits[:, 0], predictions.indices.float())
        assert torch.equal(predictions.labels, predictions.indices % 3)
        assert predictions.logits.dtype == torch.float32
        seen += predictions.indices.tolist()
    assert sorted(seen) == indices.tolist()


def test_a_limited_evaluation_has_the_predictions_that_it_made_and_the_next_starts_over() -> None:
    loader = BatchLoader(
        RowDataset(Samples(torch.zeros(20, 4), torch.zeros(20).long(), torch.arange(20))), batch_size=8
    )
    collector = PredictionCollector()
    collector.add(torch.ones(8, 3), (None, torch.zeros(8).long()))
    assert collector.gather(lone_process(), loader).indices.tolist() == list(range(8))
    assert len(collector.gather(lone_process(), loader).labels) == 0
