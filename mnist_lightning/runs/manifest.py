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
    """One checkpoint in the manifest."""

    file: str  # name in the run's checkpoint folder
    sha256: str  # of the file, in hex
    epoch: int  # in which it was saved, from 0
    global_step: int  # number of optimizer steps taken
    metrics: dict[str, float]  # of its weights, such as `val_acc`; empty if it was saved in mid-epoch
    monitor: str = "val_acc"  # the metric that the run monitored when it was saved
    mode: str = "max"  # or `min`: whether a higher or a lower value of that metric is better


def entry_of(file: str, digest: str, checkpoint: Mapping[str, Any]) -> Entry:
    """Return the manifest entry of a checkpoint with this file name, digest and content."""
    metrics = checkpoint.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        metrics = {}
    monitored = checkpoint.get("monitored", ("val_acc", "max"))
    if not isinstance(monitored, list | tuple) or not all(isinstance(text, str) for text in monitored):
        monitored = ()
    return Entry(file, digest, checkpoint["epoch"], checkpoint["global_step"], metrics, *monitored[:2])


def read_manifest(folder: Path) -> list[Entry]:
    """Return the entries of a folder's manifest, oldest first; [] if there is none or it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        return []
    try:
        entries = [Entry(**entry) for entry in json.loads(path.read_text())["checkpoints"]]
        for entry in entries:
            texts = (entry.file, entry.sha256, entry.monitor, entry.mode)
            numbers = (entry.epoch, entry.global_step, *entry.metrics.values())
            if not all(isinstance(text, str) for text in texts) or not all(isinstance(n, int | float) for n in numbers):
                return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []
    return entries


def by_rank(entries: list[Entry]) -> list[Entry]:
    """Return the entries with the metric that the newest one monitors, best first; ties by `val_loss`, then by age."""
    if not entries:
        return []
    newest = max(entries, key=lambda entry: entry.global_step)

    def rank(entry: Entry) -> tuple[float, float]:
        value, val_loss = entry.metrics[newest.monitor], entry.metrics.get("val_loss", 0.0)
        value = -value if newest.mode == "max" else value
        return value if math.isfinite(value) else math.inf, val_loss if math.isfinite(val_loss) else math.inf

    return sorted((entry for entry in entries if newest.monitor in entry.metrics), key=rank)


def manifest_text(entries: list[Entry]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1) + "\n"
