from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from tests.conftest import Command


@pytest.fixture
def events(fit: Command, command: Command, tmp_path: Path) -> EventAccumulator:
    assert fit("--trainer.max_epochs", "3").code == 0
    assert command("test").code == 0
    reader = EventAccumulator(str(tmp_path / "lightning_logs" / "version_0"), size_guidance={"scalars": 0})
    return reader.Reload()


def test_a_run_leaves_one_point_an_epoch_a_graph_and_hyper_parameters(events: EventAccumulator) -> None:
    for tag in ("Loss/train", "Loss/val", "Accuracy/train", "Accuracy/val", "Learning rate"):
        assert [point.step for point in events.Scalars(tag)] == [0, 1, 2], tag
    assert all(0 <= point.value <= 1 for point in events.Scalars("Accuracy/val"))
    assert [point.value for point in events.Scalars("Learning rate")] == pytest.approx([0.001] * 3)
    assert len(events.Scalars("Accuracy/test")) == 1

    assert any("conv1" in node.name for node in events.Graph().node)

    tags = events.Tags()["scalars"]
    assert "hp_metric" not in tags
    (start,) = [
        plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
        for tag, metadata in events.summary_metadata.items()
        if tag.endswith("session_start_info")
    ]
    assert start["lr"].number_value == 0.001
    assert start["batch_size"].number_value == 32
    best = max(point.value for point in events.Scalars("Accuracy/val"))
    assert events.Scalars("hp/val_acc")[0].value == best
