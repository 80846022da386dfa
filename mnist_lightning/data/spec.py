"""What a trained network must know of the images it was trained on. Neither torch nor files."""

from dataclasses import dataclass


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
MNIST_SPEC = ImageSpec(height=28, width=28, mean=0.1307, std=0.3081, class_names=tuple("0123456789"))
