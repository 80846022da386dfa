"""ClassificationMetrics: loss, whole-number accuracy and the further metrics that an option names."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol, Self, get_args

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics import classification as torchmetrics

from mnist_lightning.console import did_you_mean
from mnist_lightning.errors import ConfigError
from mnist_lightning.evaluation.metrics import LossAndAccuracy, Score
from mnist_lightning.models.class_path import ClassPath, build, class_path_of, with_arguments

ShortMetric = Literal["macro_f1", "macro_precision", "balanced_accuracy", "kappa", "auroc", "calibration_error"]


class MetricFactory(Protocol):
    """A class or function that returns a metric; jsonargparse takes the first `...` of a Callable for an argument."""

    def __call__(self, *args: Any, **kwargs: Any) -> Metric:
        """Return a metric."""
        ...


MetricOption = ShortMetric | MetricFactory
DETERMINED = ("num_classes", "task")  # arguments of a metric that are not options


class BalancedAccuracy(torchmetrics.MulticlassRecall):
    """Mean recall over the classes that occur among the labels; torchmetrics' own also counts predicted ones, as 0."""

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, average="none", **kwargs)

    def compute(self) -> Tensor:
        """Return the mean recall ()."""
        correct, labelled = self.tp.cpu().double(), (self.tp + self.fn).cpu()  # type: ignore[operator,union-attr]  # states
        return (correct / labelled)[labelled > 0].mean()


SHORT_NAMES: dict[str, Callable[..., Metric]] = {
    "macro_f1": partial(torchmetrics.MulticlassF1Score, average="macro"),
    "macro_precision": partial(torchmetrics.MulticlassPrecision, average="macro"),
    "balanced_accuracy": BalancedAccuracy,
    "kappa": torchmetrics.MulticlassCohenKappa,
    "auroc": torchmetrics.MulticlassAUROC,
    "calibration_error": torchmetrics.MulticlassCalibrationError,
}
RESERVED = ("loss", "acc", "correct", "total", "loss_and_accuracy")
assert SHORT_NAMES.keys() == set(get_args(ShortMetric))


class ClassificationMetrics(MetricCollection):
    """The metrics of one split, summed up over batches and ranks.

    It is made of what `metric_paths` returns; a class that cannot be used is a ConfigError.
    """

    def __init__(self, metrics: Mapping[str, str | ClassPath], num_classes: int) -> None:
        determined = {"num_classes": num_classes, "task": "multiclass"}
        found: dict[str, Metric | MetricCollection] = {"loss_and_accuracy": LossAndAccuracy()}
        for name, metric in metrics.items():
            if isinstance(metric, str):
                found[name] = SHORT_NAMES[metric](num_classes=num_classes, validate_args=False)
            else:
                found[name] = build(with_arguments(metric, determined), Metric)  # type: ignore[type-abstract]
        super().__init__(found, compute_groups=False)  # each with states of its own, which a checkpoint restores
        self.num_classes = num_classes

    def clone(self, prefix: str | None = None, postfix: str | None = None) -> Self:
        """Return a copy whose metrics have a prefix such as `val_`."""
        return super().clone(prefix, postfix)  # type: ignore[return-value]

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss (), logits (B, classes) and labels int64 (B,)."""
        probabilities = logits.float().softmax(dim=1) if len(self) > 1 else logits
        self.update(loss=loss, logits=logits, labels=labels, preds=probabilities, target=labels)

    def score(self) -> tuple[Score | None, dict[str, float]]:
        """Return the score, and all metrics by name, since the last `reset`; None if nothing was added."""
        base = self["loss_and_accuracy"]
        if not base.update_called:
            self._make_lists()
        with warnings.catch_warnings():
            # torchmetrics warns if `update` was not called, as when a resumed epoch had only its end left to do, and
            # if a class has no sample.
            warnings.simplefilter("ignore", UserWarning)
            if not base.compute():
                return None, {}
            values = self.compute()
        for name, value in values.items():
            if value.numel() != 1:
                raise ConfigError(f"model.metrics: {name} has {value.numel()} values, not one; set its `average`")
        numbers = {name: float(value) for name, value in values.items()}
        correct, total = (int(numbers.pop(f"{self.prefix}{count}")) for count in ("correct", "total"))
        return Score(numbers[f"{self.prefix}loss"], correct, total), numbers

    def _make_lists(self) -> None:
        """Put tensors of no samples into empty lists, for a rank without a batch: others would wait for it."""
        probe, logits = self.clone(), torch.zeros(1, self.num_classes, device=next(iter(self.values())).device)
        probe.add(logits.sum(), logits, logits.argmax(dim=1))
        for metric, filled in zip(self.values(), probe.values(), strict=True):
            for name, state in metric.metric_state.items():
                if isinstance(state, list) and not state:
                    setattr(metric, name, [tensor[:0] for tensor in getattr(filled, name)])


def metric_paths(metrics: Sequence[Any] | Mapping[str, Any]) -> dict[str, str | ClassPath]:
    """Return the further metrics as a checkpoint stores them: a short name or a class path for each name.

    They are given as short names and classes of torchmetrics; a mapping names each, a list takes the names of the
    classes. A ConfigError says that a short name is unknown, or that two have the same name.
    """
    paths: dict[str, str | ClassPath] = {}
    entries = metrics.items() if isinstance(metrics, Mapping) else ((None, metric) for metric in metrics)
    for given, metric in entries:
        short = isinstance(metric, str) and "." not in metric
        if short and metric not in SHORT_NAMES:
            raise ConfigError(f"model.metrics: unknown {metric}{did_you_mean(metric, SHORT_NAMES)}")
        path = metric if short else class_path_of(metric)
        name = given or (path if isinstance(path, str) else path["class_path"].rpartition(".")[2])
        if name in paths or name in RESERVED or hasattr(ClassificationMetrics, name):
            raise ConfigError(f"model.metrics: the name {name} is taken; choose one: {{name: {metric}}}")
        paths[name] = path
    return paths
