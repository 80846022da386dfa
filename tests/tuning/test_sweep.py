"""Whole sweeps: the search runs in this process, each trial in its own."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from tests.conftest import Command
from tests.data.image_folder.small_images import write_shapes
from tests.tuning.conftest import FOLDER, Write, rows, states

LR = {"low": 1e-4, "high": 1e-2, "log": True}


def scores_of(run: str) -> list[dict[str, float]]:
    """Return the scores that a run's manifest lists."""
    manifest = json.loads((FOLDER / "checkpoints" / run / "manifest.json").read_text())
    return [entry["metrics"] for entry in manifest["checkpoints"]]


@pytest.mark.parametrize(("metric", "best"), [("val_acc", max), pytest.param("val_loss", min, marks=pytest.mark.slow)])
def test_a_sweep_records_each_trials_best_score_and_the_best_trials_config(
    command: Command, config: Write, metric: str, best: Callable[[Iterable[float]], float]
) -> None:
    file = config(
        study={"trials": 3, "metric": metric}, space={"model.lr": LR, "data.batch_size": {"choices": [16, 32]}}
    )
    outcome = command("sweep", "--config", str(file))
    assert outcome.code == 0, outcome.err
    table = rows(FOLDER)
    assert [row["trial"] for row in table] == ["0", "1", "2"]
    assert len({row["run"] for row in table}) == len({row["model.lr"] for row in table}) == 3
    for row in table:
        assert float(row[metric]) == best(scores[metric] for scores in scores_of(row["run"]))
        trained = yaml.safe_load((FOLDER / "lightning_logs" / row["run"] / "config.yaml").read_text())
        assert trained["model"]["lr"] == float(row["model.lr"])
        assert trained["data"]["batch_size"] == int(row["data.batch_size"])
    winner = next(row for row in table if float(row[metric]) == best(float(row[metric]) for row in table))
    found = yaml.safe_load((FOLDER / "best.yaml").read_text())
    assert found["model"]["lr"] == float(winner["model.lr"])
    assert not list(FOLDER.rglob("test.json"))
    # A trial is an ordinary run: its config trains to the same scores.
    assert command("fit", "--config", str(FOLDER / "best.yaml")).code == 0
    manifest = json.loads(Path("checkpoints/version_0/manifest.json").read_text())
    assert [entry["metrics"] for entry in manifest["checkpoints"]] == scores_of(winner["run"])


@pytest.mark.slow
def test_a_trial_below_the_median_is_pruned(command: Command, config: Write) -> None:
    space = {"model.lr": {"choices": [1e-6]}}
    pruner = {"n_startup_trials": 1}
    file = config(study={"trials": 1}, pruner=pruner, fit={"trainer.max_epochs": 4}, space=space)
    assert command("sweep", "--config", str(file)).code == 0
    study = optuna.load_study(study_name="small", storage=f"sqlite:///{FOLDER / 'study.db'}")
    perfect = dict.fromkeys(range(4), 1.0)  # what no network reaches in two steps at this learning rate
    first = study.trials[0]
    ended = optuna.create_trial(
        value=1.0,
        params=first.params,
        distributions=first.distributions,
        intermediate_values=perfect,
        user_attrs={"run": "version_0"},
    )
    for _ in range(2):
        study.add_trial(ended)
    config(study={"trials": 4}, pruner=pruner, fit={"trainer.max_epochs": 4}, space=space)
    outcome = command("sweep", "--config", str(file))
    assert outcome.code == 0, outcome.err
    assert "trial 3 pruned after epoch 0" in outcome.out
    assert states(FOLDER) == ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert [len(scores_of(f"version_{run}")) for run in (0, 1)] == [4, 1]


@pytest.mark.slow
def test_the_searched_values_depend_on_the_seed_and_not_on_the_number_of_commands(
    command: Command, config: Write
) -> None:
    for trials in (1, 2, 3):
        assert command("sweep", "--config", str(config(study={"trials": trials}))).code == 0
    at_once = config(study={"trials": 3, "folder": "sweeps/at_once"})
    assert command("sweep", "--config", str(at_once)).code == 0
    assert [row["model.lr"] for row in rows(FOLDER)] == [row["model.lr"] for row in rows(Path("sweeps/at_once"))]


@pytest.mark.slow
def test_a_trial_that_diverges_fails_alone(command: Command, config: Write) -> None:
    file = config(study={"trials": 4}, space={"model.lr": {"choices": [1e30, 1e-3]}})
    outcome = command("sweep", "--config", str(file))
    table = rows(FOLDER)
    assert {row["state"] for row in table if row["model.lr"] == "1e+30"} == {"fail"}
    assert {row["state"] for row in table if row["model.lr"] == "0.001"} == {"complete"}
    assert all("Try a lower --model.lr" in row["reason"] for row in table if row["state"] == "fail")
    assert outcome.code == 0


def test_a_sweep_without_a_single_score_exits_with_1(command: Command, config: Write) -> None:
    outcome = command("sweep", "--config", str(config(space={"model.lr": {"choices": [1e30]}})))
    assert outcome.code == 1
    assert "no trial has a score" in outcome.err
    assert not (FOLDER / "best.yaml").exists()


def test_a_study_resumes_only_with_the_options_that_it_was_started_with(command: Command, config: Write) -> None:
    assert command("sweep", "--config", str(config(study={"trials": 1}))).code == 0
    outcome = command("sweep", "--config", str(config(fit={"trainer.max_epochs": 3})))
    assert outcome.code == 2
    assert "contains a study with fit.trainer.max_epochs 2, not 3" in outcome.err
    assert states(FOLDER) == [TrialState.COMPLETE.name]


def test_a_sweep_trains_on_a_folder_of_images(command: Command, config: Write) -> None:
    write_shapes(Path("shapes"), 8)
    file = config(space={"data.size": {"choices": [8, 16]}}, study={"trials": 1})
    content = yaml.safe_load(file.read_text())
    content["fit"] = {"data.folder": "shapes", "trainer.max_epochs": 1, "tensorboard.figures": "none"}
    file.write_text(yaml.safe_dump(content))
    outcome = command("sweep", "--config", str(file))
    assert outcome.code == 0, outcome.err
    assert states(FOLDER) == ["COMPLETE"]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"space": {"model.lrr": LR}}, "trial 0: unknown option --model.lrr; did you mean --model.lr?"),
        ({"fit": {"data.val_size": 0}}, "trial 0 did not validate"),
    ],
)
def test_an_error_that_every_trial_would_meet_ends_the_sweep_with_its_line_and_costs_no_trial(
    command: Command, config: Write, sections: dict[str, dict[str, object]], words: str
) -> None:
    outcome = command("sweep", "--config", str(config(**sections)))
    assert outcome.code == 2
    assert words in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert states(FOLDER) == ["RUNNING"]
    # The corrected config may have other options, because there is no score yet.
    assert command("sweep", "--config", str(config(study={"trials": 1}))).code == 0
    assert states(FOLDER) == ["COMPLETE"]
