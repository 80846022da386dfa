"""A checkpoint whose optimizer state has other shapes, or whose training state is missing, is refused with a line."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Command


def change(content: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return a copy with one entry replaced."""
    changed = copy.deepcopy(content)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # torch's fused kernel would write past the end of these.
        (("optimizer_states", 0, "state", 4, "exp_avg"), torch.zeros(3)),
        (("optimizer_states", 0, "state", 4, "exp_avg"), torch.zeros(1, 1).expand(128, 3136)),
        (("optimizer_states", 0, "param_groups", 0, "params"), [7, 6, 5, 4, 3, 2, 1, 0]),
        (("pytorch-lightning_version",), None),
    ],
)
def test_a_state_that_does_not_fit_is_refused(
    path: tuple[Any, ...], value: object, trained: dict[str, Any], fit: Command, tmp_path: Path
) -> None:
    torch.save(change(trained, path, value), tmp_path / "changed.ckpt")
    outcome = fit("--ckpt_path", "changed.ckpt", "--trainer.max_epochs", "2")
    assert outcome.code == 6
    assert "changed.ckpt can be scored but not resumed" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["changed.ckpt"], "no run was left behind"
