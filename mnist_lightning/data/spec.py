"""What a trained network must know of the images it was trained on. Neither torch nor files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIDE = 28  # pixels, of all images that the network takes
MOST_CLASSES = 256  # what a label of one byte can tell apart


@dataclass(frozen=True)
class ImageSpec:
    """The form of the images of a data set, and what the network's outputs mean.

    Every checkpoint carries it as `inputs`, so that a network can be used without its data set.

    Args:
        height: Rows of an image.
        width: Columns of an image.
        mean: Mean pixel of the training images, scaled to [0, 1].
        std: Standard deviation of the same, positive.
        class_names: The name of each class, by label.
    """

    height: int
    width: int
    mean: float
    std: float
    class_names: tuple[str, ...]


# Mean and standard deviation of MNIST's 60,000 training images; a test recomputes both.
MNIST_SPEC = ImageSpec(height=SIDE, width=SIDE, mean=0.1307, std=0.3081, class_names=tuple("0123456789"))


def read_spec(checkpoint: Mapping[str, Any]) -> ImageSpec | None:
    """Return what a checkpoint says of its images; None where it says nothing, or nothing that can be."""
    try:
        fields = dict(checkpoint["inputs"])
        spec = ImageSpec(**fields | {"class_names": tuple(fields["class_names"])})
        sizes_fit = (spec.height, spec.width) == (SIDE, SIDE) and 3 <= len(spec.class_names) <= MOST_CLASSES
        numbers_fit = all(isinstance(number, float) and 0 < number < 1 for number in (spec.mean, spec.std))
        names_fit = all(isinstance(name, str) for name in spec.class_names)
    except (KeyError, TypeError, ValueError):
        return None
    return spec if sizes_fit and numbers_fit and names_fit else None
