"""Train, evaluate and use a classifier of MNIST, of folders of images or of tables, with PyTorch Lightning.

The public names are imported on first use: importing the package alone imports neither torch nor Lightning.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_lightning.data.image_folder.datamodule import PictureFolderDataModule as PictureFolderDataModule
    from mnist_lightning.data.mnist.datamodule import MNISTDataModule as MNISTDataModule
    from mnist_lightning.data.table.datamodule import TabularDataModule as TabularDataModule
    from mnist_lightning.data.table.dataset import TabularDataset as TabularDataset
    from mnist_lightning.inference.predictor import Predictor as Predictor
    from mnist_lightning.models.cnn import SimpleCNN as SimpleCNN
    from mnist_lightning.training.classifier import Classifier as Classifier
    from mnist_lightning.training.default_callbacks import default_callbacks as default_callbacks
    from mnist_lightning.training.table_classifier import TableClassifier as TableClassifier

_MODULES = {
    "Classifier": "mnist_lightning.training.classifier",
    "MNISTDataModule": "mnist_lightning.data.mnist.datamodule",
    "PictureFolderDataModule": "mnist_lightning.data.image_folder.datamodule",
    "Predictor": "mnist_lightning.inference.predictor",
    "SimpleCNN": "mnist_lightning.models.cnn",
    "TableClassifier": "mnist_lightning.training.table_classifier",
    "TabularDataModule": "mnist_lightning.data.table.datamodule",
    "TabularDataset": "mnist_lightning.data.table.dataset",
    "default_callbacks": "mnist_lightning.training.default_callbacks",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("mnist-lightning")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
