"""Own and library networks, optimizers and schedules, with a stock Trainer."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from lightning.pytorch import Trainer
from torch import nn
from torch.optim import LBFGS, SGD, Adafactor
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, OneCycleLR, StepLR

from mnist_lightning import Classifier, MNISTDataModule
from mnist_lightning.errors import ConfigError
from mnist_lightning.models.class_path import class_path_of
from mnist_lightning.training.callbacks.exact_resume import ExactResume
from tests.training.bits import assert_same
from tests.training.callbacks.test_exact_resume import SaveAt


class Tiny(nn.Module):
    """A network of one layer."""

    def __init__(self, num_classes: int, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width))
        self.head = nn.Linear(width, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.layers(images)))  # type: ignore[no-any-return]


def make_tiny(num_classes: int = 10, width: int = 2) -> nn.Module:
    return Tiny(num_classes, width)


def make_trainer(root: Path, epochs: int = 3, *callbacks: Any) -> Trainer:
    return Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=root, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[ExactResume(), *callbacks],
    )  # fmt: skip


@pytest.mark.parametrize("network", [Tiny, partial(Tiny, width=5), make_tiny, f"{__name__}.Tiny"])
def test_a_network_is_rebuilt_from_its_checkpoint_alone(network: Any, digits_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 1)
    model = Classifier(network=network)
    trainer.fit(model, MNISTDataModule(str(digits_dir), val_size=60))
    trainer.save_checkpoint(tmp_path / "tiny.ckpt")
    torch.load(tmp_path / "tiny.ckpt", weights_only=True)
    again = Classifier.load_from_checkpoint(tmp_path / "tiny.ckpt")
    assert_same(dict(again.state_dict()), dict(model.state_dict()))


def test_the_number_of_classes_reaches_a_network_of_torchvision() -> None:
    model = Classifier(network=torchvision.models.resnet18, num_classes=7, in_channels=3, image_size=64)
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (partial(Tiny, num_classes=4), "num_classes is 4, but the data and options need 10"),
        (partial(make_tiny, **{"widht": 4}), "unexpected keyword argument 'widht'"),
        (dict, "is not a subclass of Module"),
        (class_path_of, "missing 1 required positional argument"),
        (f"{__name__}.Tinny", "did you mean Tiny?"),
        ("no.such.Thing", "cannot be imported: module no is neither in the working directory nor"),
    ],
)
def test_a_network_that_cannot_be_is_refused_with_the_reason(network: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason.replace("?", r"\?")):
        Classifier(network=network)


OPTIMIZERS: dict[str, tuple[Any, Any, str]] = {
    "StepLR": (partial(SGD, momentum=0.9), partial(StepLR, step_size=1, gamma=0.5), "epoch"),
    "OneCycleLR": (partial(SGD, momentum=0.9), partial(OneCycleLR, max_lr=0.1, total_steps=None), "step"),
    "restarts": (SGD, partial(CosineAnnealingWarmRestarts, T_0=5), "step"),
    "Adafactor": (Adafactor, "plateau", "epoch"),
    "LBFGS": (partial(LBFGS, max_iter=2), "plateau", "epoch"),  # evaluates the loss more than once a step
}


@pytest.mark.parametrize("where", [{"step": 11}, {"epoch": 1}])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimizer_and_schedule_resumes_exactly(
    name: str, where: dict[str, int], digits_dir: Path, tmp_path: Path
) -> None:
    optimizer, schedule, interval = OPTIMIZERS[name]

    def make() -> Classifier:
        torch.manual_seed(0)
        return Classifier(
            network=Tiny,
            lr=0.02,
            optimizer=optimizer,
            lr_scheduler=schedule,
            lr_scheduler_interval=interval,  # type: ignore[arg-type]
        )

    def data() -> MNISTDataModule:
        return MNISTDataModule(str(digits_dir), val_size=60, batch_size=32)

    path = tmp_path / "middle.ckpt"
    unbroken, resumed = make(), make()
    first, second = make_trainer(tmp_path, 3, SaveAt(path, **where)), make_trainer(tmp_path, 3)
    first.fit(unbroken, data())
    second.fit(resumed, data(), ckpt_path=path)
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))
    assert_same(second.optimizers[0].state_dict(), first.optimizers[0].state_dict())
    last, again = (each.lr_scheduler_configs[0].scheduler.state_dict() for each in (first, second))
    assert_same(again, last)


def test_the_learning_rate_reaches_an_optimizer_given_as_a_class(digits_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 1)
    trainer.fit(Classifier(lr=0.25, optimizer=SGD), MNISTDataModule(str(digits_dir), val_size=60))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.25


def test_lbfgs_trains_convolutions(digits_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 1)
    trainer.fit(Classifier(lr=0.1, optimizer=LBFGS), MNISTDataModule(str(digits_dir), val_size=60, batch_size=240))
    assert trainer.callback_metrics["val_acc"] > 0.5


def test_probabilities_are_predicted(digits_dir: Path, tmp_path: Path) -> None:
    images = torch.randn(4, 1, 28, 28)
    model = Classifier()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, torch.zeros(4)), batch_size=2)
    predicted = make_trainer(tmp_path).predict(model, loader)
    assert predicted is not None
    expected = model.eval()(images).softmax(dim=1)
    torch.testing.assert_close(torch.cat([batch for batch in predicted if isinstance(batch, torch.Tensor)]), expected)


def test_a_network_given_as_an_object_has_to_be_given_again(digits_dir: Path, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, 1)
    trainer.fit(Classifier(network=Tiny(10)), MNISTDataModule(str(digits_dir), val_size=60))
    trainer.save_checkpoint(tmp_path / "object.ckpt")
    with pytest.raises(ConfigError, match="was given as an object"):
        Classifier.load_from_checkpoint(tmp_path / "object.ckpt")
    again = Classifier.load_from_checkpoint(tmp_path / "object.ckpt", network=Tiny(10))
    assert_same(dict(again.state_dict()), dict(trainer.lightning_module.state_dict()))
