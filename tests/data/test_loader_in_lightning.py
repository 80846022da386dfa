"""Our loaders in Lightning's loops, in Fabric and in plain loops."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Fabric
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, SequentialSampler

from mnist_lightning import MNISTDataModule
from mnist_lightning.data.samples import Batch
from tests.conftest import DIGITS_MEAN, DIGITS_STD


class Recorder(LightningModule):
    """A model that is not this project's, which notes the batches that it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)
        self.epochs: dict[str, list[list[Batch]]] = {"train": [], "val": []}

    def on_train_epoch_start(self) -> None:
        self.epochs["train"].append([])

    def on_validation_epoch_start(self) -> None:
        self.epochs["val"].append([])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.epochs["train"][-1].append(batch)
        return nn.functional.cross_entropy(self(batch), batch[1])

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.epochs["val"][-1].append(batch)
        self.log("val_loss", nn.functional.cross_entropy(self(batch), batch[1]))

    def forward(self, batch: Batch) -> Tensor:
        logits: Tensor = self.layer(batch[0].flatten(1))
        return logits

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(tmp_path: Path, **options: Any) -> Trainer:
    silent: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    settings = {"accelerator": "cpu", "devices": 1, "default_root_dir": tmp_path, "num_sanity_val_steps": 0}
    return Trainer(**(silent | settings | {"enable_checkpointing": False} | options))


def make_data(digits_dir: Path, **options: Any) -> MNISTDataModule:
    return MNISTDataModule(str(digits_dir), **({"val_size": 60, "batch_size": 32, "rotation": 10.0} | options))


def ready(digits_dir: Path, **options: Any) -> MNISTDataModule:
    data = make_data(digits_dir, **options)
    data.prepare_data()
    data.setup()
    return data


def same(ours: list[Batch], theirs: list[Batch]) -> bool:
    return all(
        torch.equal(a, b) for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_passes_of_a_plain_loop_and_of_fabric_are_the_epochs_of_a_trainer(digits_dir: Path, tmp_path: Path) -> None:
    model = Recorder()
    quiet_trainer(tmp_path, max_epochs=3).fit(model, make_data(digits_dir))
    plain = ready(digits_dir).train_dataloader()
    fabric = Fabric(accelerator="cpu", devices=1)
    in_fabric: Any = fabric.setup_dataloaders(ready(digits_dir).train_dataloader())
    fit_on_loader = Recorder()
    other = ready(digits_dir)
    quiet_trainer(tmp_path, max_epochs=3).fit(fit_on_loader, other.train_dataloader(), other.val_dataloader())
    for epoch in range(3):
        assert same(list(plain), model.epochs["train"][epoch])
        assert same(list(in_fabric), model.epochs["train"][epoch])
        assert same(fit_on_loader.epochs["train"][epoch], model.epochs["train"][epoch])
    assert not same(model.epochs["train"][0], model.epochs["train"][1])


def test_a_pass_that_was_broken_off_counts(digits_dir: Path) -> None:
    loader = ready(digits_dir).train_dataloader()
    peeked = next(iter(loader))
    assert not torch.equal(peeked[1], next(iter(loader))[1])
    loader.set_epoch(0)
    assert torch.equal(peeked[1], next(iter(loader))[1])


@pytest.mark.parametrize("overfit", [3, 0.5])
def test_overfitting_uses_the_first_batches_of_the_file_in_each_epoch(
    digits_dir: Path, tmp_path: Path, overfit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.data.image_schema.EVAL_PIXELS", 10 * 28**2)
    model = Recorder()
    with pytest.warns(UserWarning, match="You requested to overfit but enabled train dataloader shuffling"):
        quiet_trainer(tmp_path, max_epochs=3, overfit_batches=overfit).fit(model, make_data(digits_dir))
    data = ready(digits_dir)
    expected = data.samples("train").labels[data.samples("train").indices]
    for epoch in model.epochs["train"]:
        assert torch.equal(torch.cat([labels for _, labels in epoch]), expected[: 32 * len(epoch)])
        assert same(epoch, model.epochs["train"][0])
    assert len(model.epochs["train"]) == 3
    assert len(model.epochs["train"][0]) == (3 if overfit == 3 else 4)  # of 8


def test_loaders_have_the_attributes_of_a_data_loader(digits_dir: Path) -> None:
    data = ready(digits_dir)
    train, val, test = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    assert isinstance(val, DataLoader)
    assert [len(loader.dataset) for loader in (train, val, test)] == [240, 60, 101]
    assert train.batch_size == 32
    assert isinstance(train.sampler, DistributedSampler)
    assert isinstance(val.sampler, SequentialSampler)
    images, labels = next(iter(test))
    for position in (0, 7, -1):
        image, label = test.dataset[position]
        assert torch.equal(image, images[position])
        assert label == labels[position]
    with pytest.raises(IndexError):
        test.dataset[101]
    other = DataLoader(train.dataset, batch_size=7, shuffle=True)
    assert next(iter(other))[0].shape == (7, 1, 28, 28)


class Writer(BasePredictionWriter):
    """Lightning's own way to write predictions, which needs to know where each sample was."""

    def __init__(self) -> None:
        super().__init__("batch_and_epoch")
        self.indices: list[int] = []

    def write_on_batch_end(self, *args: Any) -> None:
        self.indices += args[3]

    def write_on_epoch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, indices: Any) -> None:
        (batches,) = indices  # of the only loader
        self.all_indices = [index for batch in batches for index in batch]


@pytest.mark.parametrize(("limit", "count"), [(1.0, 101), (2, 80), (0.4, 40)])
def test_predictions_are_in_file_order_and_know_their_indices(
    digits_dir: Path, tmp_path: Path, limit: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mnist_lightning.data.image_schema.EVAL_PIXELS", 40 * 28**2)
    writer, model = Writer(), Recorder()
    trainer = quiet_trainer(tmp_path, callbacks=[writer], limit_predict_batches=limit)
    predictions: Any = trainer.predict(model, make_data(digits_dir))
    data = ready(digits_dir)
    images = (data.samples("test").inputs.float() / 255 - DIGITS_MEAN) / DIGITS_STD
    with torch.no_grad():
        expected = model.layer(images.flatten(1))[:count]
    torch.testing.assert_close(torch.cat(predictions), expected)
    assert writer.indices == writer.all_indices == list(range(count))


def test_loaders_can_be_combined(digits_dir: Path, tmp_path: Path) -> None:
    data, model = ready(digits_dir), Recorder()
    both = CombinedLoader([data.train_dataloader(), data.test_dataloader()], "min_size")
    for (ours, theirs), _, _ in both:
        assert ours[0].shape[0] == 32
        assert theirs[0].shape[0] == 101
    quiet_trainer(tmp_path).validate(
        model, CombinedLoader([data.val_dataloader(), data.test_dataloader()], "sequential")
    )
    assert sum(len(labels) for _, labels in model.epochs["val"][0]) == 60 + 101


def test_reloading_and_limits_keep_the_order_of_an_epoch(digits_dir: Path, tmp_path: Path) -> None:
    whole, reloaded = Recorder(), Recorder()
    quiet_trainer(tmp_path, max_epochs=3).fit(whole, make_data(digits_dir))
    trainer = quiet_trainer(
        tmp_path,
        max_epochs=3,
        reload_dataloaders_every_n_epochs=1,
        limit_train_batches=5,
        use_distributed_sampler=False,
    )
    trainer.fit(reloaded, make_data(digits_dir))
    for ours, theirs in zip(reloaded.epochs["train"], whole.epochs["train"], strict=True):
        assert same(ours, theirs[:5])
