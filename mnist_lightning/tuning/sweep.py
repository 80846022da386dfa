"""`sweep`: a search by Optuna, in which each trial is a `fit`.

Nothing heavy is imported before it is needed: `--help` returns at once.
"""

from importlib.util import find_spec
from pathlib import Path

from mnist_lightning.console import CommandParser, whole_number
from mnist_lightning.errors import ConfigError

DESCRIPTION = """\
Search for good options: Optuna chooses the options of many `fit` runs (TPE) and prunes those that fall behind the
median. The config defines the search; configs/sweep.yaml shows every key. The sweep's folder contains the study, the
runs and, at the end, trials.csv, plots.html and best.yaml, a config for `fit`. An interrupted or killed sweep resumes
with the same command. It never reads the test images."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code: 0 done, 1 no trial has a score.

    Args:
        args: The command line after `sweep`.

    Raises:
        ConfigError: If the config or an option in it is invalid, a package is missing or the sweep is running already.
        DatasetError: If the training data are missing or damaged.
        StorageError: If the sweep's folder cannot be written.
    """
    parser = CommandParser(
        "sweep", DESCRIPTION, "sweep --config configs/sweep.yaml", "sweep --config configs/sweep.yaml --workers 2"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the search, as YAML")
    parser.add_argument(
        "--workers",
        type=whole_number(1),
        default=1,
        metavar="N",
        help="trials to run at the same time; they divide the CPU threads, and take turns on the GPUs (default: 1)",
    )
    options = parser.parse_args(args)
    if missing := [package for package in ("optuna", "plotly") if find_spec(package) is None]:
        raise ConfigError(f"sweep needs {', '.join(missing)}: pip install 'mnist-lightning[sweep]'")
    # These take seconds to import.
    from mnist_lightning.tuning.search_space import read_sweep
    from mnist_lightning.tuning.study import run_sweep
    from mnist_lightning.tuning.trial import check_trials

    config = read_sweep(options.config)
    check_trials(config)
    return run_sweep(config, options.workers)
