"""The benchmarks start, and the README's figures are those that they filed. How fast anything is, no test says."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import report, table

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main() -> None" in path.read_text())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "table"])
def test_every_benchmark_says_what_it_does(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main()
    assert not stopped.value.code
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


def test_the_readmes_figures_are_those_that_were_filed() -> None:
    assert table.table() in (ROOT / "README.md").read_text()


def test_a_filed_figure_names_its_command_and_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/saving.py", "--repeats", "2"])
    report.write(tmp_path / "saving.json", seconds=report.summary([1.0, 3.0]))
    filed = json.loads((tmp_path / "saving.json").read_text())
    assert filed["command"] == "python -m benchmarks.saving --repeats 2"
    assert filed["seconds"] == {"n": 2, "mean": 2.0, "std": 2.0**0.5, "min": 1.0, "max": 3.0}
    assert {"processor", "threads", "torch", "lightning", "commit"} <= filed["machine"].keys()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_filed_result_has_a_row(path: Path) -> None:
    assert path.stem in table.ROWS
    assert path.read_text().count("/tmp") == 0
