"""The manifest of a run's checkpoints: the epoch, metrics and SHA-256 of each. No torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
BEST, LAST = "best.ckpt", "last.ckpt"


@dataclass(frozen=True)
class Entry:
    """One checkpoint in the manifest.

    Args:
        file: Name of the file in the run's checkpoint folder.
        sha256: SHA-256 of the file, in hex.
        epoch: Epoch in which it was saved, from 0.
        global_step: Number of optimizer steps taken.
        metrics: Metrics of its weights, such as `val_acc`; empty if it was saved in mid-epoch.
    """

    file: str
    sha256: str
    epoch: int
    global_step: int
    metrics: dict[str, float]


def entry_of(file: str, digest: str, checkpoint: Mapping[str, Any]) -> Entry:
    """Return the manifest entry of a checkpoint with this file name, digest and content."""
    metrics = checkpoint.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        metrics = {}
    return Entry(file, digest, checkpoint["epoch"], checkpoint["global_step"], metrics)


def read_manifest(folder: Path) -> list[Entry]:
    """Return the entries of a folder's manifest, oldest first; [] if there is none or it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        entries = [Entry(**entry) for entry in json.loads(path.read_text())["checkpoints"]]
        for entry in entries:
            texts, numbers = (entry.file, entry.sha256), (entry.epoch, entry.global_step, *entry.metrics.values())
            if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in numbers):
                return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return entries


def by_rank(entries: list[Entry]) -> list[Entry]:
    """Return the validated entries: highest `val_acc` first, ties broken by lower `val_loss`, then by age."""

    def rank(entry: Entry) -> tuple[float, float]:
        val_acc, val_loss = entry.metrics["val_acc"], entry.metrics.get("val_loss", 0.0)
        return -val_acc, val_loss if math.isfinite(val_loss) else math.inf

    return sorted((entry for entry in entries if "val_acc" in entry.metrics), key=rank)


def manifest_text(entries: list[Entry]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1) + "\n"
