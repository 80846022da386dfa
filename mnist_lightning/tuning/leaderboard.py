"""The results of a sweep: trials.csv, plots.html and best.yaml."""

import csv
import io
import shlex
from collections.abc import Sequence

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import plot_intermediate_values, plot_optimization_history, plot_slice

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.cli.safe_yaml import read_config
from mnist_lightning.cli.saved_config import CONFIG
from mnist_lightning.console import print_stderr
from mnist_lightning.runs.run_folders import LOGS
from mnist_lightning.training.callbacks.run_summary import show
from mnist_lightning.tuning.search_space import SweepConfig

TABLE, PLOTS, BEST = "trials.csv", "plots.html", "best.yaml"
RUN, REASON = "run", "reason"  # attributes of a trial in the database: its run's name, and why it ended early


def write_results(trials: Sequence[FrozenTrial], study: optuna.Study, config: SweepConfig) -> int:
    """Write the results of the trials that count; return the exit code: 1 if no trial has a score."""
    folder, metric = config.folder, config.study.metric
    replace_file(folder / TABLE, _as_csv(trials, config).encode())
    if (ended := sum(trial.state.is_finished() for trial in trials)) < config.study.trials:
        print(f"{ended} of {config.study.trials} trials have ended; the same command resumes the sweep")
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        print_stderr(f"error: no trial has a score; their output is in {folder / 'trials'}")
        return 1
    best = study.best_trial
    replace_file(folder / PLOTS, _plots(study).encode())
    replace_file(folder / BEST, _config_of(best, config).encode())
    print(
        f"best: trial {best.number}, {metric} {show(metric, best.values[0])}\n"
        f"written to {folder}: {BEST}, {TABLE}, {PLOTS}\n"
        f"next: python -m mnist_lightning fit --config {shlex.quote(str(folder / BEST))}\n"
        f"  or: python -m mnist_lightning test --trainer.default_root_dir {shlex.quote(str(folder))} "
        f"--ckpt_path {best.user_attrs[RUN]}/best"
    )
    return 0


def _as_csv(trials: Sequence[FrozenTrial], config: SweepConfig) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", config.study.metric, "validations", RUN, "seconds", REASON, *config.space])
    for trial in trials:
        scores = trial.intermediate_values.values()
        seconds = f"{trial.duration.total_seconds():.1f}" if trial.duration else ""
        run, reason = (trial.user_attrs.get(name, "") for name in (RUN, REASON))
        row = [trial.number, trial.state.name.lower(), config.best(scores) if scores else "", len(scores), run]
        writer.writerow([*row, seconds, reason, *(trial.params.get(name) for name in config.space)])
    return file.getvalue()


def _plots(study: optuna.Study) -> str:
    """Return one HTML page that loads nothing."""
    figures = [plot(study) for plot in (plot_optimization_history, plot_slice, plot_intermediate_values)]
    divisions = [figure.to_html(full_html=False, include_plotlyjs=index == 0) for index, figure in enumerate(figures)]
    return f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{study.study_name}</title>\n' + "\n".join(divisions)


def _config_of(best: FrozenTrial, config: SweepConfig) -> str:
    """Return the options of the best trial's run, as a config for `fit`."""
    run, metric = best.user_attrs[RUN], config.study.metric
    options = read_config(config.folder / LOGS / run / CONFIG)
    options["trainer"]["default_root_dir"] = None
    return (
        f"# python -m mnist_lightning fit --config {config.folder / BEST}\n"
        f"# {metric} {show(metric, best.values[0])} in validation: trial {best.number}, {run} in {config.folder}\n"
        f"{yaml.safe_dump(options, sort_keys=False)}"
    )
