"""The README's table of figures, made from the results that the benchmarks filed.

    python -m benchmarks.table

Every row stands for a file of `benchmarks/results`, which holds the command, the machine, the versions and the commit.
"""

import json
from pathlib import Path
from typing import Any

from benchmarks import report

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Print the table."""
    print(table())


def table() -> str:
    """Return the table in Markdown: a row for each figure there is a result for."""
    lines = ["| figure | measured | n | on | command |", "|---|---|---|---|---|"]
    for name, rows in ROWS.items():
        path = RESULTS / f"{name}.json"
        if path.exists():
            result = json.loads(path.read_text())
            command = " ".join(word for word in result["command"].split(" --output ")[0].split())
            on = "{processor}, {instructions}".format(**result["machine"])
            lines += [f"| {figure} | {shown} | {n} | {on} | `{command}` |" for figure, shown, n in rows(result)]
    return "\n".join(lines)


Row = tuple[str, str, int]


def _show(summary: dict[str, float], digits: int, unit: str, scale: float = 1) -> str:
    spread = f" ± {scale * summary['std']:.{digits}f}" if summary["n"] > 1 else ""
    return f"{scale * summary['mean']:.{digits}f}{spread}{unit}"


def _speed(result: dict[str, Any]) -> list[Row]:
    config, n = result["config"], result["tax"]["n"]
    return [
        (
            f"`fit` with `{config}` against the lab's plain loop, training images/s",
            _show(result["fit_over_lab"], 2, " ×"),
            n,
        ),
        (
            "the same against a bare loop, time of an epoch: Lightning's tax and ours",
            _show(result["tax"], 1, " %", 100),
            n,
        ),
        ("share of the machine's own matrix-product peak", _show(result["share_of_peak"], 0, " %", 100), n),
    ]


def _time(result: dict[str, Any]) -> list[Row]:
    n, config = result["seconds"]["n"], result["config"]
    rows = [
        (
            f"`fit` with `{config}` from the start of the process to its printed test accuracy",
            _show(result["seconds"], 1, " s"),
            n,
        ),
        ("its test accuracy", _show(result["test_accuracy"], 2, " %", 100), n),
        ("seeds that reach 99.0 %", f"{result['reached']} of {n}", n),
    ]
    if lab := result["lab_seconds"]:
        rows.append(("the lab's plain script, to its first epoch at 99.0 %", _show(lab, 0, " s"), lab["n"]))
    return rows


def _accuracy(result: dict[str, Any]) -> list[Row]:
    accuracy, n = result["test_accuracy"], result["test_accuracy"]["n"]
    scored = {"best": "best checkpoint", "last": "final weights"}[Path(result["seeds"][0]["checkpoint"]).stem]
    rows = [
        (f"test accuracy of `{result['config']}`, {scored}", _show(accuracy, 3, " %", 100), n),
        (f"all {n} of these networks together", f"{100 * result['ensemble_of_all']:.2f} %", 1),
    ]
    if len(groups := result["ensembles_of_5"]) > 1:
        rows.append(("five of them together", ", ".join(f"{100 * group:.2f} %" for group in groups), len(groups)))
    return rows


def _startup(result: dict[str, Any]) -> list[Row]:
    n = result["first_step_beyond_lightning"]["n"]
    names = ("--version", "--help", "import torch", "import lightning.pytorch.cli", "predict, for one picture")
    rows = [(f"start to end of `{name}`", _show(result["seconds"][name], 2, " s"), n) for name in names]
    first = _show(result["first_step_beyond_lightning"], 2, " s")
    return [*rows, ("start of `fit` to its first step, beyond `import lightning.pytorch.cli`", first, n)]


def _scale(result: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for count, runs in result["runs"].items():
        speed = report.plus_minus([run["images_per_s"] for run in runs], 0, " images/s")
        memory = report.plus_minus([run["peak_mb"] - run["base_mb"] for run in runs], 0, " MB")
        what = f"training on {int(count):,} images; memory beyond that of the process before `fit`"
        rows.append((what, f"{speed}, {memory}", len(runs)))
    few, *_, many = result["runs"]
    pairs = zip(result["runs"][many], result["runs"][few], strict=True)
    ratio = report.plus_minus([100 * one["images_per_s"] / other["images_per_s"] for one, other in pairs], 0, " %")
    return [*rows, (f"training images/s on {int(many):,} images against {int(few):,}", ratio, len(result["runs"][few]))]


def _tables(result: dict[str, Any]) -> list[Row]:
    what = f"a table of {result['rows']:,} rows and 5 columns ({result['size_mb']:.0f} MB)"
    return [
        (f"{what}, read, split and encoded", f"{result['read_s']:.0f} s, {result['peak_mb']:,.0f} MB at most", 1),
        ("training on its rows, the first shuffle included", f"{result['rows_per_s']:,.0f} rows/s", 1),
    ]


def _saving(result: dict[str, Any]) -> list[Row]:
    rows = [
        (f"{kind} of a checkpoint", _show(result[key], 0, " ms", 1000), result[key]["n"])
        for kind, key in (("durable saving", "durable_s"), ("Lightning's plain saving", "plain_s"))
    ]
    share = f"{100 * result['extra_share']:.2f} %"
    return [*rows, ("what durable saving adds to the training time of 5 epochs", share, result["durable_s"]["n"])]


def _dashboards(result: dict[str, Any]) -> list[Row]:
    share = result["share_percent"]
    return [
        (f"TensorBoard with its pictures, share of an epoch of `{result['config']}`", _show(share, 2, " %"), share["n"])
    ]


def _latency(result: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    kinds = dict.fromkeys((one["threads"], one["batch_size"], one["repeats"]) for one in result["latencies"])
    for threads, size, repeats in kinds:
        times = [
            f"{one['runtime']} {one['median_ms']:.2f}"
            for one in result["latencies"]
            if (one["threads"], one["batch_size"]) == (threads, size)
        ]
        what = f"{threads} thread{'s' if threads > 1 else ''}, {size} image{'s' if size > 1 else ''}: median time"
        rows.append((what, ", ".join(times) + " ms", repeats))
    return rows


def _pictures(result: dict[str, Any]) -> list[Row]:
    plain, *photos = result["pictures"]
    others = [row for row in photos if row["picture"].startswith("8×8")]
    single = sorted((row for row in photos if row not in others and row["picture"] != "all"), key=_share_right)
    everything = [row for row in photos if row["picture"] == "all"]
    rows: list[Row] = [("right, of test digits as MNIST has them", f"{_share_right(plain):.1f} %", plain["n"])]
    if single:
        worst, best = single[0], single[-1]
        shown = f"{_share_right(worst):.1f} ({worst['picture']}) to {_share_right(best):.1f} %"
        rows.append((f"as photos with each of {len(single)} nuisances", shown, worst["n"]))
    rows += [("as photos with all of them at once", f"{_share_right(row):.1f} %", row["n"]) for row in everything]
    rows += [(f"scikit-learn's digits, {row['picture']}", f"{_share_right(row):.1f} %", row["n"]) for row in others]
    return rows


def _share_right(row: dict[str, Any]) -> float:
    return 100 * float(row["correct"]) / float(row["n"])


def _processes(result: dict[str, Any]) -> list[Row]:
    return [
        (f"`fit` on {name}, against 1 process with 2 threads, training images/s", _show(ratio, 2, " ×"), ratio["n"])
        for name, ratio in result["over_one_process"].items()
    ]


ROWS = {
    "speed": _speed,
    "speed_fast": _speed,
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
