"""File systems mounted for a test."""

import subprocess

import pytest


def mount(*options: str) -> None:
    """Mount a file system; skip the test where that is not allowed, as it is to root alone on most machines."""
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        # A full disk needs a mount; other tests cover the same errors by failing each system call.
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
