import subprocess
import sys

import pytest

# Page faults of 20 steps, each of which fills six blocks of 12 MB and then frees them: without help, 18,000 each.
SCRIPT = """
import resource, sys
import torch
from mnist_lightning.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    [torch.zeros(3 << 20) for _ in range(6)]
for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's C library")
def test_memory_that_a_step_frees_is_not_fetched_anew_by_the_next() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT, "keep"], capture_output=True, text=True, check=True).stdout
    assert int(out) < 20
