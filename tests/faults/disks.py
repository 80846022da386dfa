"""File systems made for a test."""

import subprocess

import pytest


def mount(*options: str) -> None:
    """Mount a file system; skip the test where that is not allowed, as it is to root alone on most machines."""
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        # A full disk cannot be had otherwise; the same errors are tested everywhere by refusing each request.
        pytest.skip(f"cannot mount a small file system: {mounted.stderr.strip()}")
