from pathlib import Path

import pytest

from mnist_lightning.atomic_write import check_writable
from mnist_lightning.errors import StorageError


def test_a_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list((tmp_path / "a" / "b").iterdir())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no folder that even root cannot write into")
def test_a_folder_that_takes_no_files_is_named() -> None:
    with pytest.raises(StorageError, match="cannot write into /proc/self: "):
        check_writable(Path("/proc/self"))
