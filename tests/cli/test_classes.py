"""Classes of a person's own, and of libraries, by option and by config: nothing is edited in the package."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from mnist_lightning.cli.class_groups import flat_arguments, split_group
from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("undrawn")

MINE = '''
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import OptimizerCallable
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric

from mnist_lightning import Classifier, MNISTDataModule


class Tiny(nn.Module):
    def __init__(self, num_classes: int, width: int = 3) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(784, width), nn.Linear(width, num_classes)

    def forward(self, images):
        return self.last(F.relu(self.first(images.flatten(1))))


def make_tiny(num_classes: int = 10, width: int = 4) -> nn.Module:
    return Tiny(num_classes, width)


def make_untyped(num_classes: int = 10):
    return Tiny(num_classes)


class Wide(nn.Module):
    def forward(self, images):
        return images.flatten(1)


class Bright(LightningDataModule):
    """Four classes of brightness."""

    def __init__(self, count: int = 64) -> None:
        super().__init__()
        self.count, self.num_classes = count, 4

    def loader(self, seed):
        torch.manual_seed(seed)
        labels = torch.arange(self.count) % 4
        images = torch.randn(self.count, 1, 28, 28) / 4 + labels[:, None, None, None]
        return DataLoader(TensorDataset(images, labels), batch_size=16)

    num_classes = 4
    def train_dataloader(self): return self.loader(0)
    def val_dataloader(self): return self.loader(1)
    def test_dataloader(self): return self.loader(2)


class Plain(LightningModule):
    def __init__(self, num_classes: int, lr: float = 0.1, hidden: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Tiny(num_classes, hidden)

    def forward(self, images): return self.net(images)

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def score(self, batch, split):
        logits = self(batch[0])
        self.log(f"{split}_loss", F.cross_entropy(logits, batch[1]))
        self.log(f"{split}_acc", (logits.argmax(1) == batch[1]).float().mean())

    def validation_step(self, batch, batch_idx): self.score(batch, "val")
    def test_step(self, batch, batch_idx): self.score(batch, "test")
    def configure_optimizers(self): return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)


class Extended(Classifier):
    def __init__(self, extra: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class Digits(MNISTDataModule):
    def __init__(self, extra: int = 1, **kwargs) -> None:
        super().__init__(**kwargs)
        self.extra = extra


class TopK(Metric):
    def __init__(self, k: int = 2) -> None:
        super().__init__()
        self.k = k
        self.add_state("hits", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds, target):
        self.hits += (preds.topk(self.k).indices == target[:, None]).sum()
        self.total += len(target)

    def compute(self): return self.hits / self.total


class Assembled(Plain):
    """Has options of the names of a Classifier's, but is given their objects, as in Lightning's documentation."""

    def __init__(self, network: nn.Module, optimizer: OptimizerCallable = torch.optim.Adam) -> None:
        LightningModule.__init__(self)
        self.net, self.optimizer = network, optimizer

    def configure_optimizers(self): return self.optimizer(self.parameters())


class Note(Callback):
    def __init__(self, word: str = "hello") -> None:
        self.word = word

    def on_fit_start(self, trainer, pl_module):
        print("noted:", self.word, type(pl_module).__name__)
'''
SHORT = ("--trainer.max_epochs", "1")
LOGS = Path("lightning_logs/version_0")


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module in the working directory."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "needs.py").write_text("import a_package_that_is_missing\n")
    (tmp_path / "typo.py").write_text("def (\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in ("mine", "needs", "typo"):
        sys.modules.pop(name, None)


def test_a_network_of_ones_own_is_trained_tested_resumed_exported_and_used(fit: Command, command: Command) -> None:
    network = ("--model.network", "mine.Tiny", "--model.network.width", "30")
    assert fit(*SHORT, *network).code == 0
    saved = yaml.safe_load((LOGS / "config.yaml").read_text())["model"]["network"]
    assert saved == {"class_path": "mine.Tiny", "init_args": {"width": 30}}
    assert command("test").code == 0
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2").code == 0
    assert fit("--trainer.max_epochs", "2", *network).code == 0
    resumed, unbroken = (
        torch.load(f"checkpoints/version_{number}/last.ckpt", weights_only=True)["state_dict"] for number in (0, 1)
    )
    assert resumed["network.first.weight"].shape == (30, 784)
    assert all(torch.equal(resumed[name], unbroken[name]) for name in unbroken)
    assert command("export", "--format", "safetensors").code == 0


@pytest.mark.parametrize(
    "options",
    [
        ("--model.network", "mine.make_tiny"),
        ("--model.network", "{class_path: mine.Tiny, init_args: {width: 9}}"),
        ("--model", "mine.Extended", "--model.extra", "3", "--data=mine.Digits", "--data.init_args.extra", "2"),
        ("--model.optimizer", "SGD", "--model.optimizer.momentum", "0.9", "--model.lr_scheduler=StepLR",
         "--model.lr_scheduler.step_size=1", "--trainer.callbacks+=mine.Note", "--trainer.callbacks.word=hi"),
    ],
)  # fmt: skip
def test_classes_are_named_on_the_command_line(fit: Command, options: tuple[str, ...]) -> None:
    outcome = fit(*SHORT, "--trainer.limit_train_batches", "1", *options)
    assert outcome.code == 0, outcome.err
    assert ("noted: hi Classifier" in outcome.out) == ("--trainer.callbacks+=mine.Note" in options)


def test_a_config_names_model_and_data_that_know_nothing_of_this_package(command: Command, tmp_path: Path) -> None:
    config = {
        "model": {"class_path": "mine.Plain", "init_args": {"hidden": 16}},
        "data": {"class_path": "mine.Bright", "init_args": {"count": 128}},
        "trainer": {"max_epochs": 3},
    }
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert command("fit", "--config", "mine.yaml").code == 0
    saved = yaml.safe_load((LOGS / "config.yaml").read_text())
    assert saved["model"] == {"class_path": "mine.Plain", "init_args": {"hidden": 16, "lr": 0.1}}
    assert saved["data"] == {"class_path": "mine.Bright", "init_args": {"count": 128}}
    weights = torch.load("checkpoints/version_0/last.ckpt", weights_only=True)["state_dict"]
    assert weights["net.last.weight"].shape == (4, 16), "the data determine the number of classes"
    outcome = command("test")
    assert outcome.code == 0, outcome.err
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "4").code == 0


@pytest.mark.parametrize(
    "metrics",
    [
        "[{class_path: mine.TopK, init_args: {k: 10}}, torchmetrics.Accuracy, kappa]",
        pytest.param("{TopK: {class_path: mine.TopK, init_args: {k: 10}}, kappa: kappa}", marks=pytest.mark.slow),
    ],
)
def test_metrics_are_classes_with_arguments(fit: Command, command: Command, metrics: str, tmp_path: Path) -> None:
    monitored = ("--checkpoint.monitor", "val_TopK", "--checkpoint.mode", "max")
    outcome = fit(*SHORT, "--model.network", "mine.Tiny", "--model.metrics", metrics, *monitored)
    assert outcome.code == 0, outcome.err
    assert command("test").code == 0
    (best,) = (tmp_path / "checkpoints" / "version_0").glob("best.ckpt")
    saved = torch.load(best, weights_only=True)["hyper_parameters"]["metrics"]
    assert saved["TopK"] == {"class_path": "mine.TopK", "init_args": {"k": 10}}
    scores = yaml.safe_load((LOGS / "test.json").read_text())["metrics"]
    assert scores["TopK"] == 1.0, "every label is among the ten most probable of ten classes"


def test_another_model_is_given_the_objects_that_its_options_name(command: Command) -> None:
    network = ("--model.network=mine.Tiny", "--model.network.num_classes=4", "--model.network.width=5")
    optimizer = ("--model.optimizer=SGD", "--model.optimizer.lr=0.1")
    outcome = command("fit", "--model=mine.Assembled", "--data=mine.Bright", *network, *optimizer, *SHORT)
    assert outcome.code == 0, outcome.err
    weights = torch.load("checkpoints/version_0/last.ckpt", weights_only=True)
    assert weights["state_dict"]["net.first.weight"].shape == (5, 784)
    assert weights["optimizer_states"][0]["param_groups"][0]["lr"] == 0.1


def test_the_help_and_the_printed_config_are_those_of_the_class(command: Command) -> None:
    assert "--model.extra EXTRA" in command("fit", "--model", "mine.Extended", "--help").out
    printed = yaml.safe_load(command("fit", "--data", "mine.Bright", "--print_config").out)
    assert printed["data"] == {"class_path": "mine.Bright", "init_args": {"count": 64}}


WRONG = {
    "no module": ("--model.network nomod.Net", "nomod.Net cannot be imported: module nomod is neither in the working"),
    "no name": ("--model.network mine.Tinny", "model.network: mine has no Tinny; did you mean Tiny?"),
    "no package": ("--model.network needs.Net", "it needs the package a_package_that_is_missing, which is missing"),
    "no python": ("--model.network typo.Net", "typo.Net cannot be imported: SyntaxError: invalid syntax"),
    "another type": ("--model.network mine.Note", "model.network: mine.Note: not a subclass of Module"),
    "a function of unknown type": (
        "--model.network mine.make_untyped",
        "mine.make_untyped is a function that does not declare what it returns: def make_untyped(…) -> Module",
    ),
    "denied": ("--model.network os.system", "model.network: os.system is of Python's standard library"),
    "no argument": (
        "--model.network mine.Tiny --model.network.widht 5",
        "model.network.widht: Tiny has no argument widht; did you mean width?",
    ),
    "determined": ("--model.network mine.Tiny --model.network.num_classes 5", "the data determine it; leave it out"),
    "channels": ("--model.network torchvision.models.resnet18", "cannot take inputs of shape (1, 28, 28)"),
    "logits": ("--model.network mine.Wide", "mine.Wide returns (2, 784) for two inputs, not logits (2, 10)"),
    "model: no name": ("--model mine.Plan", "mine has no Plan; did you mean Plain?"),
    "model: no module": ("--model nomod.X", "module nomod is neither in the working directory nor in an installed"),
    "model: another type": ("--model mine.Tiny", "mine.Tiny is a class, but not a subclass of LightningModule"),
    "model: a function": ("--model mine.make_tiny", "mine.make_tiny is a function, but not a subclass of Lightning"),
    "model: short name": ("--model Clasifier", "did you mean Classifier?"),
    "data: another type": ("--data mine.Plain", "mine.Plain is a class, but not a subclass of LightningDataModule"),
    "data: no option": ("--data mine.Bright --data.cuont 3", "unknown option --data.cuont; did you mean --data.count?"),
    "callback: no name": ("--trainer.callbacks+=mine.Nope", "trainer.callbacks: mine has no Nope"),
    "callback: another type": ("--trainer.callbacks+=mine.Tiny", "mine.Tiny: not a subclass of Callback"),
    "callback: short name": ("--trainer.callbacks+=EarlyStoping", "did you mean EarlyStopping?"),
    "callback: no argument": (
        "--trainer.callbacks+=mine.Note --trainer.callbacks.wrd hi",
        "trainer.callbacks.wrd: Note has no argument wrd; did you mean word?",
    ),
    "logger: another type": ("--trainer.logger mine.Tiny", "trainer.logger: mine.Tiny: not a subclass of Logger"),
    "optimizer: no name": ("--model.optimizer torch.optim.SDG", "torch.optim has no SDG; did you mean SGD?"),
    "optimizer: another type": ("--model.optimizer mine.Tiny", "mine.Tiny: not a subclass of Optimizer"),
    "metric: no module": ("--model.metrics [kappa,nomod.X]", "model.metrics: nomod.X cannot be imported: module nomod"),
    "metric: no name": ('--model.metrics {"a":"mine.TopKK"}', "mine has no TopKK; did you mean TopK?"),
    "metric: short name": ("--model.metrics [macro_f2]", "macro_f2 does not name a class, nor one of macro_f1,"),
    "metric: another type": ("--model.metrics [mine.Tiny]", "model.metrics: mine.Tiny: not a subclass of Metric"),
    "schedule: argument missing": (
        "--model.lr_scheduler StepLR",
        "model.lr_scheduler: StepLR needs the argument step_size; pass --model.lr_scheduler.step_size",
    ),
    "schedule: argument of another type": (
        "--model.lr_scheduler StepLR --model.lr_scheduler.step_size x",
        "model.lr_scheduler.step_size must be int, got x",
    ),
    "data: an abstract class": (
        "--data mnist_lightning.data.datamodule.ClassificationDataModule",
        "ClassificationDataModule is abstract; name a subclass that defines _read_splits, files, model_arguments",
    ),
    "callback: a value that its constructor refuses": (
        "--trainer.callbacks+=Timer --trainer.callbacks.interval 3",
        "callbacks.Timer: Unsupported parameter value `Timer(interval=3)`",
    ),
    "schedule: short name": ("--model.lr_scheduler plateua", "did you mean plateau?"),
}
QUICK = {"no package", "another type", "no argument", "channels", "callback: short name", "schedule: argument missing"}


@pytest.mark.parametrize("case", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in WRONG])
def test_one_line_says_what_is_wrong_with_a_class(command: Command, case: str) -> None:
    options, reason = WRONG[case]
    outcome = command("fit", *options.split())
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_mistake_in_a_config_is_shown_with_its_line(command: Command, tmp_path: Path) -> None:
    text = "model:\n  network:\n    class_path: mine.Tiny\n    init_args: {widht: 5}\n"
    (tmp_path / "bad.yaml").write_text(text)
    err = command("fit", "--config", "bad.yaml").err
    assert err == "error: model.network.widht in bad.yaml, line 4: Tiny has no argument widht; did you mean width?\n"


def test_lightnings_forms_become_flat_options() -> None:
    args = ["fit", "--data", "a.B", "--data.init_args.x=1", "--model={class_path: c.D, init_args: {lr: 0.1}}"]
    assert flat_arguments(args) == ["fit", "--data.x=1", "--model={lr: 0.1}"]
    assert flat_arguments(["fit", "--model.class_path", "c.D", "--model.lr", "1"]) == ["fit", "--model.lr", "1"]
    assert split_group("data", None) == (None, {})
    assert split_group("data", "a.B") == ("a.B", {})
