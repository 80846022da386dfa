"""What every benchmark says of where and on what it ran, and how it prints and files its figures."""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "jsonargparse", "numpy")


def machine() -> dict[str, Any]:
    """Return the processor, its threads, the versions of what was measured, and the commit."""
    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "commit": _commit(),
    }


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Return n, mean, standard deviation of the sample (None for one value), least and greatest of values."""
    return {
        "n": len(values),
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def plus_minus(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Return mean ± standard deviation, as a table shows it.

    >>> plus_minus([1.0, 2.0, 3.0], 1, " s")
    '2.0 ± 1.0 s'
    """
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}{unit}"


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows of equal keys as a Markdown table."""
    rows = list(rows)
    heads = list(rows[0])
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(str(row[head]) for head in heads)} |")
    print(flush=True)


def write(path: Path | None, **result: Any) -> None:
    """File a result as JSON, with the command and the machine; None files nothing."""
    if path:
        command = " ".join(["python", "-m", *_module_and_options()])
        text = json.dumps({"command": command, "machine": machine(), **result}, indent=1)
        path.write_text(text + "\n")
        print(f"written to {path}")


def _module_and_options() -> list[str]:
    return [f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
