"""Weights to start from, frozen backbones and class weights, with a stock Trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from lightning.pytorch.callbacks import BackboneFinetuning
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional as F

from mnist_lightning import Classifier, MNISTDataModule, SimpleCNN
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.errors import CheckpointError, ConfigError
from mnist_lightning.models.backbone import backbone_of
from mnist_lightning.training.classifier_base import make_class_weights
from mnist_lightning.training.initial_weights import load_initial_weights
from tests.conftest import Command
from tests.training.bits import assert_same, content
from tests.training.callbacks.test_exact_resume import SaveAt
from tests.training.test_own_classes import Tiny, make_trainer

pytestmark = pytest.mark.usefixtures("undrawn")


def data(digits_dir: Path) -> MNISTDataModule:
    return MNISTDataModule(str(digits_dir), val_size=60, batch_size=32)


@pytest.mark.parametrize("prefix", ["", "network.", "model.module."])
def test_weights_are_found_under_any_prefix_and_the_head_starts_anew(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pretrained, network = SimpleCNN(), SimpleCNN(num_classes=7)
    head = network.fc2.weight.clone()
    torch.save({prefix + name: value for name, value in pretrained.state_dict().items()}, tmp_path / "plain.pt")
    text = load_initial_weights(network, str(tmp_path / "plain.pt"), tmp_path)
    assert text.splitlines() == [
        f"weights from {tmp_path / 'plain.pt'}: 6 of 8 tensors, 420,352 numbers",
        "  start anew, their shape differs: fc2.weight, fc2.bias",
    ]
    assert_same(dict(network.conv2.state_dict()), dict(pretrained.conv2.state_dict()))
    assert torch.equal(network.fc2.weight, head)


def test_the_weights_of_a_backbone_are_found_inside_a_network(tmp_path: Path) -> None:
    inner, network = nn.Linear(5, 4), nn.Sequential(nn.Sequential(nn.Linear(5, 4)), nn.Linear(4, 2))
    torch.save({"model": inner.state_dict()}, tmp_path / "inner.pt")
    load_initial_weights(network, str(tmp_path / "inner.pt"), tmp_path)
    assert_same(dict(network.get_submodule("0.0").state_dict()), dict(inner.state_dict()))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"other.weight": torch.zeros(3)}, "no weight in .* has the name and shape"),
        ({"epoch": 3}, "contains no weights"),
        ({name: value / 0 for name, value in SimpleCNN().state_dict().items()}, "is not finite"),
        ({"state_dict": SimpleCNN}, "contains more than plain values"),
    ],
)
def test_a_file_whose_weights_cannot_be_used_is_refused(content: Any, reason: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=reason):
        load_initial_weights(SimpleCNN(), str(tmp_path / "file.pt"), tmp_path)


def test_a_run_starts_from_another_and_needs_it_never_again(
    fit: Command, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    best = tmp_path / "checkpoints" / "version_0" / "best.ckpt"
    monkeypatch.setenv("HOME", str(best.parent))
    for reference in ("version_0/best", "~/best.ckpt"):
        started = fit("--model.init_from", reference, "--trainer.max_epochs", "1", "--model.lr", "1e-12")
        assert started.code == 0, started.err
        assert "8 of 8 tensors, 421,642 numbers" in started.out
    weights = content(tmp_path / "checkpoints" / "version_2")["state_dict"]
    for name, value in content(best.parent, "best.ckpt")["state_dict"].items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-9)
    best.parent.rename(tmp_path / "gone")
    for args in (["test"], ["fit", "--ckpt_path", "last", "--trainer.max_epochs", "2"]):
        outcome = command(*args)
        assert outcome.code == 0, outcome.err
        assert "tensors" not in outcome.out
    resumed = command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "3", "--model.init_from", "version_1/best")
    assert resumed.code == 2
    assert "cannot change model.init_from" in resumed.err.splitlines()[-1]
    missing = fit("--model.init_from", "version_0/best")
    assert missing.code == 6
    assert missing.err.splitlines()[-1].startswith("error: there is no version_0 in")


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (SimpleCNN(), ["fc2.weight", "fc2.bias"]),
        (Tiny(10), ["head.weight", "head.bias"]),
        (torchvision.models.resnet18(num_classes=3), ["fc.weight", "fc.bias"]),
        (torchvision.models.vit_b_32(num_classes=3), ["heads.head.weight", "heads.head.bias"]),
        (torchvision.models.squeezenet1_1(num_classes=3), ["classifier.1.weight", "classifier.1.bias"]),
    ],
)
def test_the_backbone_is_everything_but_the_head(network: nn.Module, head: list[str]) -> None:
    frozen = {id(parameter) for parameter in backbone_of(network).parameters()}
    BackboneFinetuning.freeze(backbone_of(network), train_bn=False)
    trained = [name for name, parameter in network.named_parameters() if id(parameter) not in frozen]
    assert trained == head == [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def test_a_subclass_has_the_backbone_that_it_names() -> None:
    class Own(Classifier):
        def __init__(self) -> None:
            super().__init__(network=Tiny)
            self.backbone = nn.Linear(2, 2)  # type: ignore[misc]  # a property of the base class

    assert isinstance(Own().backbone, nn.Linear)
    assert not any(name.startswith("backbone") for name in Classifier().state_dict())


# Lightning's, because batch normalisation is trained from the start.
@pytest.mark.filterwarnings("ignore:The provided params to be frozen already exist:UserWarning")
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("where", [{"step": 3}, {"step": 11}, {"epoch": 0}, {"step": 19}, {"epoch": 2}])
def test_fine_tuning_resumes_exactly(where: dict[str, int], optimizer: Any, digits_dir: Path, tmp_path: Path) -> None:
    def make() -> tuple[Classifier, BackboneFinetuning]:
        torch.manual_seed(0)
        return Classifier(network=Tiny, lr=0.01, optimizer=optimizer), BackboneFinetuning(1, verbose=False)

    path = tmp_path / "middle.ckpt"
    (unbroken, one), (resumed, other) = make(), make()
    start = {name: value.clone() for name, value in unbroken.named_parameters()}
    first, second = make_trainer(tmp_path, 4, one, SaveAt(path, **where)), make_trainer(tmp_path, 4, other)
    first.fit(unbroken, data(digits_dir))
    second.fit(resumed, data(digits_dir), ckpt_path=path)
    assert all(not torch.equal(value, start[name]) for name, value in unbroken.named_parameters()), "all were trained"
    assert_same(dict(resumed.state_dict()), dict(unbroken.state_dict()))
    assert_same(second.optimizers[0].state_dict(), first.optimizers[0].state_dict())
    assert sum(len(group["params"]) for group in second.optimizers[0].param_groups) == len(start)


def test_balanced_class_weights_are_scikit_learns(digits_dir: Path) -> None:
    module = data(digits_dir)
    module.setup("fit")
    train = module.samples("train")
    labels = train.labels[train.indices]
    expected = compute_class_weight("balanced", classes=np.arange(10), y=labels.numpy())
    found = make_class_weights("balanced", 10, module)
    assert found is not None
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-6, atol=0)


def test_class_weights_are_in_the_training_loss_alone(digits_dir: Path, tmp_path: Path) -> None:
    weights = [1.0, 5.0, *([1.0] * 8)]
    torch.manual_seed(0)
    model = Classifier(network=Tiny, class_weights=weights)
    trainer, module = make_trainer(tmp_path, 1), data(digits_dir)
    losses: list[tuple[float, float]] = []

    def training_step(batch: Any, batch_idx: int) -> torch.Tensor:
        loss = Classifier.training_step(model, batch, batch_idx)
        expected = F.cross_entropy(model.network(batch[0]), batch[1], weight=torch.tensor(weights))
        losses.append((loss.item(), expected.item()))
        return loss

    model.training_step = training_step  # type: ignore[method-assign]
    trainer.fit(model, module)
    assert all(ours == pytest.approx(expected, rel=1e-5) for ours, expected in losses)
    loader = module.val_dataloader()
    assert isinstance(loader, BatchLoader)
    inputs, labels = loader.first_batch()
    unweighted = F.cross_entropy(model.eval()(inputs), labels).item()
    assert trainer.callback_metrics["val_loss"].item() == pytest.approx(unweighted, rel=1e-5)
    trainer.save_checkpoint(tmp_path / "weighted.ckpt")
    assert content(tmp_path, "weighted.ckpt")["hyper_parameters"]["class_weights"] == weights


@pytest.mark.parametrize("weights", [[1.0], [0.0] * 10, [float("inf")] * 10, "equal"])
def test_class_weights_that_cannot_be_are_refused(weights: Any) -> None:
    with pytest.raises(ConfigError, match=r"model\.class_weights must be"):
        Classifier(class_weights=weights)
