"""Kill the process, fill the disk, or take away the folder while a checkpoint is being saved: a good one remains."""

import errno
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mnist_lightning.atomic_write import remove_parts
from mnist_lightning.errors import StorageError
from mnist_lightning.runs import checkpoint_verification, run_folders
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from tests.faults.disks import mount
from tests.faults.trials import TRIALS

# Requests to the operating system while saving; Python calls an audit hook before each.
SYSTEM_CALLS = ("open", "os.rename", "os.remove", "os.mkdir")

SLOW = pytest.mark.slow
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process to kill it")


def save(run: run_folders.Run, epoch: int, size: int = 1000) -> None:
    weights = {"network.fc1.weight": torch.full((size,), float(epoch))}
    metrics = {"val_acc": 0.9 + epoch / 1000, "val_loss": 0.1}  # each is better, so that best.ckpt is replaced too
    DurableCheckpointIO().save_checkpoint(
        {"state_dict": weights, "epoch": epoch, "global_step": epoch + 1, "metrics": metrics},
        run.checkpoints / f"epoch={epoch:05d}.ckpt",
    )


def epoch_of(path: Path) -> int:
    """The epoch of a checkpoint that verifies and whose weights are those of that epoch."""
    checkpoint = checkpoint_verification.read_checkpoint(path)
    epoch: int = checkpoint["epoch"]
    assert checkpoint["state_dict"]["network.fc1.weight"].eq(epoch).all()
    return epoch


def in_a_child(work: Callable[[], None]) -> int:
    """Start a process that works; return its id."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    return child


def on_call(number: int, action: Callable[[str], None]) -> Callable[[], int]:
    """From now on, in this process, do something at the number-th request to the system; return how many there were."""
    seen = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal seen
        if event in SYSTEM_CALLS:
            seen += 1
            if seen == number:
                action(event)

    sys.addaudithook(watch)
    return lambda: seen


def calls_of_a_save(run: run_folders.Run) -> int:
    """How often saving one more checkpoint asks the system for something."""

    def work() -> None:
        count = on_call(-1, lambda _: None)
        save(run, 1)
        (run.root / "count").write_text(str(count()))

    os.waitpid(in_a_child(work), 0)
    return int((run.root / "count").read_text())


@pytest.fixture
def run(tmp_path: Path) -> run_folders.Run:
    run = run_folders.create(tmp_path)
    save(run, 0)
    return run


@pytest.mark.slow
def test_a_kill_at_each_request_to_the_system_leaves_a_good_checkpoint(run: run_folders.Run, tmp_path: Path) -> None:
    total = calls_of_a_save(run_folders.Run(tmp_path, 0))
    assert total >= 12  # four files, each made, read back and renamed
    for number in range(1, total + 1):
        shutil.rmtree(run.checkpoints)
        save(run, 0)

        def work(number: int = number) -> None:
            on_call(number, lambda _: os.kill(os.getpid(), signal.SIGKILL))
            save(run, 1)

        assert os.WIFSIGNALED(os.waitpid(in_a_child(work), 0)[1]) or number > total - 1
        assert epoch_of(run.last()) in (0, 1)
        assert epoch_of(run.best()) in (0, 1)
        save(run, 2)  # and saving works again
        assert epoch_of(run.last()) == epoch_of(run.best()) == 2


def random_kills(run: run_folders.Run, kills: int, size: int) -> None:
    """Kill a process that saves without end, each time at a random moment of the few saves after its first."""
    saved = 0
    for _ in range(kills):

        def work(first: int = saved + 1) -> None:
            for epoch in itertools.count(first):
                save(run, epoch, size)

        started_s = time.monotonic()
        child = in_a_child(work)
        while not (run.checkpoints / f"epoch={saved + 1:05d}.ckpt").exists():
            assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process has ended by itself"
            time.sleep(0.001)
        save_s = time.monotonic() - started_s
        time.sleep(random.uniform(0, 3) * save_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = epoch_of(run.last())
        assert newest > saved, "a newer checkpoint was there before"
        assert epoch_of(run.best()) >= newest - 1
        saved = newest
        remove_parts(run.checkpoints)
        for old in sorted(run.checkpoints.glob("epoch=*.ckpt"))[:-3]:
            old.unlink()


def test_random_kills_while_saving_lose_nothing(run: run_folders.Run) -> None:
    random_kills(run, 10, size=100_000)


@pytest.mark.slow
@pytest.mark.parametrize("same_file_system", [True, False])
def test_random_kills_while_saving_lose_nothing_wherever_tmpdir_is(
    run: run_folders.Run, monkeypatch: pytest.MonkeyPatch, same_file_system: bool
) -> None:
    if not same_file_system:
        memory = Path("/dev/shm")
        if not memory.is_dir() or memory.stat().st_dev == run.checkpoints.stat().st_dev:
            # Linux has one in memory; elsewhere there may be a single disk, and the other half of the test still runs.
            pytest.skip("no other file system to put TMPDIR on")
        monkeypatch.setenv("TMPDIR", str(memory))
    random_kills(run, TRIALS, size=400_000)


@pytest.mark.parametrize(
    "fault", [errno.ENOSPC, *(pytest.param(fault, marks=SLOW) for fault in (errno.EIO, errno.EACCES, errno.EROFS))]
)
def test_a_request_that_the_system_refuses_fails_loudly_and_costs_no_checkpoint(
    run: run_folders.Run, fault: int
) -> None:
    def fail(event: str) -> None:
        raise OSError(fault, os.strerror(fault))

    for number in range(1, calls_of_a_save(run_folders.Run(run.root, 0)) + 1):
        shutil.rmtree(run.checkpoints)
        save(run, 0)

        def work(number: int = number) -> None:
            on_call(number, fail)
            try:
                save(run, 1)
            except StorageError as error:
                os._exit(5 if str(run.checkpoints) in str(error) else 1)

        code = os.waitstatus_to_exitcode(os.waitpid(in_a_child(work), 0)[1])
        newest, best = epoch_of(run.last()), epoch_of(run.best())
        assert code in (0, 5)
        assert newest in (0, 1)
        assert best in (0, 1)
        if code == 0:  # only tidying up failed
            assert newest == best == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=96k", "tmpfs", str(disk))
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_real_full_disk_fails_loudly_and_costs_no_checkpoint(small_disk: Path) -> None:
    run = run_folders.create(small_disk)
    saved = 0
    save(run, saved)
    with pytest.raises(StorageError, match="No space left on device"):  # noqa: PT012  # which save fails is not known
        for saved in itertools.count(1):
            save(run, saved)
    saved -= 1
    assert saved >= 1
    assert epoch_of(run.last()) in (saved, saved + 1)
    assert epoch_of(run.best()) in (saved, saved + 1)
    assert not list(run.checkpoints.glob(".*.part"))


def reserve_and_save(root: Path) -> int:
    run = run_folders.create(root)
    save(run, 0)
    return run.version


def test_eight_processes_save_into_runs_of_their_own(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        versions = pool.map(reserve_and_save, [tmp_path] * 16)
    assert sorted(versions) == list(range(16))
    assert all(epoch_of(run_folders.Run(tmp_path, version).last()) == 0 for version in versions)
