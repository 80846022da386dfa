import dataclasses
import gzip
import platform
import shutil
import sys
from collections import namedtuple
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
import trustme

from mnist_lightning.cli import doctor
from mnist_lightning.data.mnist import fetch, registry
from mnist_lightning.data.mnist.registry import MNIST
from tests.conftest import Command
from tests.data.mnist.mirror import FaultyMirror

SMALLEST = "t10k-labels-idx1-ubyte.gz"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(autouse=True)
def mirror(
    authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FaultyMirror]:
    """A mirror on loopback in place of those on the net."""
    certificate = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(str(certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with FaultyMirror({SMALLEST: gzip.compress(b"labels")}, authority) as mirror:
        monkeypatch.setattr(registry, "MNIST", dataclasses.replace(MNIST, mirrors=(mirror.address(),)))
        yield mirror


def lines(report: str, level: str) -> list[str]:
    """Return the lines of one level, each as its subject and text."""
    return [" ".join(line.split()[1:]) for line in report.splitlines() if line.split()[0] == level]


def test_a_machine_that_can_run_the_project_has_no_fault_and_nothing_is_changed(
    command: Command, tmp_path: Path
) -> None:
    outcome = command("doctor")
    assert outcome.code == 0, outcome.out
    assert outcome.out.splitlines()[-1] == "no fault"
    fine = lines(outcome.out, "ok")
    assert f"torch {torch.__version__.partition('+')[0]}" in fine
    assert f"lightning {version('lightning')}" in fine
    assert f"Python {sys.version.split()[0]}" in fine
    assert "bundled data four files, SHA-256 verified" in fine
    assert any(line.startswith("mirror 127.0.0.1") for line in fine)
    assert lines(outcome.out, "note")[0].startswith("data data/MNIST/raw: nothing yet")
    assert "\x1b" not in outcome.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("package", "installed", "fault"),
    [
        ("lightning", "2.6.3", "lightning 2.6.3 is malware: uninstall it without importing it"),
        ("pytorch-lightning", "2.6.2", "pytorch-lightning 2.6.2 is malware"),
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


def test_a_version_that_fits_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "2.12.0+cpu" if name == "torch" else version(name))
    outcome = command("doctor")
    assert outcome.code == 0
    assert "torch 2.12.0+cpu" in lines(outcome.out, "ok")


def test_another_python_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.14")
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == ["Python 3.10.14, but this project takes >=3.11"]


def test_a_project_that_is_not_installed_is_a_fault(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "metadata", missing)
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == ["mnist-lightning is not installed: pip install . in its folder"]


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
    expected = "extra export onnx 1.0.0 does not fit, onnxscript missing: pip install 'mnist-lightning[export]'"
    assert expected in lines(outcome.out, "note")


def test_the_device_is_named_and_a_gpu_that_torch_cannot_use_is_a_note(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notes = lines(command("doctor").out, "note")
    if not torch.backends.mps.is_available():
        assert any(line.startswith("accelerator there is a GPU that torch") for line in notes)
    assert any(line.startswith("processor cpu") and "OMP_NUM_THREADS is 1" in line for line in notes)


def test_the_four_files_of_mnist_are_verified(command: Command, tmp_path: Path) -> None:
    raw = fetch.fetch(MNIST, tmp_path / "data", source="bundled")
    assert "data data/MNIST/raw: four files, SHA-256 verified" in lines(command("doctor").out, "ok")
    labels, images = raw / "t10k-labels-idx1-ubyte", raw / "t10k-images-idx3-ubyte"
    content = bytearray(labels.read_bytes())
    content[100] ^= 1
    labels.write_bytes(content)
    images.unlink()
    outcome = command("doctor")
    assert outcome.code == 0
    notes = lines(outcome.out, "note")
    assert f"data {labels.relative_to(tmp_path)}: damaged; fit keeps it aside and fetches it again" in notes
    assert f"data {images.relative_to(tmp_path)}: missing" in notes
    assert bytes(content) == labels.read_bytes(), "nothing is repaired"


def test_files_of_ones_own_are_a_note(command: Command, digits_dir: Path) -> None:
    outcome = command("doctor", "--data.data_dir", str(digits_dir))
    assert outcome.code == 0
    assert sum("not the published file but your own" in line for line in lines(outcome.out, "note")) == 4
    assert any("of 300 × 28 × 28" in line for line in lines(outcome.out, "note"))


def test_a_damaged_bundled_copy_is_a_fault(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MNIST.bundled
    bundled = tmp_path / "bundled"
    shutil.copytree(MNIST.bundled, bundled)
    damaged = bundled / SMALLEST
    damaged.write_bytes(damaged.read_bytes()[:-9])
    monkeypatch.setattr(registry, "MNIST", dataclasses.replace(registry.MNIST, bundled=bundled))
    outcome = command("doctor")
    assert outcome.code == 1
    assert lines(outcome.out, "fault") == [f"bundled data {damaged} is damaged: install the package again"]


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


@pytest.mark.parametrize(("fault", "reason"), [("404", "HTTP 404"), ("cut", ""), ("silent", "")])
def test_a_mirror_that_does_not_answer_is_a_note_and_costs_little(
    command: Command, mirror: FaultyMirror, monkeypatch: pytest.MonkeyPatch, fault: str, reason: str
) -> None:
    monkeypatch.setattr(doctor, "MIRROR_TIMEOUT_S", 0.2)
    monkeypatch.setattr(
        registry, "MNIST", dataclasses.replace(MNIST, mirrors=(mirror.address(fault), mirror.address()))
    )
    outcome = command("doctor")
    assert outcome.code == 0
    (note,) = (line for line in lines(outcome.out, "note") if line.startswith("mirror"))
    assert reason in note
    assert note.endswith("fit takes the bundled copy")
    assert any(line.startswith("mirror") for line in lines(outcome.out, "ok"))


def test_colours_are_for_terminals_that_want_them(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wanted in (True, False):
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("NO_COLOR", "1") if not wanted else monkeypatch.delenv("NO_COLOR", raising=False)
        assert ("\x1b[32mok" in command("doctor").out) == wanted


def test_wrong_use_costs_a_line(command: Command) -> None:
    outcome = command("doctor", "--data.datadir", "x")
    assert outcome.code == 2
    assert outcome.err == "error: unknown option --data.datadir; did you mean --data.data_dir?\n"
    assert command("doctor", "--help").out.splitlines()[-1].startswith("  python -m mnist_lightning doctor")
