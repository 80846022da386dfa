"""The figures of docs/benchmarks.md, made from the results that the benchmarks wrote.

    python -m benchmarks.table

Prints a small table for each file in `benchmarks/results`, under the command and the machine that the file names.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report

RESULTS = Path(__file__).parent / "results"

Row = tuple[str, str, int]  # figure, measured value, n
Result = dict[str, Any]  # the content of a result file


def main() -> None:
    """Print the tables."""
    print(tables())


def tables() -> str:
    """Return the tables in Markdown, one for each result file."""
    return "\n\n".join(_table(name) for name in ROWS)


def _table(name: str) -> str:
    result = json.loads((RESULTS / f"{name}.json").read_text())
    command = result["command"].split(" --output ")[0]
    processor, instructions = (result["machine"][key] for key in ("processor", "instructions"))
    lines = [f"`{command}` ({processor}, {instructions}):", "", "| figure | measured | n |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {figure} | {value} | {n} |" for figure, value, n in ROWS[name](result))])


def _show(summary: dict[str, float], digits: int, unit: str, scale: float = 1) -> str:
    spread = f" ± {scale * summary['std']:.{digits}f}" if summary["n"] > 1 else ""
    return f"{scale * summary['mean']:.{digits}f}{spread}{unit}"


def _speed(result: Result) -> list[Row]:
    config, n = result["config"], result["tax"]["n"]
    return [
        (
            f"training images/s, `fit` with `{config}` relative to the lab's loop",
            _show(result["fit_over_lab"], 2, "×"),
            n,
        ),
        ("training images/s, bare loop relative to the lab's loop", _show(result["bare_over_lab"], 2, "×"), n),
        ("epoch time that `fit` adds to a bare loop", _show(result["tax"], 1, " %", 100), n),
        ("fraction of the CPU's matrix-product peak", _show(result["share_of_peak"], 0, " %", 100), n),
    ]


def _kernels(result: Result) -> list[Row]:
    steps = result["steps"]
    times = ", ".join(f"{step['name']} {step['median_ms']:.1f}" for step in steps)
    name = f"median time of a training step of {steps[0]['batch_size']} images, 2 threads"
    return [(name, f"{times} ms", steps[0]["n"])]


def _time(result: Result) -> list[Row]:
    n, lab = result["seconds"]["n"], result["lab_seconds"]
    return [
        (f"process start to printed test accuracy, `{result['config']}`", _show(result["seconds"], 1, " s"), n),
        ("its test accuracy", _show(result["test_accuracy"], 2, " %", 100), n),
        ("seeds that reach 99.0 %", f"{result['reached']} of {n}", n),
        ("process start to the first epoch at 99.0 %, the lab's script", _show(lab, 0, " s"), lab["n"]),
    ]


def _accuracy(result: Result) -> list[Row]:
    accuracy, n = result["test_accuracy"], result["test_accuracy"]["n"]
    scored = {"best": "best checkpoint", "last": "final weights"}[Path(result["seeds"][0]["checkpoint"]).stem]
    rows = [
        (f"test accuracy of `{result['config']}`, {scored}", _show(accuracy, 3, " %", 100), n),
        (f"ensemble of all {n} networks", f"{100 * result['ensemble_of_all']:.2f} %", 1),
    ]
    if len(groups := result["ensembles_of_5"]) > 1:
        rows.append(("ensembles of five", ", ".join(f"{100 * group:.2f} %" for group in groups), len(groups)))
    return rows


def _startup(result: Result) -> list[Row]:
    n = result["first_step_beyond_lightning"]["n"]
    names = {name: f"`{name}`" for name in ("--version", "--help", "import torch", "import lightning.pytorch.cli")}
    names["predict, for one picture"] = "`predict` with one image"
    first = _show(result["first_step_beyond_lightning"], 2, " s")
    return [
        *((f"process time of {shown}", _show(result["seconds"][name], 2, " s"), n) for name, shown in names.items()),
        ("`fit` to its first step, beyond `import lightning.pytorch.cli`", first, n),
    ]


def _scale(result: Result) -> list[Row]:
    rows: list[Row] = []
    for count, runs in result["runs"].items():
        speed = report.plus_minus([run["images_per_s"] for run in runs], 0, " images/s")
        memory = report.plus_minus([run["peak_mb"] - run["base_mb"] for run in runs], 0, " MB")
        rows.append((f"{int(count):,} images: training speed; memory that `fit` adds", f"{speed}; {memory}", len(runs)))
    few, *_, many = result["runs"]
    pairs = zip(result["runs"][many], result["runs"][few], strict=True)
    ratio = report.plus_minus([100 * one["images_per_s"] / other["images_per_s"] for one, other in pairs], 0, " %")
    return [
        *rows,
        (f"training speed on {int(many):,} images relative to {int(few):,}", ratio, len(result["runs"][few])),
    ]


def _tables(result: Result) -> list[Row]:
    what = f"CSV file of {result['rows']:,} rows and 5 columns ({result['size_mb']:.0f} MB)"
    return [
        (f"{what}: read, split, encode", f"{result['read_s']:.0f} s, {result['peak_mb']:,.0f} MB at most", 1),
        ("training speed, first shuffle included", f"{result['rows_per_s']:,.0f} rows/s", 1),
    ]


def _saving(result: Result) -> list[Row]:
    n = result["durable_s"]["n"]
    return [
        ("durable save of a checkpoint", _show(result["durable_s"], 0, " ms", 1000), n),
        ("Lightning's plain save", _show(result["plain_s"], 0, " ms", 1000), n),
        ("time that durable saves add to 5 epochs", f"{100 * result['extra_share']:.2f} %", n),
    ]


def _dashboards(result: Result) -> list[Row]:
    cost = result["share_percent"]
    return [
        (f"TensorBoard with its figures, fraction of an epoch of `{result['config']}`", _show(cost, 2, " %"), cost["n"])
    ]


def _latency(result: Result) -> list[Row]:
    rows: list[Row] = []
    for threads, size, n in dict.fromkeys((x["threads"], x["batch_size"], x["repeats"]) for x in result["latencies"]):
        same = [x for x in result["latencies"] if (x["threads"], x["batch_size"]) == (threads, size)]
        times = ", ".join(f"{x['runtime']} {x['median_ms']:.2f}" for x in same)
        rows.append((f"median latency, batch of {size}, {threads} thread{'s' * (threads > 1)}", f"{times} ms", n))
    return rows


def _pictures(result: Result) -> list[Row]:
    plain, *photos = result["pictures"]
    others = [row for row in photos if row["picture"].startswith("8×8")]
    single = sorted((row for row in photos if row not in others and row["picture"] != "all"), key=_percent_correct)
    everything = [row for row in photos if row["picture"] == "all"]
    worst, best = single[0], single[-1]
    between = f"{_percent_correct(worst):.1f} ({worst['picture']}) to {_percent_correct(best):.1f} %"
    return [
        ("accuracy on MNIST's test digits", f"{_percent_correct(plain):.1f} %", plain["n"]),
        (f"on synthetic photos of them, each with one of {len(single)} defects", between, worst["n"]),
        *(("with all defects at once", f"{_percent_correct(row):.1f} %", row["n"]) for row in everything),
        *((f"scikit-learn's digits, {row['picture']}", f"{_percent_correct(row):.1f} %", row["n"]) for row in others),
    ]


def _percent_correct(row: dict[str, Any]) -> float:
    return 100 * float(row["correct"]) / float(row["n"])


def _processes(result: Result) -> list[Row]:
    return [
        (f"training images/s, {name}, relative to 1 process with 2 threads", _show(ratio, 2, "×"), ratio["n"])
        for name, ratio in result["over_one_process"].items()
    ]


ROWS: dict[str, Callable[[Result], list[Row]]] = {
    "speed": _speed,
    "speed_fast": _speed,
    "kernels": _kernels,
    "time_to_accuracy": _time,
    "accuracy_default": _accuracy,
    "accuracy_best": _accuracy,
    "startup": _startup,
    "scale": _scale,
    "tables": _tables,
    "saving": _saving,
    "dashboards": _dashboards,
    "latency": _latency,
    "pictures": _pictures,
    "processes": _processes,
}


if __name__ == "__main__":
    main()
