"""The command `doctor`: report whether this machine can run the project, and change nothing.

Imports no Lightning, so that it also works where Lightning is missing or has a version that must not be imported.
"""

import gzip
import hashlib
import os
import platform
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from itertools import chain
from pathlib import Path
from typing import Literal

from mnist_lightning.console import CommandParser

DISTRIBUTION = "mnist-lightning"
NEEDED_BYTES = 200 * 10**6  # 22 checkpoints of a run of 20 epochs take 112 MB, MNIST takes 55 MB


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: `fault` if the project cannot work as it should, `note` for what the user should know.
        subject: What was checked.
        text: What was found, and what to do about it.
    """

    level: Literal["ok", "note", "fault"]
    subject: str
    text: str


def main(args: list[str]) -> int:
    """Print the report; return 1 if there is a fault, else 0.

    Args:
        args: The command line after `doctor`.
    """
    description = "Report whether this machine can train and use a network; exit with 1 if not. Changes nothing."
    parser = CommandParser("doctor", description, "doctor --data.data_dir data")
    parser.add_argument(
        "--data.data_dir", dest="data_dir", type=Path, default=Path("data"), help="folder of the data (default: data)"
    )
    data_dir = parser.parse_args(args).data_dir
    faults = 0
    for finding in chain(check_versions(), check_device(), check_data(data_dir), check_folders(data_dir)):
        faults += finding.level == "fault"
        print(f"{finding.level:5}  {finding.subject:17}  {finding.text}", flush=True)
    print(f"{faults} fault{'s' if faults > 1 else ''}" if faults else "no fault")
    return 1 if faults else 0


def check_versions() -> Iterator[Finding]:
    """Compare Python and each package with the bounds that this project sets; packages of its extras are optional."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    try:
        about = metadata(DISTRIBUTION)
    except PackageNotFoundError:
        yield Finding("fault", DISTRIBUTION, "not installed: run `pip install .` in its folder")
        return
    python, allowed = platform.python_version(), about["Requires-Python"]
    fits = SpecifierSet(allowed).contains(python, prereleases=True)
    yield Finding(
        "ok" if fits else "fault", "Python", python if fits else f"{python}, but this project needs {allowed}"
    )
    for requirement in map(Requirement, requires(DISTRIBUTION) or []):
        name, marker = requirement.name, requirement.marker
        needed = marker is None or marker.evaluate({"extra": ""})
        extras = [
            extra for extra in about.get_all("Provides-Extra") or [] if marker and marker.evaluate({"extra": extra})
        ]
        if not needed and extras in ([], ["test"]):  # for another system, or to develop this project
            continue
        try:
            installed = version(name)
        except PackageNotFoundError:
            installed = "missing"
        if installed != "missing" and requirement.specifier.contains(installed, prereleases=True):
            yield Finding("ok", name, installed)
            continue
        wrong = installed if installed == "missing" else f"{installed} does not fit"
        what = str(requirement).partition(";")[0] if needed else f"{DISTRIBUTION}[{extras[0]}]"
        yield Finding("fault" if needed else "note", name, f"{wrong}: pip install '{what}'")


def check_device() -> Iterator[Finding]:
    """Report the device that networks train on, and the precision that it computes in."""
    try:
        import torch

        from mnist_lightning.training.environment import device_name, native_precision
    except (ImportError, OSError) as error:  # OSError: a shared library that this machine cannot load
        yield Finding("fault", "torch", f"cannot be imported: {' '.join(str(error).split())}")
        return
    with warnings.catch_warnings(record=True) as caught:  # for example: the driver is too old for this torch
        warnings.simplefilter("always")
        on_gpu = torch.cuda.is_available()
    cuda = [device_name(torch.device("cuda", number)) for number in range(torch.cuda.device_count() if on_gpu else 0)]
    if devices := cuda or ["mps"] * torch.backends.mps.is_available():
        yield Finding("ok", "accelerator", ", ".join(devices))
    elif caught or shutil.which("nvidia-smi"):
        reason = " ".join(str(caught[0].message).split()) if caught else "is it a build for CPUs only?"
        yield Finding("note", "accelerator", f"torch {torch.__version__} cannot use the GPU of this machine: {reason}")
    else:
        yield Finding("ok", "accelerator", "none: training runs on the CPU")
    threads = os.environ.get("OMP_NUM_THREADS")
    reason = f", because OMP_NUM_THREADS is {threads}" if threads else ""
    text = f"{device_name(torch.device('cpu'))} on {os.cpu_count()} cores{reason}"
    yield Finding("note" if threads else "ok", "CPU", text)
    precision = native_precision(on_gpu=on_gpu)
    native = "native" if precision == "bf16-mixed" else "not native"
    yield Finding("ok", "bfloat16", f"{native}: --trainer.precision auto means {precision}")


def check_data(data_dir: Path) -> Iterator[Finding]:
    """Compare the files of MNIST in the data folder, and the copy in the package, with their published SHA-256."""
    from mnist_lightning.data.mnist.registry import MNIST

    folder, found = data_dir / MNIST.folder / "raw", 0
    for file in MNIST.files:
        for path in (folder / file.name, folder / f"{file.name}.gz"):
            if path.is_file():
                found += 1
                if _sha256(path) != file.sha256:
                    yield Finding("note", "data", f"{path} is not the published file: your own, or damaged")
                break
    missing = "" if found == len(MNIST.files) else "; fit fetches the others, with or without a network"
    yield Finding("note" if missing else "ok", "data", f"{folder} has {found} of {len(MNIST.files)} files{missing}")
    assert MNIST.bundled
    damaged = [file.name for file in MNIST.files if _sha256(MNIST.bundled / f"{file.name}.gz") != file.sha256]
    text = f"{', '.join(damaged)}: damaged, install the package again" if damaged else "SHA-256 verified"
    yield Finding("fault" if damaged else "ok", "bundled data", text)


def check_folders(data_dir: Path) -> Iterator[Finding]:
    """Check that the folders that commands write to can be written, and have enough free space."""
    for folder in (Path("lightning_logs"), Path("checkpoints"), data_dir):
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding("fault", "folder", f"{folder} cannot be written: {place.absolute()}: {error.strerror}")
            continue
        free = shutil.disk_usage(place).free
        needed = f"; 20 epochs and the data take {NEEDED_BYTES / 1e6:.0f} MB" if free < NEEDED_BYTES else ""
        yield Finding(
            "fault" if needed else "ok", "folder", f"{folder} can be written, {free / 1e6:,.0f} MB free{needed}"
        )


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, unpacked if it is a .gz file; "" if it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""
