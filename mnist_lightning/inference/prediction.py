"""What a network says of a picture. No torch."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mnist_lightning.inference.digits.preprocess import NetworkInput


class ClassProbability(NamedTuple):
    """A class and how probable the network finds it, in [0, 1]."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What a network says of one picture.

    Args:
        label: Name of the most probable class, such as `"7"`.
        probability: How probable, in [0, 1].
        top3: The three most probable classes, or two where there are no more, the first of them `label`.
        unsure: Whether the probability is below the predictor's threshold.
        index: The class as the data's labels count it, from 0.
        input: What the network saw of the picture, and how it was found; None for pixels that were given as they are.
    """

    label: str
    probability: float
    top3: tuple[ClassProbability, ...]
    unsure: bool
    index: int
    input: "NetworkInput | None" = field(default=None, repr=False, compare=False)
