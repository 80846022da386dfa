"""What a trained network must know of the images it was trained on. Neither torch nor files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_lightning.data.splits import Origin, origin_from_plain

SIDE = 28  # pixels, of the images of MNIST and its family
LEAST_SIDE, MOST_SIDE = 8, 256  # of any: SimpleCNN halves it twice, and at 256 has 34 million weights
MOST_CLASSES = 1000
EVAL_PIXELS = 500 * SIDE**2  # that go through the network at once, which bounds the memory


@dataclass(frozen=True)
class ImageSchema:
    """The form of the images of a data set, and what the network's outputs mean.

    Every checkpoint carries it as `inputs`, so that a network can be used without its data set.

    Args:
        height: Rows of an image.
        width: Columns of an image.
        mean: Mean pixel of the training images, of all their channels together, scaled to [0, 1].
        std: Standard deviation of the same, positive.
        class_names: The name of each class, by label.
        channels: 1 for grey images, 3 for red, green and blue.
        origin: The folder of pictures that they come from; None for MNIST and its family.
    """

    height: int
    width: int
    mean: float
    std: float
    class_names: tuple[str, ...]
    channels: int = 1
    origin: Origin | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image's pixels: (H, W), or (H, W, 3) for colour."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def eval_batch_size(self) -> int:
        """Images that go through the network at once where none is trained on: 500, or fewer of larger ones."""
        return max(1, min(EVAL_PIXELS // SIDE**2, EVAL_PIXELS // (self.height * self.width)))


# Mean and standard deviation of MNIST's 60,000 training images; a test recomputes both.
MNIST_SCHEMA = ImageSchema(height=SIDE, width=SIDE, mean=0.1307, std=0.3081, class_names=tuple("0123456789"))


def read_schema(checkpoint: Mapping[str, Any]) -> ImageSchema | None:
    """Return what a checkpoint says of its images; None where it says nothing, or nothing that can be."""
    try:
        fields = dict(checkpoint["inputs"])
        origin = origin_from_plain(fields["origin"]) if fields.get("origin") is not None else None
        schema = ImageSchema(**fields | {"class_names": tuple(fields["class_names"]), "origin": origin})
        is_square = (
            type(schema.height) is int and schema.height == schema.width and LEAST_SIDE <= schema.height <= MOST_SIDE
        )
        is_known = schema.origin is not None or (schema.height, schema.channels) == (SIDE, 1)
        channels_fit = type(schema.channels) is int and schema.channels in (1, 3)
        sizes_fit = is_square and is_known and channels_fit and 2 <= len(schema.class_names) <= MOST_CLASSES
        numbers_fit = all(isinstance(number, float) for number in (schema.mean, schema.std)) and (
            0 <= schema.mean <= 1 and 0 < schema.std <= 1
        )
        names_fit = all(isinstance(name, str) for name in schema.class_names)
    except (KeyError, TypeError, ValueError, RuntimeError):  # the last is a tensor's, for most it is asked
        return None
    return schema if sizes_fit and numbers_fit and names_fit else None
