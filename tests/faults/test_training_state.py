"""A checkpoint whose training state had one part changed is refused with a line, or resumed."""

import copy
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import Command
from tests.faults.trials import TRIALS
from tests.faults.watch import unharmed

STRANGE: list[object] = [None, "x", -1, 10**40, 10**5000, [], {}, float("nan"), torch.zeros(3), True, 2.5]


def places(node: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to every part of a nested structure."""
    parts = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, part in parts for place in ((*path, key), *places(part, (*path, key)))]


def change(content: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    """Return a copy with one part replaced, or taken away where the value is the part's own key."""
    changed = copy.deepcopy(content)
    node: Any = changed
    for key in path[:-1]:
        node = node[key]
    if value is path[-1] and isinstance(node, dict):
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def resume(fit: Command, root: Path, content: dict[str, Any]) -> None:
    torch.save(content, root / "changed.ckpt")
    with unharmed(root):
        outcome = fit("--ckpt_path", "changed.ckpt", "--trainer.max_epochs", "2", "--trainer.limit_train_batches", "2")
    assert outcome.code in (0, 2, 3, 6), outcome.err
    assert outcome.code == 0 or outcome.err.splitlines()[-1].startswith("error: ")
    for folder in ("checkpoints", "lightning_logs"):
        shutil.rmtree(root / folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        # torch's fused kernel would write past the end of these.
        (("optimizer_states", 0, "state", 4, "exp_avg"), torch.zeros(3)),
        (("optimizer_states", 0, "state", 4, "exp_avg"), torch.zeros(1, 1).expand(128, 3136)),
        (("optimizer_states", 0, "param_groups", 0, "params"), [7, 6, 5, 4, 3, 2, 1, 0]),
        (("loops", "fit_loop", "epoch_progress"), {}),
        (("pytorch-lightning_version",), None),
    ],
)
def test_a_state_that_would_spoil_the_training_is_refused(
    path: tuple[Any, ...], value: object, trained: dict[str, Any], fit: Command, tmp_path: Path
) -> None:
    torch.save(change(trained, path, value), tmp_path / "changed.ckpt")
    outcome = fit("--ckpt_path", "changed.ckpt", "--trainer.max_epochs", "2")
    assert outcome.code == 6
    assert "changed.ckpt can be scored but not resumed" in outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["changed.ckpt"], "no run was left behind"


@pytest.mark.slow
def test_any_state_with_one_part_changed_is_refused_or_resumed(
    trained: dict[str, Any], fit: Command, tmp_path: Path
) -> None:
    draw = random.Random(0)
    for path in draw.choices([path for path in places(trained) if path[0] != "state_dict"], k=4 * TRIALS):
        resume(fit, tmp_path, change(trained, path, draw.choice([path[-1], *STRANGE])))
