"""What a test is about: a checkpoint and samples, with their digests. Importing it loads no torch."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mnist_lightning.errors import ConfigError


@dataclass(frozen=True)
class Subject:
    """A tested checkpoint and the samples that it was tested on."""

    checkpoint: str  # its path
    checkpoint_sha256: str  # of that file
    kind: str  # `best` or `last` of its run; the name of any other file, without `.ckpt`
    data: dict[str, str]  # SHA-256 of what the samples were read from, by path
    samples_sha256: str  # of these digests and of the samples' positions; it does not depend on the paths


def digest_of(data: dict[str, str], positions: Sequence[int]) -> str:
    """Return the SHA-256 of samples, given the digests of their files and their positions there."""
    return hashlib.sha256(json.dumps([*data.values(), *positions]).encode()).hexdigest()


def sidecar(subject: Subject, predictions: bytes) -> bytes:
    """Return the content of `predictions.json`, which belongs to the predictions file with this content."""
    entries = {"sha256": hashlib.sha256(predictions).hexdigest(), **asdict(subject)}
    return f"{json.dumps(entries, indent=1)}\n".encode()


def read_sidecar(predictions: Path) -> Subject | None:
    """Return what a predictions file is about; None if there is no `predictions.json` beside it.

    If that file is damaged, or belongs to other predictions, that is a ConfigError.
    """
    entries = read_entries(predictions.with_suffix(".json"))
    if entries is None:
        return None
    try:
        if entries.pop("sha256") == hashlib.sha256(predictions.read_bytes()).hexdigest():
            return Subject(**entries)
    except (KeyError, TypeError):
        pass
    raise ConfigError(f"{predictions.with_suffix('.json')} does not belong to {predictions}; run `test` to write both")


def read_entries(path: Path) -> dict[str, Any] | None:
    """Return the entries of a JSON file that `test` wrote: {} if it is damaged, None if it is missing."""
    try:
        entries = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
