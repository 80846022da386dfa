"""`repeat`: the same training with several seeds, and how far the results spread."""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import ConfigError

SUMMARY = "repeat.json"
DESCRIPTION = """\
Train several times with the options of `fit`, each time with the next seed: ordinary runs, whose validation accuracies
(of the best checkpoint) are summed up at the end, and with --test_after_fit true their test accuracies. The summary is
written to repeat.json in the log folder of the first run, after each run."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code. A run that fails ends the program with its own.

    Args:
        args: The command line after `repeat`.

    Raises:
        ConfigError: If the options make no run to sum up.
    """
    parser = CommandParser(
        "repeat",
        DESCRIPTION,
        "repeat --runs 5 --config configs/default.yaml",
        "repeat --runs 5 --config configs/fast.yaml --test_after_fit true",
    )
    parser.add_argument("--runs", type=_count, default=5, metavar="N", help="how many, at least 2 (default: 5)")
    options, fit_args = parser.parse_known_args(args)
    if any(arg.split("=")[0] == "--ckpt_path" for arg in fit_args):
        raise ConfigError("repeat trains from the start; --ckpt_path is for fit")
    _repeat(options.runs, fit_args)
    return 0


def _repeat(count: int, fit_args: Sequence[str]) -> None:
    from mnist_lightning.atomic_write import replace_file
    from mnist_lightning.cli.config import read_config

    results: list[dict[str, Any]] = []
    seed_args: list[str] = []
    first: Path | None = None
    for number in range(count):
        print(f"run {number + 1} of {count}", *seed_args, flush=True)
        logs, result = _train([*fit_args, *seed_args])
        first = first or logs
        seed: int = read_config(logs / "config.yaml")["seed_everything"]
        results.append({"run": logs.name, "seed": seed, **result})
        seed_args = [f"--seed_everything={results[0]['seed'] + number + 1}"]
        text = json.dumps({"runs": results, **spreads(results)}, indent=1)
        replace_file(first / SUMMARY, (text + "\n").encode())
    for result in results:
        scores = ", ".join(f"{name} {100 * result[name]:.2f} %" for name in ("val_acc", "test_acc") if name in result)
        print(f"{result['run']}: seed {result['seed']}, {scores or 'not scored'}")
    for name, spread in spreads(results).items():
        mean, std, low, high = (100 * spread[key] for key in ("mean", "std", "min", "max"))
        print(f"{name}: {mean:.2f} ± {std:.2f} %, from {low:.2f} to {high:.2f} (n = {spread['n']})")
    assert first is not None
    print(f"written to {first / SUMMARY}")


def spreads(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, sample standard deviation (of n - 1), least and greatest of each accuracy, of two runs or more.

    >>> spreads([{"val_acc": 0.5}, {"val_acc": 1.0}])["val_acc"]["mean"]
    0.75
    """
    found = {}
    for name in ("val_acc", "test_acc"):
        values = [result[name] for result in results if name in result]
        if len(values) > 1:
            found[name] = {
                "mean": statistics.mean(values),
                "std": statistics.stdev(values),
                "min": min(values),
                "max": max(values),
                "n": len(values),
            }
    return found


def _train(fit_args: Sequence[str]) -> tuple[Path, dict[str, float]]:
    """Train once; return the run's log folder and its accuracies."""
    from mnist_lightning.cli import main
    from mnist_lightning.runs import run_folders
    from mnist_lightning.runs.manifest import LAST
    from mnist_lightning.training.callbacks.run_recorder import Witness

    witness = Witness()
    try:
        main.main(["fit", *fit_args], callbacks=[witness])
    except SystemExit as stop:
        if stop.code:
            raise
    if witness.folder is None or (run := run_folders.run_of(witness.folder / LAST)) is None:
        raise ConfigError("these options leave no run behind that could be summed up")
    result = {}
    if (best := run.best_entry()) is not None:
        result["val_acc"] = best.metrics["val_acc"]
    if (tested := run.logs / "test.json").is_file():
        result["test_acc"] = json.loads(tested.read_text())["accuracy"]
    return run.logs, result


def _count(text: str) -> int:
    if text.isdecimal() and int(text) > 1:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number above 1, got {text!r}")
