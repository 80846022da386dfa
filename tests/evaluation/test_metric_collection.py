"""Further metrics, against scikit-learn's."""

from functools import partial
from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn
from torchmetrics.classification import MulticlassAUROC, MulticlassF1Score

from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metric_collection import ClassificationMetrics, metric_paths

CLASSES = 4


def scored(metrics: Any, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    collection = ClassificationMetrics(metric_paths(metrics), CLASSES).clone(prefix="val_")
    for start in range(0, len(labels), 7):
        batch = slice(start, start + 7)
        collection.add(torch.tensor(0.5), logits[batch], labels[batch])
    score, values = collection.score()
    assert score is not None
    assert (score.correct, score.total) == (int((logits.argmax(1) == labels).sum()), len(labels))
    assert (values["val_acc"], values["val_loss"]) == (score.correct / score.total, 0.5)
    return values


@pytest.mark.parametrize("missing", [0, 1])
def test_further_metrics_equal_scikit_learns(missing: int) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES - missing, (101,), generator=generator)
    logits = 3 * torch.randn(101, CLASSES, generator=generator) + 2 * torch.eye(CLASSES)[labels]
    names = ["macro_f1", "macro_precision", "balanced_accuracy", "kappa"]
    values = scored(names if missing else [*names, "auroc"], logits, labels)
    truth, predicted = labels.numpy(), logits.argmax(1).numpy()
    expected = {
        "macro_f1": sklearn.f1_score(truth, predicted, average="macro"),
        "macro_precision": sklearn.precision_score(truth, predicted, average="macro", zero_division=0),
        "kappa": sklearn.cohen_kappa_score(truth, predicted),
    }
    present = [(predicted[truth == label] == label).mean() for label in set(truth.tolist())]
    expected["balanced_accuracy"] = sum(present) / len(present)
    if not missing:
        probabilities = logits.double().softmax(1).numpy()
        expected["auroc"] = sklearn.roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    for name, value in expected.items():
        assert values[f"val_{name}"] == pytest.approx(value, abs=1e-6), name


def test_own_names_allow_one_class_of_metric_twice() -> None:
    own = {"micro": partial(MulticlassF1Score, average="micro"), "auc": MulticlassAUROC}
    logits, labels = torch.eye(CLASSES).repeat(5, 1), torch.arange(CLASSES).repeat(5)
    assert scored(own, logits, labels)["val_micro"] == 1.0


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (["macro_f"], "unknown macro_f; did you mean macro_f1"),
        (["kappa", "kappa"], "the name kappa is taken"),
        ({"loss": "kappa"}, "the name loss is taken"),
        ([partial(MulticlassF1Score, average="none")], "MulticlassF1Score has 4 values"),
        ([partial(MulticlassF1Score, num_classes=9)], "num_classes is 9, but the data and options need 4"),
        (["torch.nn.Linear"], "is not a subclass of Metric"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_with_the_reason(metrics: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        scored(metrics, torch.eye(CLASSES), torch.arange(CLASSES))
