"""SHA-256 of the network's tensors in a checkpoint, to show that two commits train to identical weights.

    python -m benchmarks.weights checkpoints/version_0/last.ckpt [...]

Hashes the names and bytes of all tensors in `state_dict`, ordered by name. Optimizer state, options and metadata do not
count, so a checkpoint of an older commit can be compared as long as its parameters have the same names.
"""

import argparse
import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def main() -> None:
    """Print a line for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    for path in parser.parse_args().checkpoints:
        print(digest(torch.load(path, map_location="cpu", weights_only=True)["state_dict"]), path)


def digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return the hexadecimal SHA-256 of the names and bytes of tensors, ordered by name.

    >>> a, b = torch.zeros(2), torch.ones(2)
    >>> digest({"a": a, "b": b}) == digest({"b": b, "a": a}) != digest({"a": b, "b": a})
    True
    """
    sha256 = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        sha256.update(name.encode())
        sha256.update(tensor.contiguous().numpy().tobytes())
    return sha256.hexdigest()


if __name__ == "__main__":
    main()
