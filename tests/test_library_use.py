"""Classifier in a stock Trainer, with data that is not this project's, and subclasses of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Fabric
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from mnist_lightning import Classifier, MNISTDataModule, TableClassifier
from tests.conftest import folders
from tests.data.test_loader_in_lightning import make_data, quiet_trainer

IMAGES, LABELS = torch.randn(60, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 10
DATA = TensorDataset(IMAGES, LABELS)


class ForeignData(LightningDataModule):
    """Data that know nothing of this project; batches are lists, and of images alone for predicting."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(DATA, batch_size=20, sampler=WeightedRandomSampler([1.0] * 60, 60))

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Subset(DATA, range(30)), batch_size=20)

    def predict_dataloader(self) -> DataLoader[Any]:
        return DataLoader(IMAGES, batch_size=20)  # type: ignore[arg-type]  # a tensor is a sequence

    test_dataloader = val_dataloader


def test_foreign_data_can_be_trained_on_scored_and_predicted(tmp_path: Path) -> None:
    classifier, data = Classifier(conv_dropout=0, fc_dropout=0), ForeignData()
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(classifier, data)
    (scored,) = trainer.test(classifier, data, verbose=False)
    with torch.no_grad():
        expected = classifier.network(IMAGES)
    assert scored["test_acc"] == pytest.approx((expected[:30].argmax(1) == LABELS[:30]).double().mean().item())
    assert scored["test_loss"] == pytest.approx(
        nn.functional.cross_entropy(expected[:30], LABELS[:30]).item(), rel=1e-5
    )
    predictions: Any = trainer.predict(classifier, data)
    torch.testing.assert_close(torch.cat(predictions), expected.softmax(1))
    trainer.save_checkpoint(tmp_path / "any.ckpt")
    assert "inputs" not in torch.load(tmp_path / "any.ckpt", weights_only=True)


def test_rows_of_foreign_data(tmp_path: Path) -> None:
    loader = DataLoader(TensorDataset(torch.randn(60, 4), torch.arange(60) % 3), batch_size=20)
    classifier = TableClassifier(in_features=4, num_classes=3)
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(classifier, loader, loader)
    predictions: Any = trainer.predict(classifier, loader)
    assert [tuple(batch.shape) for batch in predictions] == [(20, 3)] * 3


class Network(nn.Module):
    """A network with an argument of its own."""

    def __init__(self, num_classes: int = 10, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.Linear(width, num_classes))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


class PassesOn(Classifier):
    """Takes keywords, and an object that no checkpoint can hold."""

    def __init__(self, extra: int = 1, weigh: Callable[[Tensor], Tensor] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kept = extra


class Fixes(Classifier):
    """Decides the arguments itself, and saves its own again."""

    def __init__(self, extra: int = 1) -> None:
        super().__init__(partial_network(extra + 2), 0.01)
        self.save_hyperparameters()
        self.kept = extra


class OwnSteps(Classifier):
    """Does everything itself."""

    kept = 5

    def forward(self, images: Tensor) -> Tensor:
        return 2 * self.network(images)  # type: ignore[no-any-return]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])


def partial_network(width: int) -> Callable[..., nn.Module]:
    from functools import partial

    return partial(Network, width=width)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(PassesOn, {"extra": 5, "weigh": abs, "lr": 0.02}), (Fixes, {"extra": 5}), (OwnSteps, {"lr": 0.02})],
)
def test_subclasses_train_and_return_from_their_checkpoint(
    tmp_path: Path, kind: Any, arguments: dict[str, Any]
) -> None:
    classifier = kind(**arguments)
    before = [weights.clone() for weights in classifier.parameters()]
    trainer = quiet_trainer(tmp_path, max_epochs=1, enable_checkpointing=True)
    trainer.fit(classifier, ForeignData())
    assert any(not torch.equal(old, new) for old, new in zip(before, classifier.parameters(), strict=True))
    (path,) = tmp_path.rglob("*.ckpt")
    torch.load(path, weights_only=True)
    again = kind.load_from_checkpoint(path)
    assert again.kept == 5
    assert again.hparams["lr"] == classifier.hparams["lr"]
    for ours, theirs in zip(classifier.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours.cpu(), theirs)
    fresh = quiet_trainer(tmp_path, max_epochs=2)
    fresh.fit(again, ForeignData())
    assert (fresh.current_epoch, fresh.global_step) == (2, 6)


def test_an_overridden_forward_is_what_is_trained_and_scored(tmp_path: Path) -> None:
    classifier = OwnSteps(conv_dropout=0, fc_dropout=0)
    (scored,) = quiet_trainer(tmp_path).validate(classifier, ForeignData(), verbose=False)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(2 * classifier.network(IMAGES[:30]), LABELS[:30])
    assert scored["val_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_fabric_takes_the_optimizer_and_steps_of_a_classifier() -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    classifier = Classifier()
    configured: Any = classifier.configure_optimizers()
    module, optimizer = fabric.setup(classifier, configured["optimizer"])
    module.mark_forward_method("training_step")
    loader: Any = fabric.setup_dataloaders(DataLoader(DATA, batch_size=20))
    losses = []
    for _ in range(5):
        for number, batch in enumerate(loader):
            losses.append(module.training_step(batch, number))
            fabric.backward(losses[-1])
            optimizer.step()
            optimizer.zero_grad()
    assert losses[-1].item() < losses[0].item()


@pytest.mark.slow
def test_the_tuner_puts_back_what_it_found_and_leaves_no_file(digits_dir: Path, tmp_path: Path) -> None:
    classifier, data = Classifier(), make_data(digits_dir)
    weights = {name: value.clone() for name, value in classifier.state_dict().items()}
    trainer = quiet_trainer(tmp_path, max_epochs=10)
    tuner = Tuner(trainer)
    found = tuner.lr_find(classifier, data, num_training=30)
    assert found is not None
    assert classifier.hparams["lr"] == found.suggestion() != 1e-3
    size = tuner.scale_batch_size(classifier, datamodule=data, max_trials=2, steps_per_trial=1, init_val=4)
    assert data.batch_size == data.hparams["batch_size"] == size == 8
    assert all(torch.equal(value, weights[name]) for name, value in classifier.state_dict().items())
    assert trainer.global_step == 0
    assert folders(tmp_path) == []
    trainer.fit_loop.max_epochs = 1
    trainer.fit(classifier, data)
    assert trainer.num_training_batches == 240 // 8


class Renamed(MNISTDataModule):
    """A constructor of its own, a plain loader, and a stage by default."""

    def __init__(self, root: str, *args: Any, extra: object = None, **kwargs: Any) -> None:
        super().__init__(root, *args, **kwargs)

    def setup(self, stage: str | None = None) -> None:
        super().setup(stage)

    def train_dataloader(self) -> Any:
        return DataLoader(super().train_dataloader().dataset, batch_size=self.batch_size, shuffle=True)


def test_subclasses_of_a_data_module_work(digits_dir: Path, tmp_path: Path) -> None:
    data = Renamed(str(digits_dir), 16, 60, extra=lambda: None, seed=3)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Classifier(), data)
    assert trainer.global_step == 240 // 16
    (path,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(path, weights_only=True)["datamodule_hyper_parameters"]
    assert (saved["batch_size"], saved["seed"], "extra" in saved) == (16, 3, False)
    assert len(trainer.predict(datamodule=data, ckpt_path="best", weights_only=True) or []) == 1
