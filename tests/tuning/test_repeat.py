"""`repeat`: the same training with several seeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.conftest import Command

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = (
    *("--data.val_size", "60", "--data.batch_size", "32", "--trainer.max_epochs", "1", "--model.lr", "1e-4"),
    *("--tensorboard.figures", "none"),
)


def test_the_summary_agrees_with_the_files_of_the_runs(command: Command, digits_dir: Path) -> None:
    data = ("--data.data_dir", str(digits_dir), "--seed_everything", "5", "--test_after_fit", "true")
    outcome = command("repeat", "--runs", "2", *data, *SMALL)
    assert outcome.code == 0, outcome.err
    assert "Seed set to" not in outcome.err
    logs = [Path(f"lightning_logs/version_{run}") for run in (0, 1)]
    assert [yaml.safe_load((log / "config.yaml").read_text())["seed_everything"] for log in logs] == [5, 6]
    manifests = [json.loads(Path(f"checkpoints/version_{run}/manifest.json").read_text()) for run in (0, 1)]
    single = {
        "val_acc": [max(entry["metrics"]["val_acc"] for entry in manifest["checkpoints"]) for manifest in manifests],
        "test_acc": [json.loads((log / "test.json").read_text())["accuracy"] for log in logs],
    }
    summary = json.loads((logs[0] / "repeat.json").read_text())
    for name, values in single.items():
        assert [result[name] for result in summary["runs"]] == values
        expected = {"mean": np.mean(values), "std": np.std(values, ddof=1), "min": min(values), "max": max(values)}
        assert summary[name] == pytest.approx(expected | {"n": 2}, abs=1e-15)
    assert [(result["run"], result["seed"]) for result in summary["runs"]] == [("version_0", 5), ("version_1", 6)]
    assert f"± {100 * np.std(single['test_acc'], ddof=1):.2f} %" in outcome.out
    # Each is an ordinary run: trained alone, it has the same scores.
    assert command("fit", "--config", str(logs[1] / "config.yaml")).code == 0
    alone = json.loads(Path("checkpoints/version_2/manifest.json").read_text())
    assert alone["checkpoints"][0]["metrics"] == manifests[1]["checkpoints"][0]["metrics"]


def test_a_run_that_fails_ends_repeat_with_its_exit_code(command: Command, digits_dir: Path) -> None:
    data = ("--data.data_dir", str(digits_dir))
    assert command("repeat", *data, *SMALL, "--model.lr", "1e30").code == 3
    assert command("repeat", *data, *SMALL, "--model.lrr", "1").code == 2
    assert command("repeat", "--runs", "1").code == 2
    assert command("repeat", "--ckpt_path", "last").code == 2
