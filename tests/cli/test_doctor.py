import dataclasses
import platform
import shutil
import sys
from collections import namedtuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

from mnist_lightning.cli import doctor
from mnist_lightning.data.mnist import fetch, registry
from mnist_lightning.data.mnist.registry import MNIST
from tests.conftest import Command


@pytest.fixture(autouse=True)
def _threads_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def lines(report: str, level: str) -> list[str]:
    """Return the lines of one level, each as its subject and text."""
    return [" ".join(line.split()[1:]) for line in report.splitlines() if line.split()[0] == level]


def test_doctor_reports_no_fault_and_changes_nothing_on_a_machine_that_fits(command: Command, tmp_path: Path) -> None:
    outcome = command("doctor")
    assert outcome.code == 0, outcome.out
    assert outcome.out.splitlines()[-1] == "no fault"
    fine = lines(outcome.out, "ok")
    assert f"torch {torch.__version__.partition('+')[0]}" in fine
    assert f"lightning {version('lightning')}" in fine
    assert f"python {sys.version.split()[0]}" in fine
    assert "bundled data SHA-256 verified" in fine
    assert "data data/MNIST/raw has 0 of 4 files; fit fetches the others, with or without a network" in lines(
        outcome.out, "note"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "installed", "fault"),
    [
        ("lightning", "2.6.3", "lightning 2.6.3 does not fit"),
        ("pytorch-lightning", "2.6.2", "pytorch-lightning 2.6.2 does not fit"),
        ("lightning", "2.6.5", "lightning 2.6.5 does not fit: pip install 'lightning<2.7,>=2.6.6'"),
        ("lightning", "2.7.0", "lightning 2.7.0 does not fit"),
        ("torch", "2.10.0", "torch 2.10.0 does not fit: pip install 'torch>=2.11'"),
        ("filelock", None, "filelock missing: pip install 'filelock>=3.16'"),
    ],
)
def test_a_package_that_does_not_fit_is_a_fault(
    command: Command, monkeypatch: pytest.MonkeyPatch, package: str, installed: str | None, fault: str
) -> None:
    def fake(name: str) -> str:
        if name != package:
            return version(name)
        if installed is None:
            raise PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(doctor, "version", fake)
    outcome = command("doctor")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1] == "1 fault"
    (found,) = lines(outcome.out, "fault")
    assert found.startswith(fault)


def test_a_newer_version_within_the_bounds_is_fine(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "2.12.0+cpu" if name == "torch" else version(name))
    outcome = command("doctor")
    assert outcome.code == 0
    assert "torch 2.12.0+cpu" in lines(outcome.out, "ok")


def test_another_python_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.14")
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == ["python 3.10.14 does not fit: this project needs python>=3.11"]


def test_a_project_that_is_not_installed_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "metadata", missing)
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == ["mnist-lightning not installed: run `pip install .` in its folder"]


def test_a_torch_that_cannot_be_imported_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault")[0].startswith("torch cannot be imported")


def test_a_missing_extra_is_a_note(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(name: str) -> str:
        if name == "onnxscript":
            raise PackageNotFoundError(name)
        return "1.0.0" if name == "onnx" else version(name)

    monkeypatch.setattr(doctor, "version", fake)
    outcome = command("doctor")
    assert outcome.code == 0
    notes = lines(outcome.out, "note")
    assert "onnx 1.0.0 does not fit: pip install 'mnist-lightning[export]'" in notes
    assert "onnxscript missing: pip install 'mnist-lightning[export]'" in notes


def test_the_device_is_named_and_a_gpu_that_torch_cannot_use_is_a_note(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notes = lines(command("doctor").out, "note")
    if not torch.backends.mps.is_available():
        assert any("cannot use the GPU of this machine" in line for line in notes)
    assert any(line.startswith("CPU cpu") and "OMP_NUM_THREADS is 1" in line for line in notes)


def test_the_four_files_of_mnist_are_verified(command: Command, tmp_path: Path) -> None:
    raw = fetch.fetch(MNIST, tmp_path / "data", source="bundled")
    outcome = command("doctor")
    assert "data data/MNIST/raw has 4 of 4 files" in lines(outcome.out, "ok")
    assert not lines(outcome.out, "note")
    labels, images = raw / "t10k-labels-idx1-ubyte", raw / "t10k-images-idx3-ubyte"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.write_bytes(content)
    images.unlink()
    outcome = command("doctor")
    assert outcome.code == 0
    assert lines(outcome.out, "note") == [
        f"data {labels.relative_to(tmp_path)} is not the published file: your own, or damaged",
        "data data/MNIST/raw has 3 of 4 files; fit fetches the others, with or without a network",
    ]
    assert bytes(content) == labels.read_bytes(), "nothing is repaired"


def test_a_users_own_files_are_a_note(command: Command, digits_dir: Path) -> None:
    outcome = command("doctor", "--data.data_dir", str(digits_dir))
    assert outcome.code == 0
    assert sum("is not the published file: your own, or damaged" in line for line in lines(outcome.out, "note")) == 4


def test_a_damaged_bundled_copy_is_a_fault(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MNIST.bundled
    bundled = tmp_path / "bundled"
    shutil.copytree(MNIST.bundled, bundled)
    damaged = bundled / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    monkeypatch.setattr(registry, "MNIST", dataclasses.replace(MNIST, bundled=bundled))
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == ["bundled data t10k-labels-idx1-ubyte: damaged, install the package again"]


def test_a_file_in_place_of_a_folder_is_a_fault(command: Command, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    outcome = command("doctor")
    assert outcome.code == 1
    (fault,) = lines(outcome.out, "fault")
    assert fault.startswith("folder checkpoints cannot be written")
    assert "Not a directory" in fault


def test_a_full_disk_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**6, 10**6))
    outcome = command("doctor")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1] == "3 faults"
    assert all("1 MB free; 20 epochs and the data take 200 MB" in line for line in lines(outcome.out, "fault"))


def test_wrong_use_costs_a_line(command: Command) -> None:
    outcome = command("doctor", "--data.datadir", "x")
    assert outcome.code == 2
    assert outcome.err == "error: unknown option --data.datadir; did you mean --data.data_dir?\n"
    assert command("doctor", "--help").out.splitlines()[-1].startswith("  python -m mnist_lightning doctor")
