"""Every Trainer option, callback and logger of Lightning does what its table says, or is refused by one line."""

import inspect
import shlex
import sys
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, callbacks, loggers

from mnist_lightning.cli.main import main
from tests.lightning_matrix import CALLBACKS, LOGGERS, OPTIONS, TABLES, Case, Probe, Result, page_tables

CASES = [
    pytest.param(case, id=f"{title}-{name}-{number}")
    for title, rows in TABLES.items()
    for name, row in rows.items()
    for number, case in enumerate(row.cases)
]


def test_the_tables_name_all_there_is() -> None:
    assert set(OPTIONS) == set(inspect.signature(Trainer).parameters)
    assert set(CALLBACKS) == set(callbacks.__all__)
    assert set(LOGGERS) == set(loggers.__all__)


def test_the_page_contains_the_tables() -> None:
    page = (Path(__file__).parents[1] / "docs" / "lightning.md").read_text()
    for table in page_tables():
        assert table in page


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("case", CASES)
def test_it_does_what_the_table_says(
    case: Case,
    tmp_path: Path,
    digits_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mnist-lightning"])
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setattr("torch.backends.cudnn.benchmark", False)  # restored afterwards
    given = f"data.data_dir={digits_dir} data.val_size=60 data.batch_size=32 trainer.accelerator=cpu"
    given += " trainer.precision=32-true trainer.max_epochs=1 tensorboard.figures=none"
    first, *others = case.args.split()
    args = [f"--{each}" for each in given.split()]
    args += [first if first.startswith("--") else f"--trainer.{first}", *others]
    probe = Probe()
    with pytest.raises(SystemExit) as stopped:
        main(["fit", *[arg.replace("{0:2}", "{0: 2}") for arg in args]], [probe])
    out, err = capfd.readouterr()
    result = Result(int(stopped.value.code or 0), out + err + caplog.text, tmp_path, probe)
    assert result.code == case.code, f"{shlex.join(args)}: {out}{err}"
    assert "Traceback" not in result.text
    if case.refusal:
        (line,) = (line for line in err.splitlines() if line.startswith("error: "))
        assert case.refusal in line
        assert not list(tmp_path.rglob("*.ckpt")) or "test_after_fit" in case.args
    else:
        assert case.check(result), f"{out}{err}"
