import numpy as np
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy

from mnist_lightning.evaluation.metrics import LossAndAccuracy, Score


def test_the_score_over_uneven_batches_equals_that_of_all_samples_at_once() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(107, 10), torch.randint(10, (107,))
    metric = LossAndAccuracy()
    for start in range(0, 107, 25):
        batch = slice(start, start + 25)
        metric.update(F.cross_entropy(logits[batch], labels[batch]), logits[batch], labels[batch])
    score = metric.score()
    assert score
    assert (score.correct, score.total) == (int((logits.numpy().argmax(1) == labels.numpy()).sum()), 107)
    assert np.isclose(score.accuracy, multiclass_accuracy(logits, labels, 10, average="micro").item())
    assert np.isclose(score.loss, F.cross_entropy(logits.double(), labels).item(), rtol=1e-6)


def test_reset_discards_everything() -> None:
    metric = LossAndAccuracy()
    metric.update(torch.tensor(1.0), torch.eye(10), torch.arange(10))
    metric.reset()
    metric.update(torch.tensor(2.0), torch.eye(10), torch.zeros(10, dtype=torch.int64))
    assert metric.score() == Score(loss=2.0, correct=1, total=10)
