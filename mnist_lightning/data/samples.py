"""The samples of one split."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """The samples of one split, among all samples of the file that holds them."""

    inputs: Tensor  # uint8 (N, H, W) or (N, H, W, 3), the pixels of images; float32 (N, F), the rows of a table
    labels: Tensor  # int64 (N,)
    indices: Tensor  # int64 (M,), the samples of the split, in file order
