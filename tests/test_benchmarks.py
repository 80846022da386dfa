"""The benchmarks start, and docs/benchmarks.md shows the figures of the result files. No test checks a speed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import report, table

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main() -> None" in path.read_text())


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "table"])
def test_every_benchmark_prints_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main()
    assert not stopped.value.code
    assert f"python -m benchmarks.{name}" in capsys.readouterr().out


def test_the_page_shows_the_figures_of_the_result_files() -> None:
    assert table.tables() in (ROOT / "docs" / "benchmarks.md").read_text()


def test_a_result_file_names_its_command_and_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks/saving.py", "--repeats", "2"])
    report.write(tmp_path / "saving.json", seconds=report.summary([1.0, 3.0]))
    written = json.loads((tmp_path / "saving.json").read_text())
    assert written["command"] == "python -m benchmarks.saving --repeats 2"
    assert written["seconds"] == {"n": 2, "mean": 2.0, "std": 2.0**0.5, "min": 1.0, "max": 3.0}
    assert {"processor", "threads", "torch", "lightning", "commit"} <= written["machine"].keys()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=lambda path: path.stem)
def test_every_result_file_has_a_table(path: Path) -> None:
    assert path.stem in table.ROWS
    assert path.read_text().count("/tmp") == 0
