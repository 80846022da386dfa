"""A sweep's config: a mistake in it costs one line, before the first trial."""

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from mnist_lightning.tuning.search_space import read_sweep
from tests.conftest import Command
from tests.tuning.conftest import Write

LR = {"low": 1e-4, "high": 1e-2}


def test_an_entry_of_the_space_becomes_the_distribution_that_its_keys_describe(config: Write) -> None:
    space = {
        "model.lr": LR | {"log": True},
        "model.fc_dropout": {"low": 0.0, "high": 0.5, "step": 0.25},
        "model.plateau_patience": {"low": 0, "high": 4, "step": 2},
        "model.lr_scheduler": {"choices": ["plateau", "cosine"]},
    }
    assert read_sweep(config(space=space)).space == {
        "model.lr": FloatDistribution(1e-4, 1e-2, log=True),
        "model.fc_dropout": FloatDistribution(0, 0.5, step=0.25),
        "model.plateau_patience": IntDistribution(0, 4, step=2),
        "model.lr_scheduler": CategoricalDistribution(("plateau", "cosine")),
    }


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("study: {name: small}\nspace:\n  model.lr: {low: 1e-4, high: 1e-2, log: true}\n")
    assert read_sweep(path).space == {"model.lr": FloatDistribution(1e-4, 1e-2, log=True)}


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"space": {}}, "needs options to search under `space`"),
        ({"space": {"model.lr": 3}}, "space.model.lr in sweep.yaml must be {low: …, high: …} or {choices: […]}, got 3"),
        ({"space": {"model.lr": {"low": 1e-4}}}, "space.model.lr in sweep.yaml must be {low: …, high: …}"),
        ({"space": {"model.lr": {"low": 1, "high": 0}}}, "`low <= high` must hold"),
        ({"space": {"model.lr": {"low": 0.0, "high": 1.0, "log": True}}}, "`low > 0` must hold"),
        ({"space": {"model.lr": LR | {"hihg": 1}}}, "space.model.lr in sweep.yaml: "),
        ({"space": {"model.plateau_patience": {"low": 0, "high": 5, "step": 2}}}, "not divisible by `step`"),
        ({"space": {"data.batch_size": {"choices": []}}}, "must contain one or more elements"),
        ({"space": {"test_after_fit": {"choices": [True, False]}}}, "test_after_fit in sweep.yaml cannot be set"),
        ({"study": {"trails": 3}}, "unknown key study.trails in sweep.yaml, line 4; did you mean trials?"),
        ({"study": {"trials": "many"}}, "study.trials in sweep.yaml, line 3 must be int, got many"),
        ({"study": {"trials": 0}}, "study.trials must be at least 1, got 0"),
        ({"study": {"metric": "test_acc"}}, "study.metric"),
        ({"study": {"name": "../a"}}, "study.name must be a name without slashes"),
        ({"pruner": {"n_warmup_steps": -1}}, "Number of warmup steps cannot be negative, but got n_warmup_steps=-1"),
        ({"stduy": {"name": "a"}}, "unknown key stduy in sweep.yaml, line 17; did you mean study?"),
        ({"fit": {"ckpt_path": "last"}}, "ckpt_path in sweep.yaml cannot be set"),
        ({"fit": {"config": "none.yaml"}}, "none.yaml"),
    ],
)
def test_a_mistake_costs_one_line_and_no_trial(
    command: Command, config: Write, sections: dict[str, dict[str, Any]], words: str
) -> None:
    config(**sections)
    outcome = command("sweep", "--config", "sweep.yaml")
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(Path().rglob("study.db"))


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (
            "study: 3",
            "study in sweep.yaml must have keys (name, folder, trials, metric, mode, seed, max_minutes), got 3",
        ),
        ("study: {trials: 3}", "required: study.name"),
        ("pruner: null", "required: study.name"),
    ],
)
def test_a_study_needs_a_name(command: Command, tmp_path: Path, study: str, words: str) -> None:
    (tmp_path / "sweep.yaml").write_text(f"{study}\nspace:\n  model.lr: {{low: 1e-4, high: 1e-2}}\n")
    outcome = command("sweep", "--config", "sweep.yaml")
    assert outcome.code == 2
    assert words in outcome.err
