"""Prediction: the most probable classes of one image or row. No torch at run time."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

    from mnist_lightning.inference.digits.preprocess import NetworkInput

MAX_CLASSES = 3  # in a prediction


class ClassProbability(NamedTuple):
    """A class and its probability in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image or row."""

    label: str  # name of the most probable class, such as "7"
    probability: float  # of this class, in [0, 1]
    top3: tuple[
        ClassProbability, ...
    ]  # the three most probable classes, or both if there are two, starting with `label`
    unsure: bool  # whether the probability is below the threshold for predictions to rely on
    index: int  # of the class, from 0
    # The image as the network saw it; None for rows, and for pixels that needed no preprocessing.
    input: "NetworkInput | None" = field(default=None, repr=False, compare=False)


def predictions_from(probabilities: "Tensor", class_names: Sequence[str], unsure_below: float) -> list[Prediction]:
    """Return a prediction for each row of probabilities (N, classes); those below the threshold are unsure."""
    best = probabilities.topk(min(MAX_CLASSES, len(class_names)))  # (N, 3)
    predictions = []
    for values, classes in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        top3 = tuple(ClassProbability(class_names[i], value) for i, value in zip(classes, values, strict=True))
        predictions.append(Prediction(*top3[0], top3, unsure=values[0] < unsure_below, index=classes[0]))
    return predictions
