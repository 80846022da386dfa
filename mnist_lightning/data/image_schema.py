"""ImageSchema: what a trained network has to know of its images. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnist_lightning.data.splits import TrainingSource

SIDE = 28  # pixels a side of the images of MNIST and related data sets
LEAST_SIDE, MOST_SIDE = 8, 256  # of any image: SimpleCNN halves it twice, and at 256 has 34 million weights
MOST_CLASSES = 1000
EVAL_PIXELS = 500 * SIDE**2  # evaluated at once, which bounds the memory


@dataclass(frozen=True)
class ImageSchema:
    """Size and normalisation of the images of a data set, and the meaning of the network's outputs.

    Every checkpoint holds it as `inputs`, so that a network can be used without its data set.
    """

    height: int
    width: int
    mean: float  # of the pixels of the training images, all channels together, in [0, 1]
    std: float  # of the same pixels, positive
    class_names: tuple[str, ...]  # by label
    channels: int = 1  # or 3: red, green and blue
    origin: TrainingSource | None = None  # the folder of images; None for MNIST and related data sets
    own_sha256: str = ""  # of the training images and labels in IDX files of the user's own

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image's pixels: (H, W), or (H, W, 3) in colour."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)

    @property
    def eval_batch_size(self) -> int:
        """Images in a batch of an evaluation: 500, or fewer of larger ones."""
        return max(1, min(EVAL_PIXELS // SIDE**2, EVAL_PIXELS // (self.height * self.width)))


# Mean and standard deviation of MNIST's 60,000 training images; a test recomputes both.
MNIST_SCHEMA = ImageSchema(height=SIDE, width=SIDE, mean=0.1307, std=0.3081, class_names=tuple("0123456789"))


def read_schema(checkpoint: Mapping[str, Any]) -> ImageSchema | None:
    """Return the image schema in a checkpoint; None if the entry is missing or invalid."""
    try:
        fields = dict(checkpoint["inputs"])
        origin = TrainingSource.from_plain(fields["origin"]) if fields.get("origin") is not None else None
        schema = ImageSchema(**fields | {"class_names": tuple(fields["class_names"]), "origin": origin})
        is_valid = (
            all(type(number) is int for number in (schema.height, schema.width, schema.channels))
            and schema.height == schema.width
            and LEAST_SIDE <= schema.height <= MOST_SIDE
            and schema.channels in (1, 3)
            and (schema.origin is not None or (schema.height, schema.channels) == (SIDE, 1))
            and 2 <= len(schema.class_names) <= MOST_CLASSES
            and all(isinstance(name, str) for name in (schema.own_sha256, *schema.class_names))
            and 0 <= schema.mean <= 1
            and 0 < schema.std <= 1
        )
    except (KeyError, TypeError, ValueError, RuntimeError):  # RuntimeError: a tensor in place of a plain value
        return None
    return schema if is_valid else None
