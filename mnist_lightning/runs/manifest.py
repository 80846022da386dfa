"""The manifest of a run's checkpoints: what each holds, and the SHA-256 that it must have. No torch."""

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
    """A checkpoint as the manifest lists it.

    Args:
        file: Its name in the run's checkpoint folder.
        sha256: Digest of its bytes.
        epoch: Epoch it was saved in, from 0.
        global_step: Optimizer steps taken.
        metrics: Scores of its weights, such as `val_acc`; empty when it was saved in mid-epoch.
    """

    file: str
    sha256: str
    epoch: int
    global_step: int
    metrics: dict[str, float]


def entry_of(file: str, digest: str, checkpoint: Mapping[str, Any]) -> Entry:
    """Return the manifest's entry for a checkpoint of this name, digest and content."""
    metrics = checkpoint.get("metrics", {})
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        metrics = {}
    return Entry(file, digest, checkpoint["epoch"], checkpoint["global_step"], metrics)


def read_manifest(folder: Path) -> list[Entry]:
    """Return the manifest's entries, oldest first; nothing when the folder has none or it cannot be read."""
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
    """Return the validated entries: highest `val_acc` first, of equals the lower `val_loss`, of equals the older."""

    def rank(entry: Entry) -> tuple[float, float]:
        val_acc, val_loss = entry.metrics["val_acc"], entry.metrics.get("val_loss", 0.0)
        return -val_acc, val_loss if math.isfinite(val_loss) else math.inf

    return sorted((entry for entry in entries if "val_acc" in entry.metrics), key=rank)


def manifest_text(entries: list[Entry]) -> str:
    """Return the text of a manifest."""
    return json.dumps({"checkpoints": [asdict(entry) for entry in entries]}, indent=1) + "\n"
