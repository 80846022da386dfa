import numpy as np
import torch
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_accuracy

from mnist_lightning.evaluation.metrics import LossAndAccuracy


def test_the_score_over_uneven_batches_equals_that_of_all_samples_at_once() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(107, 10), torch.randint(10, (107,))
    metric = LossAndAccuracy()
    for start in range(0, 107, 25):
        batch = slice(start, start + 25)
        metric.update(F.cross_entropy(logits[batch], labels[batch]), logits[batch], labels[batch])
    values = metric.compute()
    assert values["correct"] == (logits.numpy().argmax(1) == labels.numpy()).sum()
    assert values["total"] == 107
    assert np.isclose(values["acc"], multiclass_accuracy(logits, labels, 10, average="micro").item())
    assert np.isclose(values["loss"], F.cross_entropy(logits.double(), labels).item(), rtol=1e-6)


def test_reset_discards_everything() -> None:
    metric = LossAndAccuracy()
    metric.update(torch.tensor(1.0), torch.eye(10), torch.arange(10))
    metric.reset()
    metric.update(torch.tensor(2.0), torch.eye(10), torch.zeros(10, dtype=torch.int64))
    assert metric.compute() == {"loss": 2.0, "acc": 0.1, "correct": 1, "total": 10}
