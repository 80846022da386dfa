"""What all benchmarks share: their options, the machine they ran on, and how figures are printed and written."""

import argparse
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


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with `--output`, whose help is a module's docstring."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    return parser


def machine() -> dict[str, Any]:
    """Return the CPU, its threads, the versions of the packages, and the commit."""
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
    """Return n, mean, sample standard deviation (None for a single value), minimum and maximum of values."""
    return {
        "n": len(values),
        "mean": statistics.mean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "min": min(values),
        "max": max(values),
    }


def plus_minus(values: Sequence[float], digits: int, unit: str = "") -> str:
    """Return mean ± standard deviation as text.

    >>> plus_minus([1.0, 2.0, 3.0], 1, " s")
    '2.0 ± 1.0 s'
    """
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread}{unit}"


def print_table(rows: Iterable[Mapping[str, object]]) -> None:
    """Print rows with the same keys as a Markdown table."""
    rows = list(rows)
    heads = list(rows[0])
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(str(row[head]) for head in heads)} |")
    print(flush=True)


def write(path: Path | None, **result: Any) -> None:
    """Write a result as JSON, with the command and the machine; None writes nothing."""
    if path:
        command = " ".join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
        text = json.dumps({"command": command, "machine": machine(), **result}, indent=1)
        path.write_text(text + "\n")
        print(f"written to {path}")


def _commit() -> str:
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return described.stdout.strip()
