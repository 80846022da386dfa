"""Processes that read the same images share their memory."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnist_lightning.data.mnist import idx

READER = """
import sys
from mnist_lightning.data.mnist import idx
images = idx.read_images(sys.argv[1])
images.sum()  # every page is looked at
print(open("/proc/self/smaps").read())
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux reports which memory is shared")
def test_a_second_process_shares_the_memory_of_the_images(tmp_path: Path) -> None:
    path = tmp_path / "images"
    idx.write(path, np.random.default_rng(0).integers(0, 256, (20_000, 28, 28), dtype=np.uint8))
    size_kb = os.path.getsize(path) // 1024
    ours = idx.read_images(path)
    assert ours.sum() > 0
    maps = subprocess.run([sys.executable, "-c", READER, str(path)], capture_output=True, text=True, check=True).stdout
    mapping = maps[maps.index(str(path)) :].split("VmFlags")[0]
    kb = {name: int(amount) for name, amount in re.findall(r"^(\w+): +(\d+) kB$", mapping, re.M)}
    assert kb["Rss"] >= size_kb
    assert kb["Shared_Clean"] + kb["Shared_Dirty"] >= size_kb
    assert kb["Private_Clean"] + kb["Private_Dirty"] == kb["Anonymous"] == 0
