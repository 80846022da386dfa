"""Weights that a new run starts from: those of another checkpoint, as far as they fit."""

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from mnist_lightning.console import listed
from mnist_lightning.errors import CheckpointError
from mnist_lightning.runs import run_folders
from mnist_lightning.runs.checkpoint_verification import read_weights


def load_initial_weights(network: nn.Module, reference: str, root: Path) -> str:
    """Load the weights of a checkpoint that a network has by name and shape; return what was loaded and what was not.

    A prefix of all names, such as that of a module which contained the network, is removed or added.

    What is not loaded keeps its values. The checkpoint is named as for `run_folders.locate`; the file may also hold a
    plain state dict. If there is none, it cannot be read, or nothing fits, that is a CheckpointError.
    """
    path = run_folders.locate(os.path.expanduser(reference), root).path
    own = network.state_dict()
    given = _renamed(read_weights(path), own)
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not any(value.numel() > 1 for value in fitting.values()):
        raise CheckpointError(f"model.init_from: no weight in {path} has the name and shape of one of the network")
    for name, value in fitting.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise CheckpointError(f"model.init_from: {name} in {path} is not finite")
    network.load_state_dict(fitting, strict=False)
    count = sum(own[name].numel() for name in fitting)
    lines = [f"weights from {path}: {len(fitting)} of {len(own)} tensors, {count:,} numbers"]
    for title, names in (
        ("start anew, their shape differs", [name for name in own if name in given and name not in fitting]),
        ("start anew, not in the file", [name for name in own if name not in given]),
        ("in the file, not used", [name for name in given if name not in own]),
    ):
        lines += [f"  {title}: {listed(names)}"] if names else []
    return "\n".join(lines)


def _renamed(given: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under the names that most of a network's tensors have."""
    removed = {name.removesuffix(each) for name in given for each in own if name.endswith(f".{each}")}
    added = {each.removesuffix(name) for name in given for each in own if each.endswith(f".{name}")}
    candidates = [
        dict(given),
        *({name.removeprefix(prefix): value for name, value in given.items()} for prefix in sorted(removed)),
        *({prefix + name: value for name, value in given.items()} for prefix in sorted(added)),
    ]
    return max(candidates, key=lambda names: sum(own[name].shape == names[name].shape for name in own.keys() & names))
