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
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from itertools import chain
from pathlib import Path

from mnist_lightning.console import CommandParser

DISTRIBUTION = "mnist-lightning"
NEEDED_BYTES = 200 * 10**6  # 22 checkpoints of a run of 20 epochs take 112 MB, MNIST takes 55 MB

# A line of the report: `ok`, `note` or `fault`; what was checked; what was found, and what to do about it.
Finding = tuple[str, str, str]


def main(args: list[str]) -> int:
    """Print the report; return 1 if there is a fault, else 0."""
    description = "Report whether this machine can train and use a network; exit with 1 if not. Changes nothing."
    parser = CommandParser("doctor", description, "doctor --data.data_dir data")
    parser.add_argument(
        "--data.data_dir", dest="data_dir", type=Path, default=Path("data"), help="folder of the data (default: data)"
    )
    data_dir = parser.parse_args(args).data_dir
    faults = 0
    for level, subject, text in chain(check_versions(), check_device(), check_data(data_dir), check_folders(data_dir)):
        faults += level == "fault"
        print(f"{level:5}  {subject:17}  {text}", flush=True)
    print(f"{faults} fault{'s' if faults > 1 else ''}" if faults else "no fault")
    return 1 if faults else 0


def check_versions() -> Iterator[Finding]:
    """Compare Python and each package with the bounds that this project sets; packages of its extras are optional."""
    from packaging.requirements import Requirement

    try:
        about = metadata(DISTRIBUTION)
    except PackageNotFoundError:
        yield "fault", DISTRIBUTION, "not installed: run `pip install .` in its folder"
        return
    extras = ["", *(name for name in about.get_all("Provides-Extra") or [] if name != "test")]
    python = Requirement(f"python{about['Requires-Python']}")
    for requirement in (python, *map(Requirement, requires(DISTRIBUTION) or [])):
        marker, name = requirement.marker, requirement.name
        asking = [extra for extra in extras if marker is None or marker.evaluate({"extra": extra})]
        if not asking:  # for another system, or to develop this project
            continue
        try:
            installed = platform.python_version() if name == "python" else version(name)
            fault = "" if requirement.specifier.contains(installed, prereleases=True) else f"{installed} does not fit"
        except PackageNotFoundError:
            installed, fault = "", "missing"
        what = f"{DISTRIBUTION}[{asking[0]}]" if asking[0] else str(requirement).partition(";")[0]
        advice = f"this project needs {what}" if name == "python" else f"pip install '{what}'"
        level = "ok" if not fault else "note" if asking[0] else "fault"
        yield level, name, f"{fault}: {advice}" if fault else installed


def check_device() -> Iterator[Finding]:
    """Report the device that networks train on, and the precision that it computes in."""
    try:
        import torch

        from mnist_lightning.models.kernels.conv_pool_relu import NO_KERNELS, describe, kernel_set
        from mnist_lightning.training.environment import device_name, native_precision
    except (ImportError, OSError) as error:  # OSError: a shared library that this machine cannot load
        yield "fault", "torch", f"cannot be imported: {' '.join(str(error).split())}"
        return
    with warnings.catch_warnings():  # about a driver that is too old for this torch, for example
        warnings.simplefilter("ignore")
        on_gpu = torch.cuda.is_available()
    devices = ["mps"] * torch.backends.mps.is_available()
    if on_gpu:
        devices = [device_name(torch.device("cuda", number)) for number in range(torch.cuda.device_count())]
    if not devices and shutil.which("nvidia-smi"):
        reason = "is it a build for CPUs only, or is the driver too old?"
        yield "note", "accelerator", f"torch {torch.__version__} cannot use the GPU of this machine: {reason}"
    else:
        yield "ok", "accelerator", ", ".join(devices) or "none: training runs on the CPU"
    threads = os.environ.get("OMP_NUM_THREADS")
    reason = f", because OMP_NUM_THREADS is {threads}" if threads else ""
    text = f"{device_name(torch.device('cpu'))} on {os.cpu_count()} cores{reason}"
    yield "note" if threads else "ok", "CPU", text
    yield "note" if kernel_set() == NO_KERNELS else "ok", "kernels", f"SimpleCNN trains on a CPU with {describe()}"
    simple_cnn = "32-true for SimpleCNN and " * (not on_gpu and kernel_set() != NO_KERNELS)
    precision = f"{native_precision(on_gpu=on_gpu)}{' for other networks' if simple_cnn else ''} here"
    yield "ok", "precision", f"--trainer.precision auto means {simple_cnn}{precision}"


def check_data(data_dir: Path) -> Iterator[Finding]:
    """Compare the files of MNIST in the data folder, and the copy in the package, with their published SHA-256."""
    from mnist_lightning.data.mnist.registry import MNIST

    folder, found = data_dir / MNIST.folder / "raw", 0
    for file in MNIST.files:
        paths = [path for name in (file.name, f"{file.name}.gz") if (path := folder / name).is_file()]
        found += bool(paths)
        if paths and _sha256(paths[0]) != file.sha256:
            yield "note", "data", f"{paths[0]} is not the published file: your own, or damaged"
    missing = "" if found == len(MNIST.files) else "; fit fetches the others, with or without a network"
    yield "note" if missing else "ok", "data", f"{folder} has {found} of {len(MNIST.files)} files{missing}"
    assert MNIST.bundled
    damaged = [file.name for file in MNIST.files if _sha256(MNIST.bundled / f"{file.name}.gz") != file.sha256]
    text = f"{', '.join(damaged)}: damaged, install the package again" if damaged else "SHA-256 verified"
    yield "fault" if damaged else "ok", "bundled data", text


def check_folders(data_dir: Path) -> Iterator[Finding]:
    """Check that the folders that commands write to can be written, and have enough free space."""
    for folder in (Path("lightning_logs"), Path("checkpoints"), data_dir):
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        try:
            tempfile.TemporaryFile(dir=place).close()
        except OSError as error:
            yield "fault", "folder", f"{folder} cannot be written: {place.absolute()}: {error.strerror}"
            continue
        free = shutil.disk_usage(place).free
        needed = f"; 20 epochs and the data take {NEEDED_BYTES / 1e6:.0f} MB" if free < NEEDED_BYTES else ""
        yield "fault" if needed else "ok", "folder", f"{folder} can be written, {free / 1e6:,.0f} MB free{needed}"


def _sha256(path: Path) -> str:
    """Return the SHA-256 of a file, unpacked if it is a .gz file; "" if it cannot be read."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, EOFError, zlib.error):
        return ""
