"""Training speed of `fit` with everything on, of a bare loop and of the lab's script.

    python -m benchmarks.speed [--config configs/default.yaml] [--rounds 5] [--output speed.json]

`fit` runs as typed on the command line, with progress bar, TensorBoard and checkpoints. Every hundred steps, about
every three seconds, it pauses for the others, each in a process of its own, so that a slow minute of the machine
affects all alike: the bare loop takes as many steps, with the same batches and arithmetic, the lab's script takes a
few, and a matrix product measures the machine's speed at that moment. Each epoch is a round; the first one warms up
and is not counted.
"""

import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, set_start_method
from pathlib import Path
from typing import Any

import yaml

from benchmarks import report
from benchmarks.contenders import BareLoop, LabLoop, TimedCLI, Turns, prepared_data, terminal
from benchmarks.lab import Lab

FLOP_PER_IMAGE = 24.995e6  # forward and backward, without the gradient with respect to the images
STEPS = 100  # of `fit` and the bare loop in a turn
LAB_STEPS = 25

contender: Any = None  # in the processes of the lab's script and the bare loop


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--config", type=Path, default=Path("configs/default.yaml"))
    parser.add_argument("--rounds", type=int, default=5, help="number of epochs to measure, at least 2")
    parser.add_argument("--data_dir", type=Path, default=Path("data"))
    options = parser.parse_args()
    config = yaml.safe_load(options.config.read_text())
    rounds: dict[str, list[dict[str, float]]] = {"lab": [], "bare": [], "peak": []}
    spawn = get_context("spawn")
    lab_options = (str(options.data_dir),)
    bare_options = (options.data_dir, config.get("data", {}), config.get("model", {}))
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        ProcessPoolExecutor(1, spawn, initializer=make_lab, initargs=lab_options) as lab,
        ProcessPoolExecutor(1, spawn, initializer=make_bare, initargs=bare_options) as bare,
        terminal(),
    ):
        peaks: list[float] = []
        lab_s: list[float] = []

        def others(ended: bool) -> None:
            peaks.append(bare.submit(peak).result())
            lab_s.append(lab.submit(lab_turn).result())
            if not ended:
                bare.submit(bare_turn).result()
                return
            rounds["bare"].append(bare.submit(bare_end).result())
            rounds["lab"].append({"images_per_s": 64 * LAB_STEPS / statistics.mean(lab_s)})
            rounds["peak"].append({"flops": statistics.mean(peaks)})
            peaks.clear()
            lab_s.clear()

        turns = Turns(others, every=STEPS)
        TimedCLI(
            ["fit", "--config", str(options.config), "--data.data_dir", str(options.data_dir),
             "--trainer.default_root_dir", folder, "--trainer.max_epochs", str(options.rounds + 1),
             "--early_stopping.enabled", "false"],
            turns,
        )  # fmt: skip
    rounds["fit"] = turns.epochs
    counted = {name: values[1:] for name, values in rounds.items()}
    print_figures(counted, options.config)
    report.write(options.output, config=str(options.config), rounds=counted, **figures(counted))


def figures(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return the ratios, each computed within a round, in which a slow machine affects both sides."""
    fit, bare, lab = rounds["fit"], rounds["bare"], rounds["lab"]
    peaks = [peak["flops"] for peak in rounds["peak"]]
    return {
        "fit_over_lab": report.summary([f["images_per_s"] / x["images_per_s"] for f, x in zip(fit, lab, strict=True)]),
        "bare_over_lab": report.summary(
            [b["images_per_s"] / x["images_per_s"] for b, x in zip(bare, lab, strict=True)]
        ),
        "tax": report.summary([f["epoch_s"] / b["epoch_s"] - 1 for f, b in zip(fit, bare, strict=True)]),
        "share_of_peak": report.summary(
            [FLOP_PER_IMAGE * f["images_per_s"] / peak for f, peak in zip(fit, peaks, strict=True)]
        ),
    }


def print_figures(rounds: dict[str, list[dict[str, float]]], config: Path) -> None:
    """Print a table of the contenders and a line per ratio."""
    names = {"fit": f"fit --config {config}", "bare": "bare loop", "lab": "the lab's script"}
    report.print_table(
        {
            "contender": names[name],
            "n": len(rounds[name]),
            "training images/s": report.plus_minus([r["images_per_s"] for r in rounds[name]], 0),
            "s per epoch": report.plus_minus([r["epoch_s"] for r in rounds[name]], 1) if name != "lab" else "",
        }
        for name in names
    )
    for name, unit in (("fit_over_lab", 1), ("bare_over_lab", 1), ("tax", 100), ("share_of_peak", 100)):
        ratio = figures(rounds)[name]
        shown = [unit * ratio[key] for key in ("mean", "std")]
        print(f"{name}: {shown[0]:.2f} ± {shown[1]:.2f} {'%' if unit == 100 else '×'} (n = {ratio['n']})")


def make_lab(data_dir: str) -> None:
    """Initialise the process of the lab's script."""
    global contender
    # As in a script started on the command line. This process was spawned; by default its loader's workers would be
    # spawned too, and would import torch again at each epoch, which takes seconds.
    set_start_method("fork", force=True)
    contender = LabLoop(Lab(data_dir))


def make_bare(data_dir: Path, data_options: dict[str, Any], hparams: dict[str, Any]) -> None:
    """Initialise the process of the bare loop."""
    global contender
    contender = BareLoop(prepared_data(data_dir, data_options, seed=0), hparams)


def lab_turn() -> float:
    """Return the seconds of a turn of the lab's script."""
    return float(contender.seconds(LAB_STEPS))


def bare_turn() -> None:
    """Run a turn of the bare loop."""
    contender.train(STEPS)


def bare_end() -> dict[str, float]:
    """Finish the epoch of the bare loop and return its figures."""
    result: dict[str, float] = contender.end_epoch()
    return result


def peak() -> float:
    """Return the machine's speed in FLOP per second."""
    return float(contender.peak_flops())


if __name__ == "__main__":
    main()
