"""Train, validate, test and use an image classifier for MNIST, with PyTorch Lightning.

The public names load what they need on first use: importing the package alone imports neither torch nor Lightning.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnist_lightning.data.mnist import MNISTDataModule
    from mnist_lightning.inference.predictor import Predictor
    from mnist_lightning.models.cnn import SimpleCNN
    from mnist_lightning.training.classifier import Classifier

__all__ = ["Classifier", "MNISTDataModule", "Predictor", "SimpleCNN"]

_HOMES = {
    "Classifier": "mnist_lightning.training.classifier",
    "MNISTDataModule": "mnist_lightning.data.mnist",
    "Predictor": "mnist_lightning.inference.predictor",
    "SimpleCNN": "mnist_lightning.models.cnn",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return version("mnist-lightning")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
