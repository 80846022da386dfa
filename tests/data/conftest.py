import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from mnist_lightning.data.mnist import download
from mnist_lightning.data.mnist.registry import DatasetSource, RawFile
from tests.data.image_folder.small_images import write_shapes
from tests.data.mnist.mirror import FaultyMirror
from tests.data.small import PACKED, PUBLISHED, shape_in_header

Serve = Callable[[dict[str, bytes]], FaultyMirror]


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetSource:
    """A small data set, with a bundled copy and with no mirrors of its own."""
    bundled = tmp_path / "bundled"
    bundled.mkdir()
    for name, packed in PACKED.items():
        (bundled / name).write_bytes(packed)
    files = tuple(
        RawFile(name, shape_in_header(content), hashlib.sha256(content).hexdigest())
        for name, content in PUBLISHED.items()
    )
    return DatasetSource("Small", files, mirrors=(), class_names=tuple("0123456789"), bundled=bundled)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "Small" / "raw"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts mirrors whose certificate is trusted and which no proxy hides; tries follow each other quickly."""
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "BACKOFFS_S", (0, 0.01, 0.01))
    with ExitStack() as running:
        yield lambda files: running.enter_context(FaultyMirror(files, authority))


@pytest.fixture
def mirror(serve: Serve) -> FaultyMirror:
    """A mirror of the small data set."""
    return serve(PACKED)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """A folder with 20 images of each of three shapes."""
    return write_shapes(tmp_path / "shapes", 20)
