"""How the options that a run goes on with differ from those it had so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What decides which images or rows an epoch serves, in which order and how augmented.
ORDER_OF_IMAGES = (
    "seed_everything",
    "data.batch_size",
    "data.val_size",
    "data.split_seed",
    "data.data_dir",
    "data.csv_file",
    "data.target",
    "data.features",
    "data.val_csv_file",
    "data.test_csv_file",
    "data.rotation",
    "data.scale",
    "data.shear",
    "data.shift",
    "data.elastic",
    "data.flip",
    "data.folder",
)


@dataclass(frozen=True)
class Change:
    """An option with its value so far and from here on.

    Args:
        name: Its dotted name, such as `model.lr`.
        old: The value it had; None where it had none.
        new: The value it has now; None where it has none.
    """

    name: str
    old: Any
    new: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return every option that differs between two nested configs, by name; how a run begins means nothing.

    >>> changes({"model": {"lr": 0.1}, "seed": 0}, {"model": {"lr": 0.2}, "seed": 0})
    [Change(name='model.lr', old=0.1, new=0.2)]
    """
    old, new = _leaves(before), _leaves(after)
    names = sorted((old.keys() | new.keys()) - {"ckpt_path"})
    return [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return leaves
