"""Time and memory for reading, splitting and encoding a long table, and the speed of training on it.

    python -m benchmarks.tables [--rows 10000000] [--output tables.json]

The table has three numeric columns, a categorical one and two classes. A process of its own reads it and trains for
some steps. Memory is the peak resident memory of that process.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks import report

CHUNK = 100_000  # distinct rows
COLOURS = np.array(["red", "green", "blue", "grey"])


def main() -> None:
    """Measure, print and write the result."""
    parser = report.parser(__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--batch_size", type=int, default=4096, help="rows per step")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        path = Path(folder) / "rows.csv"
        write_table(path, options.rows)
        size_mb = path.stat().st_size / 1e6
        statement = (
            f"from benchmarks.tables import measure; measure({str(path)!r}, {options.batch_size}, {options.steps})"
        )
        out = subprocess.run([sys.executable, "-c", statement], check=True, capture_output=True, text=True).stdout
    result = {"rows": options.rows, "size_mb": size_mb, **json.loads(out.splitlines()[-1])}
    report.print_table([{name: round(value, 1) for name, value in result.items()}])
    report.write(options.output, **result)


def write_table(path: Path, rows: int) -> None:
    """Write a table of random rows that determine their class; it repeats `CHUNK` distinct rows."""
    rng = np.random.default_rng(0)
    numbers, colours = rng.normal(size=(CHUNK, 3)), rng.integers(0, len(COLOURS), CHUNK)
    labels = (numbers.sum(axis=1) + colours > 1.5).astype(int)
    columns = zip(numbers.tolist(), COLOURS[colours].tolist(), labels.tolist(), strict=True)
    lines = [f"{a:.6g},{b:.6g},{c:.6g},{colour},{label}\n" for (a, b, c), colour, label in columns]
    with path.open("w") as file:
        file.write("a,b,c,colour,y\n")
        for start in range(0, rows, CHUNK):
            file.writelines(lines[: rows - start])


def measure(path: str, batch_size: int, steps: int) -> None:
    """Read the table, train on it, and print the figures of both."""
    from lightning.pytorch import Trainer

    from mnist_lightning.data.table.datamodule import TabularDataModule
    from mnist_lightning.training.table_classifier import TableClassifier

    base_mb, start = peak_memory_mb(), time.perf_counter()
    data = TabularDataModule(path, "y", batch_size=batch_size)
    in_features = data.schema.in_features
    read_s, read_mb = time.perf_counter() - start, peak_memory_mb()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    start = time.perf_counter()
    trainer.fit(TableClassifier(in_features=in_features, num_classes=len(data.schema.class_names)), datamodule=data)
    result = {
        "read_s": read_s,
        "base_mb": base_mb,
        "read_mb": read_mb,
        "rows_per_s": steps * batch_size / (time.perf_counter() - start),
        "peak_mb": peak_memory_mb(),
    }
    print(json.dumps(result))


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
