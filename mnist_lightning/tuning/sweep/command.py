"""`sweep`: its options, and what is checked before the first trial.

Nothing heavy is imported before it is needed: `--help` answers at once.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import ConfigError

PACKAGES = ("optuna", "plotly")
DESCRIPTION = """\
Search for good options: many runs of `fit`, which Optuna chooses (TPE) and gives up early where they lag behind
(median pruning). The config says what to search over; configs/sweep.yaml shows all there is. The sweep's folder holds
the study, the runs, and at the end trials.csv, plots.html and best.yaml, a config for `fit`. Interrupted or killed, it
goes on with the same command, and the same command typed twice works at it twice. It never looks at the test images."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code: 0 done, 1 no trial has a score.

    Args:
        args: The command line after `sweep`.

    Raises:
        ConfigError: If the config or an option in it is wrong, or a package is missing.
        DatasetError: If there are no data to train on.
        StorageError: If the sweep's folder cannot be written.
    """
    options = _parser().parse_args(args)
    if missing := [package for package in PACKAGES if find_spec(package) is None]:
        raise ConfigError(f"sweep needs {', '.join(missing)}: pip install 'mnist-lightning[sweep]'")
    # Here, for they take seconds.
    from mnist_lightning.tuning.sweep.check import check_trials
    from mnist_lightning.tuning.sweep.plan import read_plan
    from mnist_lightning.tuning.sweep.search import search
    from mnist_lightning.tuning.sweep.study import counted, open_study
    from mnist_lightning.tuning.sweep.summary import summarise

    plan = read_plan(options.config)
    check_trials(plan)
    study = open_study(plan)
    search(study, plan, options.workers)
    return summarise(counted(study), study, plan)


def _parser() -> CommandParser:
    parser = CommandParser(
        "sweep", DESCRIPTION, "sweep --config configs/sweep.yaml", "sweep --config configs/sweep.yaml --workers 2"
    )
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="what to search, as YAML")
    parser.add_argument(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="trials at a time, each with its share of the processor's threads (default: 1)",
    )
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number above 0, got {text!r}")
