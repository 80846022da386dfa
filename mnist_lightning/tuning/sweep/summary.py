"""What a sweep leaves behind: a table, its trials as CSV, plots, and the best trial's config."""

import csv
import io
from collections.abc import Sequence

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import plot_intermediate_values, plot_optimization_history, plot_slice

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.cli.config import read_config
from mnist_lightning.cli.saved_config import CONFIG
from mnist_lightning.console import print_stderr
from mnist_lightning.runs.run_folders import LOGS
from mnist_lightning.training.callbacks.run_summary import show
from mnist_lightning.tuning.sweep.plan import Plan
from mnist_lightning.tuning.sweep.search import options_of
from mnist_lightning.tuning.sweep.study import REASON, RUN

TABLE, PLOTS, BEST = "trials.csv", "plots.html", "best.yaml"


def summarise(trials: Sequence[FrozenTrial], study: optuna.Study, plan: Plan) -> int:
    """Print and write what came out; return the exit code: 1 where no trial has a score.

    Args:
        trials: Those that count.
        study: The study.
        plan: What was sought.
    """
    _print_table(trials, plan)
    replace_file(plan.folder / TABLE, _as_csv(trials, plan).encode())
    under_way = sum(trial.state == TrialState.RUNNING for trial in trials)
    if under_way or len(trials) < plan.study.trials:
        print(f"{len(trials) - under_way} of {plan.study.trials} trials have ended; the same command goes on")
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        print_stderr(f"error: no trial has a score; {plan.folder / 'trials'} holds what they said")
        return 1
    best = study.best_trial
    replace_file(plan.folder / PLOTS, _plots(study).encode())
    replace_file(plan.folder / BEST, _config_of(best, plan).encode())
    print(
        f"best: trial {best.number}, {plan.study.metric} {show(plan.study.metric, best.values[0])}\n"
        f"written to {plan.folder}: {BEST}, {TABLE}, {PLOTS}\n"
        f"next: python -m mnist_lightning fit --config {plan.folder / BEST}\n"
        f"  or: python -m mnist_lightning test --trainer.default_root_dir {plan.folder} "
        f"--ckpt_path {best.user_attrs[RUN]}/best"
    )
    return 0


def _score(trial: FrozenTrial, plan: Plan) -> float | None:
    """Return the score of a trial: its best so far where it did not end by itself."""
    if trial.values:
        return float(trial.values[0])
    scores = list(trial.intermediate_values.values())
    return plan.best(scores) if scores else None


def _print_table(trials: Sequence[FrozenTrial], plan: Plan) -> None:
    print(f"{'trial':>5}  {'state':8}  {plan.study.metric:>9}  {'run':11}  options")
    for trial in trials:
        score = _score(trial, plan)
        shown = "" if score is None else show(plan.study.metric, score)
        reason = trial.user_attrs.get(REASON, "")
        print(
            f"{trial.number:5}  {trial.state.name.lower():8}  {shown:>9}  {trial.user_attrs.get(RUN, ''):11}  "
            f"{options_of(trial.params)}{f'  ({reason})' if reason else ''}"
        )


def _as_csv(trials: Sequence[FrozenTrial], plan: Plan) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", plan.study.metric, "epochs", "run", "seconds", "reason", *plan.space])
    for trial in trials:
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        run, reason = (trial.user_attrs.get(name, "") for name in (RUN, REASON))
        values = [trial.params.get(name) for name in plan.space]
        epochs = len(trial.intermediate_values)
        writer.writerow(
            [trial.number, trial.state.name.lower(), _score(trial, plan), epochs, run, seconds, reason, *values]
        )
    return file.getvalue()


def _plots(study: optuna.Study) -> str:
    """Return a page that opens from a file, with everything in it."""
    figures = [plot(study) for plot in (plot_optimization_history, plot_slice, plot_intermediate_values)]
    parts = [figure.to_html(full_html=False, include_plotlyjs=place == 0) for place, figure in enumerate(figures)]
    return f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{study.study_name}</title>\n' + "\n".join(parts)


def _config_of(best: FrozenTrial, plan: Plan) -> str:
    """Return the options of the best trial's run, for `fit` to train with where it is typed."""
    run = best.user_attrs[RUN]
    options = read_config(plan.folder / LOGS / run / CONFIG)
    options["trainer"]["default_root_dir"] = None
    metric = plan.study.metric
    return (
        f"# python -m mnist_lightning fit --config {plan.folder / BEST}\n"
        f"# {metric} {show(metric, best.values[0])} on the validation images: trial {best.number} of the study "
        f"{plan.study.name}, {run} in {plan.folder}\n"
        f"{yaml.safe_dump(options, sort_keys=False)}"
    )
