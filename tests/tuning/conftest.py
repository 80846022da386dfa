"""The config of a sweep over the small data, and the files that a sweep leaves."""

import csv
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path("sweeps/small")
Write = Callable[..., Path]


@pytest.fixture
def config(tmp_path: Path, digits_dir: Path) -> Write:
    """Write the config of a small sweep; each argument replaces or adds entries of a section."""

    def write(**sections: dict[str, Any]) -> Path:
        content: dict[str, Any] = {
            "study": {"name": "small", "trials": 2},
            "pruner": None,
            "fit": {
                "data.data_dir": str(digits_dir),
                "data.val_size": 60,
                "data.batch_size": 32,
                "trainer.max_epochs": 2,
                "trainer.limit_train_batches": 2,
                "tensorboard.figures": "none",
            },
            "space": {"model.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        }
        for section, entries in sections.items():
            content[section] = entries if section == "space" else (content.get(section) or {}) | entries
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


def rows(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep's trials.csv."""
    with (folder / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def states(folder: Path) -> list[str]:
    """Return the states of all trials in the study's database, not read by Optuna."""
    with sqlite3.connect(f"file:{folder / 'study.db'}?mode=ro", uri=True) as database:
        found = [str(state) for (state,) in database.execute("SELECT state FROM trials ORDER BY number")]
    database.close()
    return found
