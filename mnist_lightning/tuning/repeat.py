"""`repeat`: the same training with several seeds, and the spread of its results."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.console import CommandParser, whole_number
from mnist_lightning.errors import ConfigError

DESCRIPTION = """\
Train several times with the options of `fit`, each time with the next seed. Each training is an ordinary run; the mean
and spread of the monitored metric and the validation accuracy of their best checkpoints (with --test_after_fit true of
the test accuracy too) are printed at the end, and written to repeat.json in the log folder of the first run."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code. A run that fails ends the program with its own exit code."""
    parser = CommandParser("repeat", DESCRIPTION, "repeat --runs 5 --config configs/fast.yaml --test_after_fit true")
    parser.add_argument("--runs", type=whole_number(2), default=5, metavar="N", help="runs, at least 2 (default: 5)")
    options, fit_args = parser.parse_known_args(args)
    if any(arg.split("=")[0] == "--ckpt_path" for arg in fit_args):
        raise ConfigError("repeat trains from the start; --ckpt_path is an option of fit")

    from mnist_lightning.training.distributed import is_first

    # Lightning starts the other processes of a distributed training with this same command line: they train along.
    results: list[dict[str, Any]] = []
    summary: Path | None = None
    for number in range(options.runs):
        seed_args = [f"--seed_everything={results[0]['seed'] + number}"] if results else []
        if is_first():
            print(f"run {number + 1} of {options.runs}", *seed_args, flush=True)
        logs, result = _train([*fit_args, *seed_args])
        results.append(result)
        summary = summary or logs / "repeat.json"
        if is_first():
            replace_file(summary, json.dumps({"runs": results, **spreads(results)}, indent=1).encode())
    if not is_first():
        return 0
    from mnist_lightning.training.callbacks.run_summary import show

    for result in results:
        scores = ", ".join(f"{name} {show(name, result[name])}" for name in _metrics_of(results) if name in result)
        print(f"{result['run']}: seed {result['seed']}, {scores or 'not scored'}")
    for name, spread in spreads(results).items():
        factor, digits, unit = (100, 2, " %") if name.endswith("_acc") else (1, 4, "")
        mean, std, low, high = (f"{factor * spread[key]:.{digits}f}" for key in ("mean", "std", "min", "max"))
        print(f"{name}: {mean} ± {std}{unit}, from {low} to {high} (n = {spread['n']})")
    print(f"written to {summary}")
    return 0


def spreads(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, sample standard deviation (of n - 1), minimum and maximum of each metric, of at least two runs.

    >>> spreads([{"val_acc": 0.5}, {"val_acc": 1.0}])["val_acc"]["mean"]
    0.75
    """
    found = {}
    for name in _metrics_of(results):
        values = [result[name] for result in results if name in result]
        if len(values) > 1:
            mean, std = statistics.mean(values), statistics.stdev(values)
            found[name] = {"mean": mean, "std": std, "min": min(values), "max": max(values), "n": len(values)}
    return found


def _metrics_of(results: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result if name not in ("run", "seed")))


def _train(fit_args: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Train once; return the run's log folder, and its name, seed and accuracies."""
    from mnist_lightning.cli.lightning_cli import TrainerCLI
    from mnist_lightning.cli.process_state import silenced_libraries
    from mnist_lightning.runs import run_folders

    with silenced_libraries():
        cli = TrainerCLI(["fit", *fit_args])
    dirpath = getattr(cli.trainer.checkpoint_callback, "dirpath", None)
    run = run_folders.run_of(Path(dirpath, "last.ckpt")) if dirpath else None
    if run is None:
        raise ConfigError("these options leave no run to summarise")
    result = {"run": run.name, "seed": cli.config_init["fit"].seed_everything}
    if (best := run.best_entry()) is not None:
        names = dict.fromkeys(("val_acc", best.monitor))
        result |= {name: best.metrics[name] for name in names if name in best.metrics}
    if (tested := run.logs / "test.json").is_file():
        result["test_acc"] = json.loads(tested.read_text())["accuracy"]
    return run.logs, result
