"""Where data files come from: the data folder itself, the mirrors, the bundled copy.

What it leaves in the folder is verified, whatever else happens; what is inside the files is for `idx` to say.
"""

import gzip
import hashlib
import os
import secrets
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from itertools import chain, count
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from mnist_lightning.data import idx
from mnist_lightning.data.download import ContentError, MirrorError, download
from mnist_lightning.data.spec import MNIST_SPEC, ImageSpec
from mnist_lightning.errors import ConfigError, DatasetError, StorageError
from mnist_lightning.terminal import tell

Source = Literal["auto", "download", "bundled", "files"]

CHUNK_BYTES = 1 << 20
PACKED_EXTRA_BYTES = 1 << 16  # by how much a packed file may exceed the unpacked one: gzip adds far less
NOT_GZIP = (gzip.BadGzipFile, EOFError, zlib.error)  # what Python raises for a file that is not gzip, or not all of it
STALE_PART_S = 3600  # a part file that old belongs to no download that is still running


@dataclass(frozen=True)
class RawFile:
    """One published file as it is after unpacking; mirrors serve it as `<name>.gz`.

    Args:
        name: The file name, without `.gz`.
        size: Bytes.
        sha256: Digest of these bytes, in hexadecimal.
        shape: The dimensions in its header.
    """

    name: str
    size: int
    sha256: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class DatasetSource:
    """A data set of four files, and where they can be had.

    Args:
        folder: The folder inside `data_dir`, torchvision's name for the data set.
        files: Training images, training labels, test images, test labels.
        mirrors: https addresses of folders that hold the four `.gz` files, in the order to try them.
        spec: The form of its images, and its class names.
        bundled: A folder on this machine that holds the files, if there is one.
    """

    folder: str
    files: tuple[RawFile, RawFile, RawFile, RawFile]
    mirrors: tuple[str, ...]
    spec: ImageSpec
    bundled: Path | None = None


MNIST = DatasetSource(
    folder="MNIST",
    files=(
        RawFile(
            name="train-images-idx3-ubyte",
            size=47_040_016,
            sha256="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            shape=(60_000, 28, 28),
        ),
        RawFile(
            name="train-labels-idx1-ubyte",
            size=60_008,
            sha256="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            shape=(60_000,),
        ),
        RawFile(
            name="t10k-images-idx3-ubyte",
            size=7_840_016,
            sha256="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            shape=(10_000, 28, 28),
        ),
        RawFile(
            name="t10k-labels-idx1-ubyte",
            size=10_008,
            sha256="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            shape=(10_000,),
        ),
    ),
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    spec=MNIST_SPEC,
    bundled=Path(__file__).parent / "bundled",
)


def fetch(
    dataset: DatasetSource, data_dir: Path, *, source: Source = "auto", mirrors: Sequence[str] | None = None
) -> Path:
    """Make sure that the four files of a data set are in their folder, unpacked and verified.

    Files that are there and right are used. Files whose dimensions are not the published ones are somebody's own: all
    four are then used as they are. Any other file is damaged: it is kept under another name and replaced. Any number
    of processes may do this at once, without locks: a file appears under its name whole and verified, or not at all.

    Args:
        dataset: What to fetch.
        data_dir: The folder of all data sets; created if missing.
        source: Where missing files come from: `download` (mirrors only), `bundled` (the bundled copy only), `auto`
            (mirrors, then the bundled copy) or `files` (nowhere: the files there are somebody's own).
        mirrors: https addresses to use in place of the data set's own.

    Returns:
        The folder that holds the four files: `<data_dir>/<folder>/raw`.

    Raises:
        ConfigError: A mirror is not an https address, or there is no bundled copy to use.
        DatasetError: A file cannot be had, or somebody's own files are not what they should be.
        StorageError: The folder, or a file in it, cannot be read or written.
    """
    supply = _Supply(dataset, source, dataset.mirrors if mirrors is None else mirrors)
    folder = Path(data_dir) / dataset.folder / "raw"
    try:
        own = [file.name for file in dataset.files if _is_own(folder, file)]
        if own and source != "files":
            tell(f"{folder}: {own[0]} is not the published file: using the four files there as your own")
        if own or source == "files":
            _use_own(dataset, folder)
        elif missing := [file for file in dataset.files if _difference(folder / file.name, file)]:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_stale_parts(folder, missing)
            for file in missing:
                _complete(folder, file, supply)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be read or written: {error}") from error
    return folder


def _complete(folder: Path, file: RawFile, supply: "_Supply") -> None:
    """Put one file in place: unpacked from a `.gz` beside it if that is the right one, else from the supply."""
    raw, packed = folder / file.name, folder / f"{file.name}.gz"
    seen = _identity(raw)
    if seen and (difference := _difference(raw, file)):
        _keep_aside(raw, seen, difference)
    if raw.exists():  # another process was faster
        return
    seen = _identity(packed)
    if seen and packed.is_file():
        try:
            _publish_from(packed, raw, file.size, file.sha256)
            return
        except FileNotFoundError:  # another process found it damaged
            pass
        except ContentError as error:
            _keep_aside(packed, seen, str(error))
    supply.put(file, raw)


class _Supply:
    """Brings missing files during one `fetch`, and remembers which mirrors failed and why."""

    def __init__(self, dataset: DatasetSource, source: Source, mirrors: Sequence[str]) -> None:
        for mirror in mirrors:
            if not _is_https(mirror):
                raise ConfigError(f"mirrors must be https addresses, got {mirror!r}")
        if source == "bundled" and dataset.bundled is None:
            raise ConfigError(f"source 'bundled': there is no bundled copy of {dataset.folder}; 'auto' downloads it")
        self.dataset = dataset
        self.bundled = None if source == "download" else dataset.bundled
        self.mirrors = [] if source == "bundled" else list(mirrors)
        self.silent = source == "bundled"
        self.faults: dict[str, MirrorError] = {}

    def put(self, file: RawFile, target: Path) -> None:
        """Publish one file under its name, from the first place that delivers it."""
        if self._download(file, target):
            return
        if self.bundled is None:
            raise DatasetError(self._recipe(target.parent))
        if not self.silent:
            reasons = "; ".join(f"{urlsplit(url).netloc}: {fault}" for url, fault in self.faults.items())
            tell(f"{self.dataset.folder}: no mirror delivers it ({reasons or 'none given'}): using the bundled copy")
            self.silent, self.mirrors = True, []
        packed = self.bundled / f"{file.name}.gz"
        try:
            _publish_from(packed, target, file.size, file.sha256)
        except (FileNotFoundError, ContentError) as error:
            raise DatasetError(f"{packed}: the bundled copy is damaged: {error}; install the package again") from error

    def _download(self, file: RawFile, target: Path) -> bool:
        for mirror in list(self.mirrors):
            url = f"{mirror.rstrip('/')}/{file.name}.gz"
            try:
                download(
                    url,
                    save=lambda body: _publish(body, target, file.size, file.sha256),
                    max_bytes=file.size + PACKED_EXTRA_BYTES,
                )
                return True
            except MirrorError as fault:
                self.faults[url] = fault
                if not fault.reachable:
                    self.mirrors.remove(mirror)
        return False

    def _recipe(self, folder: Path) -> str:
        tried = "".join(f"\n  {url}: {fault}" for url, fault in self.faults.items()) or " no mirrors given"
        names = ", ".join(f"{file.name}.gz" for file in self.dataset.files)
        bundled = ", or use the bundled copy (source 'bundled')" if self.dataset.bundled else ""
        return (
            f"{self.dataset.folder} could not be downloaded:{tried}\n"
            f"By hand: put {names} (or the same unpacked, without .gz) into {folder}{bundled}"
        )


def _is_https(address: str) -> bool:
    try:
        return urlsplit(address).scheme == "https" and bool(urlsplit(address).hostname)
    except ValueError:
        return False


def _use_own(dataset: DatasetSource, folder: Path) -> None:
    """Unpack somebody's own files where needed and check that they are two splits of one data set."""
    paths = [folder / file.name for file in dataset.files]
    for path in paths:
        placed = _placed(path)
        if placed is None:
            raise DatasetError(f"{path}: missing; your own data needs all four: {', '.join(p.name for p in paths)}")
        if placed != path:
            try:
                _publish_from(placed, path, idx.file_size(_shape(placed)))
            except ContentError as error:
                raise DatasetError(f"{placed}: {error}") from error
    train_images, _ = idx.read_split(paths[0], paths[1], len(dataset.spec.class_names))
    test_images, _ = idx.read_split(paths[2], paths[3], len(dataset.spec.class_names))
    train_size, test_size = train_images.shape[1:], test_images.shape[1:]
    if train_size != test_size:
        raise DatasetError(f"{paths[2]}: images of {test_size} at byte 8, but {paths[0].name} has {train_size}")


def _is_own(folder: Path, file: RawFile) -> bool:
    """Tell a data set of somebody's own by its readable header with other dimensions, and its other size."""
    path = _placed(folder / file.name)
    if path is None:
        return False
    try:
        shape = _shape(path)
        size = idx.file_size(shape) if path.suffix == ".gz" else path.stat().st_size
    except (DatasetError, FileNotFoundError):  # the latter when another process has just kept a damaged file aside
        return False
    return shape != file.shape and size != file.size


def _placed(path: Path) -> Path | None:
    """Return the file under this name if there is one, else the `.gz` beside it, else nothing."""
    candidates = (path, path.with_name(f"{path.name}.gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _shape(path: Path) -> tuple[int, ...]:
    if path.suffix != ".gz":
        return idx.read_header(path)
    try:
        with gzip.open(path) as unpacked:
            return idx.parse_header(unpacked, path)
    except NOT_GZIP as error:
        raise DatasetError(f"{path}: not a whole gzip file: {error}") from error


def _difference(path: Path, file: RawFile) -> str:
    """Say how a file differs from the published one; nothing when it does not."""
    if not path.is_file():
        return "not a file"
    try:
        with open(path, "rb") as raw:
            size = os.fstat(raw.fileno()).st_size
            if size != file.size:
                return f"{size} bytes instead of {file.size}"
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
    except FileNotFoundError:
        return "kept aside by another process"
    return "" if digest == file.sha256 else f"SHA-256 {digest[:8]}... instead of {file.sha256[:8]}..."


def _identity(path: Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _keep_aside(path: Path, seen: os.stat_result, reason: str) -> None:
    """Rename a damaged file; `seen` is its identity from before it was judged."""
    names = (f"{path.name}.damaged{suffix}" for suffix in chain([""], (f"-{n}" for n in count(1))))
    aside = next(path.with_name(name) for name in names if not os.path.lexists(path.with_name(name)))
    with suppress(FileNotFoundError):  # another process was faster
        os.rename(path, aside)
        if os.path.samestat(seen, os.lstat(aside)):
            tell(f"{path} is damaged ({reason}): kept as {aside.name}, fetching the file again")
        else:
            os.replace(aside, path)  # what another process had just published


def _publish_from(packed_path: Path, target: Path, size: int, sha256: str | None = None) -> None:
    with open(packed_path, "rb") as packed:
        _publish(packed, target, size, sha256)


def _publish(packed: BufferedReader, target: Path, size: int, sha256: str | None = None) -> None:
    """Unpack gzip into a file of exactly `size` bytes and this digest, which appears under its name whole."""
    part = target.with_name(f"{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part")
    digest, written = hashlib.sha256(), 0
    try:
        with open(part, "xb") as out, gzip.GzipFile(fileobj=packed, mode="rb") as unpacked:
            while chunk := unpacked.read(min(CHUNK_BYTES, size + 1 - written)):
                digest.update(chunk)
                written += out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if written != size:
            raise ContentError(f"unpacks to {'more' if written > size else 'fewer'} than {size} bytes")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise ContentError(f"unpacks to SHA-256 {digest.hexdigest()[:8]}... instead of {sha256[:8]}...")
        os.replace(part, target)
    except NOT_GZIP as error:
        raise ContentError(f"not a whole gzip file: {error}") from error
    finally:
        part.unlink(missing_ok=True)


def _remove_stale_parts(folder: Path, files: Sequence[RawFile]) -> None:
    """Remove what processes that were killed have left behind."""
    for part in (part for file in files for part in folder.glob(f"{file.name}.*.part")):
        with suppress(FileNotFoundError):
            if time.time() - part.stat().st_mtime > STALE_PART_S:
                part.unlink()
