import io
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.util.tensor_util import make_ndarray

from mnist_lightning import MNISTDataModule
from mnist_lightning.evaluation import plots
from mnist_lightning.training.logger import TEST_SUFFIX, RunLogger, read_curves, truncate_events
from tests.conftest import DIGITS_MEAN, DIGITS_STD, TRAIN_COUNT, Command
from tests.training.bits import stop_at
from tests.training.conftest import EPOCHS, LR, VAL_SIZE, FinishedRun, read_events

EVERY_EPOCH = list(range(EPOCHS))


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def figures(events: EventAccumulator, tag: str) -> dict[int, NDArray[np.uint8]]:
    """Return the decoded figures of a tag, by epoch."""
    drawn = events.Images(tag)
    assert len({each.step for each in drawn}) == len(drawn), f"{tag}: an epoch has two figures"
    return {each.step: decoded(each.encoded_image_string) for each in drawn}


def texts(events: EventAccumulator, tag: str) -> dict[int, str]:
    return {
        each.step: make_ndarray(each.tensor_proto).item().decode() for each in events.Tensors(f"{tag}/text_summary")
    }


def test_the_curves_have_one_point_an_epoch(events: EventAccumulator) -> None:
    for tag in ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Learning rate"):
        assert [point.step for point in events.Scalars(tag)] == EVERY_EPOCH, tag
    assert all(0 <= point.value <= 1 for point in events.Scalars("Accuracy/val"))
    assert [point.value for point in events.Scalars("Learning rate")] == pytest.approx([LR] * EPOCHS)
    assert len(events.Scalars("Accuracy/test")) == 1
    assert any("conv1" in node.name for node in events.Graph().node)


def test_one_chart_compares_training_with_validation(events: EventAccumulator) -> None:
    (written,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(make_ndarray(written.tensor_proto).item())
    (category,) = layout.category
    charts = {chart.title: list(chart.multiline.tag) for chart in category.chart}
    assert charts == {"Loss": ["Loss/train", "Loss/val"], "Accuracy": ["Accuracy/train", "Accuracy/val"]}
    assert {tag for tags in charts.values() for tag in tags} <= set(events.Tags()["scalars"])


def test_training_images_are_those_that_the_network_gets(events: EventAccumulator, finished_run: FinishedRun) -> None:
    data = MNISTDataModule(str(finished_run.data_dir), 40, VAL_SIZE, source="files", rotation=10, shift=1)
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    sheets = figures(events, "Training images")
    assert list(sheets) == EVERY_EPOCH
    for epoch, sheet in sheets.items():
        loader.set_epoch(epoch)
        images = next(iter(loader))[0].squeeze(1).numpy()
        pixels = np.clip(np.round((images * DIGITS_STD + DIGITS_MEAN) * 255), 0, 255).astype(np.uint8)
        for place, image in enumerate(pixels):
            top, left = 6 + place // 8 * 62, 6 + place % 8 * 62
            drawn = sheet[top : top + 56 : 2, left : left + 56 : 2, 0]
            assert np.abs(drawn.astype(int) - image).max() <= 1, "rounded from floats of another order"
        assert pixels.std() > 20, "no black sheet"


def test_confusions_on_validation_images_are_drawn_at_each_epoch(
    events: EventAccumulator, finished_run: FinishedRun
) -> None:
    drawn = figures(events, "Validation/confusion matrix")
    assert list(drawn) == EVERY_EPOCH
    matrices = [finished_run.confusion(f"epoch={epoch:02d}*", "val") for epoch in EVERY_EPOCH]
    for epoch, confusion in enumerate(matrices):
        assert confusion.sum() == VAL_SIZE
        expected = plots.confusion_matrix(torch.from_numpy(confusion), "0123456789")
        assert np.array_equal(drawn[epoch], decoded(plots.as_png(expected)))
    assert any(confusion.trace() < VAL_SIZE for confusion in matrices), "there are errors to see"


def test_the_worst_validation_images_are_drawn_at_each_epoch(
    events: EventAccumulator, finished_run: FinishedRun
) -> None:
    images, labels = finished_run.images_and_labels("val")
    for epoch, sheet in figures(events, "Validation/worst images").items():
        logits = finished_run.logits(f"epoch={epoch:02d}*", "val")
        losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(VAL_SIZE), labels]
        worst = images[losses.argmax()]
        assert (sheet[6 : 6 + 112, 6 : 6 + 112] == np.kron(worst, np.ones((4, 4), np.uint8))[..., None]).all()


def test_precision_and_recall_of_each_class_are_drawn_at_each_epoch(
    events: EventAccumulator, finished_run: FinishedRun
) -> None:
    labels = finished_run.images_and_labels("val")[1]
    for digit in range(10):
        curves = events.Tensors(f"Validation/precision and recall of {digit}")
        assert [curve.step for curve in curves] == EVERY_EPOCH
        for epoch, curve in enumerate(curves):
            logits = finished_run.logits(f"epoch={epoch:02d}*", "val")
            probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            true_positives, false_positives, *_ = make_ndarray(curve.tensor_proto)
            above = probabilities[:, digit] >= 63 / 126  # the middle one of 127 thresholds
            assert true_positives[63] == (above & (labels == digit)).sum()
            assert false_positives[63] == (above & (labels != digit)).sum()


def test_a_run_says_why_it_ended(events: EventAccumulator) -> None:
    assert texts(events, "End of training") == {2: "stopped early: val_loss did not improve for 2 epochs"}


def test_hyper_parameters_stand_beside_the_scores_they_reached(events: EventAccumulator) -> None:
    assert "hp_metric" not in events.Tags()["scalars"]
    (start,) = [
        plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
        for tag, metadata in events.summary_metadata.items()
        if tag.endswith("session_start_info")
    ]
    assert start["lr"].number_value == LR
    assert start["batch_size"].number_value == 40
    assert start["lr_scheduler"].string_value == "plateau"
    assert start["optimizer"].string_value == "adam"
    assert not {"data_dir", "source"} & set(start)
    (reached,) = events.Scalars("hp/val_acc")
    curve = {point.step: point.value for point in events.Scalars("Accuracy/val")}
    assert reached.value == max(curve.values()) == curve[reached.step]


def test_a_cut_of_the_learning_rate_is_noted(fit: Command, tmp_path: Path) -> None:
    # So high a learning rate, with no patience, makes some epoch worse than the one before.
    assert fit("--trainer.max_epochs", "5", "--model.lr", "0.03", "--model.plateau_patience", "0").code == 0
    events = read_events(tmp_path / "lightning_logs" / "version_0")
    rates = {point.step: point.value for point in events.Scalars("Learning rate")}
    cuts = texts(events, "Learning rate/reduced")
    assert {epoch for epoch in range(4) if rates[epoch + 1] < rates[epoch]} == cuts.keys() - {4}
    assert cuts
    assert all(
        text.startswith(f"epoch {epoch}: the monitored metric stopped improving") for epoch, text in cuts.items()
    )


def test_histograms_are_logged_on_request_and_figures_can_be_left_out(
    fit: Command, tmp_path: Path, events: EventAccumulator
) -> None:
    options = ("--tensorboard.figures", "none", "--tensorboard.histograms", "true")
    assert fit("--trainer.max_epochs", "2", *options).code == 0
    other = read_events(tmp_path / "lightning_logs" / "version_0")
    assert other.Tags()["images"] == []
    assert not [tag for tag in other.Tags()["tensors"] if tag.startswith("Validation")]
    drawn = other.Histograms("Weights/conv1.bias")
    assert [each.step for each in drawn] == [0, 1]
    assert all(each.histogram_value.num == 32 for each in drawn)
    assert events.Tags()["histograms"] == []


def test_figures_can_be_drawn_at_the_end_of_training_only(
    finished_run: FinishedRun, command: Command, tmp_path: Path, events: EventAccumulator
) -> None:
    config = str(finished_run.logs / "config.yaml")
    assert command("fit", "--config", config, "--tensorboard.figures", "end").code == 0
    other = read_events(tmp_path / "lightning_logs" / "version_0")
    for tag in ("Training images", "Validation/confusion matrix", "Validation/worst images"):
        drawn, every = figures(other, tag), figures(events, tag)
        assert list(drawn) == [EPOCHS - 1], tag
        assert np.array_equal(drawn[EPOCHS - 1], every[EPOCHS - 1]), tag
    assert [curve.step for curve in other.Tensors("Validation/precision and recall of 7")] == [EPOCHS - 1]


@pytest.mark.parametrize("option", [("--tensorboard.figures", "none"), ("--tensorboard.histograms", "true")])
def test_what_is_drawn_changes_no_bit_of_the_weights(
    finished_run: FinishedRun, command: Command, tmp_path: Path, option: tuple[str, str]
) -> None:
    config = str(finished_run.logs / "config.yaml")
    assert command("fit", "--config", config, *option).code == 0
    drawn, other = (
        torch.load(root / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
        for root in (finished_run.root, tmp_path)
    )
    assert all(torch.equal(drawn["state_dict"][name], value) for name, value in other["state_dict"].items())
    assert other["calibration"] == drawn["calibration"]


def test_a_resumed_run_draws_what_the_unbroken_one_draws(fit: Command, command: Command, tmp_path: Path) -> None:
    options = ("--trainer.max_epochs", "3", "--data.rotation", "10", "--tensorboard.figures", "epoch")
    batches = -(-(TRAIN_COUNT - VAL_SIZE) // 32)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(batches + 3, patch)
        assert fit(*options).code == 143
    assert command("fit", "--ckpt_path", "last").code == 0
    assert fit(*options).code == 0
    resumed, unbroken = (read_events(tmp_path / "lightning_logs" / f"version_{number}") for number in (0, 1))
    for tag in ("Training images", "Validation/confusion matrix", "Validation/worst images"):
        drawn, expected = figures(resumed, tag), figures(unbroken, tag)
        assert list(drawn) == list(expected) == [0, 1, 2], tag
        assert all(np.array_equal(drawn[epoch], expected[epoch]) for epoch in expected), tag
    for digit in range(10):
        tag = f"Validation/precision and recall of {digit}"
        curves, expected_curves = (
            [(curve.step, curve.tensor_proto) for curve in each.Tensors(tag)] for each in (resumed, unbroken)
        )
        assert curves == expected_curves
    assert resumed.Tensors("custom_scalars__config__")
    assert texts(resumed, "End of training")[2].startswith("ended after 3 epochs")


def test_a_run_that_diverges_notes_it(fit: Command, command: Command, tmp_path: Path) -> None:
    assert fit("--trainer.max_epochs", "1").code == 0
    assert command("fit", "--ckpt_path", "last", "--trainer.max_epochs", "2", "--model.lr", "1e30").code == 3
    ends = texts(read_events(tmp_path / "lightning_logs" / "version_0"), "End of training")
    assert ends.keys() == {1}, "the end of the first part is behind the checkpoint that the second part started from"
    assert ends[1].startswith("interrupted, DivergenceError: ")


def test_truncated_event_files_hold_what_was_written_before(tmp_path: Path) -> None:
    folder = tmp_path / "lightning_logs" / "version_0"
    first = RunLogger(folder)
    first.log_metrics({"train_loss": 0.5, "epoch": 0}, step=7)
    first.log_metrics({"mine": 3.0, "epoch": 0}, step=7)
    sizes = first.event_files()
    first.log_metrics({"train_loss": 0.4, "epoch": 1}, step=15)
    first.save()
    tested = RunLogger(folder, filename_suffix=TEST_SUFFIX)
    tested.log_metrics({"test_loss": 0.3}, step=1)
    tested.save()
    later = RunLogger(folder, filename_suffix=".later")
    later.log_metrics({"train_loss": 9.0, "epoch": 1}, step=15)
    later.save()
    truncate_events(folder, sizes)
    curves = read_curves(folder)
    assert curves["Loss/train"] == [(0, 0.5)]
    assert curves["mine"] == [(7, 3.0)]
    assert [value for _, value in curves["Loss/test"]] == pytest.approx([0.3])


def test_the_last_checkpoint_counts_the_points_of_its_epoch(fit: Command, tmp_path: Path) -> None:
    """A run that is killed right after its last save has finished, and nothing is logged later."""
    assert fit("--trainer.max_epochs", "2").code == 0
    checkpoint = torch.load(tmp_path / "checkpoints" / "version_0" / "last.ckpt", weights_only=True)
    folder = tmp_path / "lightning_logs" / "version_0"
    curves = {tag: points for tag, points in read_curves(folder).items() if not tag.startswith("hp/")}
    truncate_events(folder, checkpoint["resume"]["event_files"])
    assert read_curves(folder) == curves
    assert [epoch for epoch, _ in curves["Loss/train"]] == [0, 1]
    assert [epoch for epoch, _ in curves["Loss/val"]] == [0, 1]
