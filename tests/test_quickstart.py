"""The notebook runs from top to bottom, shows its figures, and leaves the process as it was."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from mnist_lightning.data.mnist import fetch, registry

NOTEBOOK = Path(__file__).parents[1] / "docs" / "quickstart.ipynb"
STATE = """
import logging, os, signal, warnings
state = [
    {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
    [each for each in warnings.filters if 'many workers' not in str(each[1])],  # BatchLoader's one filter
    logging.root.level, [*logging.root.handlers], {**os.environ}, os.getcwd(),
    torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
]
"""
FIGURES = ("plt.subplots(", "confusion_matrix(multiclass")


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]


def test_the_stored_notebook_has_no_outputs_and_no_paths_of_a_machine() -> None:
    code = [cell for cell in read().cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not re.search(r"/(home|root|tmp|work|Users)\b", NOTEBOOK.read_text())
    for cell in read().cells:
        for target in re.findall(r"\]\(([^)]+)\)", cell.source if cell.cell_type == "markdown" else ""):
            assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
def test_the_notebook_runs_shows_its_figures_and_leaves_the_process_as_it_was(tmp_path: Path) -> None:
    fetch.fetch(registry.MNIST, tmp_path / "data", source="bundled")
    notebook = read()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    code[0].source = f"ROOT, MAX_EPOCHS, TRAIN_BATCHES = {str(tmp_path)!r}, 1, 60"
    code[1].source += f"\n{STATE}\nbefore = state"
    code[-1].source += f"\n{STATE}\nassert state == before, [pair for pair in zip(state, before) if pair[0] != pair[1]]"
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    for cell in code:
        shows = any("image/png" in output.get("data", {}) for output in cell.outputs)
        assert shows == any(figure in cell.source for figure in FIGURES), cell.source
        assert not any("Warning" in output.get("text", "") for output in cell.outputs), cell.outputs
    printed = "".join(output.get("text", "") for cell in code for output in cell.outputs)
    accuracy = re.search(r"^test accuracy (\S+)%$", printed, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) > 70, "60 batches of real MNIST"
