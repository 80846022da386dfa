"""`doctor`: whether this machine can run the project. Looks at everything and changes nothing.

Imports no Lightning, so that it can speak of a Lightning that must not be imported.
"""

import gzip
import hashlib
import os
import platform
import shutil
import sys
import tempfile
import threading
import urllib.request
import warnings
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from mnist_lightning.console import CommandParser
from mnist_lightning.errors import DatasetError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

    from mnist_lightning.data.mnist.registry import RawFile

DISTRIBUTION = "mnist-lightning"
MALWARE = {(name, number) for name in ("lightning", "pytorch-lightning") for number in ("2.6.2", "2.6.3")}
NEEDED_BYTES = 200 * 10**6  # the 22 checkpoints of 20 epochs take 112 MB, MNIST 55 MB
MIRROR_TIMEOUT_S = 3.0
COLOURS = {"ok": "\x1b[32m", "note": "\x1b[33m", "fault": "\x1b[31m"}


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        level: `fault` where the project cannot work as it should, `note` where it can and one should know.
        subject: What was looked at.
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
    description = "Say whether this machine can train, test and use a network; exit with 1 if not. Changes nothing."
    parser = CommandParser("doctor", description, "doctor --data.data_dir data")
    parser.add_argument(
        "--data.data_dir", dest="data_dir", type=Path, default=Path("data"), help="folder of the data (default: data)"
    )
    data_dir = parser.parse_args(args).data_dir
    answers = ask_mirrors()  # they answer while the rest is looked at
    faults = 0
    for check in (
        check_versions(),
        check_extras(),
        check_device(),
        check_data(data_dir),
        check_folders(data_dir),
        check_mirrors(answers),
    ):
        for finding in check:
            faults += finding.level == "fault"
            _show(finding)
    print(f"{faults} fault{'s' if faults > 1 else ''}" if faults else "no fault")
    return 1 if faults else 0


def check_versions() -> Iterator[Finding]:
    """Compare Python and each package with the bounds that this project sets."""
    from packaging.specifiers import SpecifierSet

    try:
        allowed = metadata(DISTRIBUTION)["Requires-Python"]
    except PackageNotFoundError:
        yield Finding("fault", DISTRIBUTION, "is not installed: pip install . in its folder")
        return
    if SpecifierSet(allowed).contains(platform.python_version(), prereleases=True):
        yield Finding("ok", "Python", platform.python_version())
    else:
        yield Finding("fault", "Python", f"{platform.python_version()}, but this project takes {allowed}")
    for requirement in _requirements():
        name, shortage = requirement.name, _shortage(requirement)
        if shortage != "missing" and (name, version(name)) in MALWARE:
            advice = "uninstall it without importing it, then change every password and key on this machine"
            yield Finding("fault", name, f"{version(name)} is malware: {advice}")
        elif shortage:
            yield Finding("fault", name, f"{shortage}: pip install '{str(requirement).partition(';')[0]}'")
        else:
            yield Finding("ok", name, version(name))


def check_extras() -> Iterator[Finding]:
    """Say which of the optional packages are there."""
    try:
        extras = metadata(DISTRIBUTION).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return
    for extra in extras:
        if extra != "test":
            short = [f"{one.name} {shortage}" for one in _requirements(extra) if (shortage := _shortage(one))]
            text = f"{', '.join(short)}: pip install '{DISTRIBUTION}[{extra}]'" if short else "installed"
            yield Finding("note" if short else "ok", f"extra {extra}", text)


def check_device() -> Iterator[Finding]:
    """Say what training runs on."""
    try:
        import torch

        from mnist_lightning.training.environment import device_name, native_precision
    except (ImportError, OSError) as error:  # OSError: one of its libraries is not for this machine
        yield Finding("fault", "torch", f"cannot be imported: {' '.join(str(error).split())}")
        return
    with warnings.catch_warnings(record=True) as caught:  # a driver too old for this torch, say
        warnings.simplefilter("always")
        on_gpu = torch.cuda.is_available()
    if on_gpu:
        gpus = (torch.device("cuda", number) for number in range(torch.cuda.device_count()))
        yield Finding("ok", "accelerator", ", ".join(map(device_name, gpus)))
    elif torch.backends.mps.is_available():
        yield Finding("ok", "accelerator", "mps")
    elif caught or shutil.which("nvidia-smi"):
        reason = " ".join(str(caught[0].message).split()) if caught else "is it a build for processors only?"
        yield Finding("note", "accelerator", f"there is a GPU that torch {torch.__version__} cannot use: {reason}")
    else:
        yield Finding("ok", "accelerator", "none: training runs on the processor")
    chosen = "OMP_NUM_THREADS" in os.environ
    named = f", because OMP_NUM_THREADS is {os.environ['OMP_NUM_THREADS']}" if chosen else ""
    text = f"{device_name(torch.device('cpu'))} of {os.cpu_count()} processors{named}"
    yield Finding("note" if chosen else "ok", "processor", text)
    precision = native_precision(on_gpu=on_gpu)
    native = "native" if precision == "bf16-mixed" else "not native"
    yield Finding("ok", "bfloat16", f"{native}: --trainer.precision auto computes in {precision}")


def check_data(data_dir: Path) -> Iterator[Finding]:
    """Verify MNIST's files in the data folder, and those that the package carries."""
    from mnist_lightning.data.mnist import registry

    folder = data_dir / registry.MNIST.folder / "raw"
    states = {file.name: _state(folder / file.name, file) for file in registry.MNIST.files}
    if not any(states.values()):
        yield Finding("ok", "data", f"{folder}: four files, SHA-256 verified")
    elif set(states.values()) == {"missing"}:
        yield Finding("note", "data", f"{folder}: nothing yet; fit fetches it, with or without a network")
    else:
        for name, state in states.items():
            level: Literal["note", "fault"] = "fault" if state.startswith("cannot") else "note"
            yield Finding(level, "data", f"{folder / name}: {state}") if state else Finding("ok", "data", name)
    assert registry.MNIST.bundled
    packed = [registry.MNIST.bundled / f"{file.name}.gz" for file in registry.MNIST.files]
    damaged = [path for path, file in zip(packed, registry.MNIST.files, strict=True) if not _unpacks_to(path, file)]
    for path in damaged:
        yield Finding("fault", "bundled data", f"{path} is damaged: install the package again")
    if not damaged:
        yield Finding("ok", "bundled data", "four files, SHA-256 verified")


def check_folders(data_dir: Path) -> Iterator[Finding]:
    """Say whether what the commands write has a place to go, and room."""
    for folder in (Path("lightning_logs"), Path("checkpoints"), data_dir):
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            yield Finding("fault", "folder", f"{folder} cannot be written: {place.absolute()}: {error.strerror}")
            continue
        free = shutil.disk_usage(place).free
        room = f"{free / 1e9:.1f} GB free"
        if free < NEEDED_BYTES:
            room = f"{free / 1e6:.0f} MB free; 20 epochs and the data take {NEEDED_BYTES / 1e6:.0f} MB"
        yield Finding("fault" if free < NEEDED_BYTES else "ok", "folder", f"{folder} can be written, {room}")


def ask_mirrors() -> dict[str, "SimpleQueue[str]"]:
    """Ask every mirror for its smallest file, all at once; return where the answer of each will be."""
    from mnist_lightning.data.mnist import registry

    smallest = min(registry.MNIST.files, key=lambda file: file.size).name
    answers: dict[str, SimpleQueue[str]] = {mirror: SimpleQueue() for mirror in registry.MNIST.mirrors}
    for mirror, answer in answers.items():
        threading.Thread(target=_ask, args=(f"{mirror}{smallest}.gz", answer), daemon=True).start()
    return answers


def check_mirrors(answers: Mapping[str, "SimpleQueue[str]"]) -> Iterator[Finding]:
    """Say which mirrors answer; none has to."""
    for mirror, answer in answers.items():
        name = urlsplit(mirror).netloc
        try:
            fault = answer.get(timeout=2 * MIRROR_TIMEOUT_S)  # looking up a name obeys no timeout
        except Empty:
            fault = "no answer"
        text = f"{name}: {fault}; fit takes the bundled copy" if fault else f"{name} answers"
        yield Finding("note" if fault else "ok", "mirror", text)


def _ask(url: str, answer: "SimpleQueue[str]") -> None:
    request = urllib.request.Request(url, headers={"User-Agent": DISTRIBUTION})
    try:
        with urllib.request.urlopen(request, timeout=MIRROR_TIMEOUT_S):
            answer.put("")
    except HTTPError as error:
        error.close()
        answer.put(f"HTTP {error.code}")
    except (OSError, HTTPException, ValueError) as error:
        cause = error.reason if isinstance(error, URLError) else error
        answer.put(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _requirements(extra: str = "") -> "list[Requirement]":
    """Return what the project requires on this machine, or what one of its extras adds."""
    from packaging.requirements import Requirement

    def applies(requirement: Requirement, extra: str) -> bool:
        return requirement.marker is None or requirement.marker.evaluate({"extra": extra})

    everything = map(Requirement, requires(DISTRIBUTION) or [])
    return [one for one in everything if applies(one, extra) and not (extra and applies(one, ""))]


def _shortage(requirement: "Requirement") -> str:
    """Return what is wrong with the installed version of a package; nothing if it fits."""
    try:
        installed = version(requirement.name)
    except PackageNotFoundError:
        return "missing"
    return "" if requirement.specifier.contains(installed, prereleases=True) else f"{installed} does not fit"


def _state(path: Path, file: "RawFile") -> str:
    """Return how a data file differs from the published one; nothing if it does not."""
    from mnist_lightning.data.mnist import idx

    if not path.is_file():
        return "packed; fit unpacks it" if path.with_name(f"{path.name}.gz").is_file() else "missing"
    try:
        with path.open("rb") as raw:
            if hashlib.file_digest(raw, "sha256").hexdigest() == file.sha256:
                return ""
        shape = idx.read_header(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except DatasetError:
        shape = file.shape
    if shape == file.shape:
        return "damaged; fit keeps it aside and fetches it again"
    return f"not the published file but your own, of {' × '.join(map(str, shape))}"


def _unpacks_to(packed: Path, file: "RawFile") -> bool:
    try:
        with gzip.open(packed) as unpacked:
            return hashlib.file_digest(unpacked, "sha256").hexdigest() == file.sha256
    except (OSError, EOFError, zlib.error):
        return False


def _show(finding: Finding) -> None:
    level = f"{finding.level:5}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        level = f"{COLOURS[finding.level]}{level}\x1b[0m"
    print(f"{level}  {finding.subject:17}  {finding.text}", flush=True)
