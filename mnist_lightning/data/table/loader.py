"""RowLoader: whole batches of a table's rows from memory."""

from torch import Tensor

from mnist_lightning.data.loader import BatchLoader


class RowLoader(BatchLoader):
    """Yield batches of a table's rows, float32 (B, F), and their labels, int64 (B,), in the order of a `BatchLoader`.

    Its arguments are those of a `BatchLoader`, with float32 rows (N, F) in place of the images; rows are served as they
    are, without normalisation and augmentation.
    """

    def _inputs(self, number: int, chosen: Tensor) -> Tensor:
        return self.images.index_select(0, chosen)
