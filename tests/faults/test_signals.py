"""Real processes, real signals: the exit code is right and nothing that was trained is lost."""

import contextlib
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command
from tests.faults.trials import TRIALS
from tests.training.bits import assert_same, comparable, content, scalars

STEPS_PER_EPOCH, EPOCHS = 8, 4
ENDLESS = ("--trainer.max_epochs", "1000000", "--early_stopping.enabled", "false")


class Commands:
    """Runs commands in processes of their own, forked from one that has imported everything already."""

    # The child is forked before torch has started a thread, so it is as good as a new process.
    SERVER = """
import os, sys
import mnist_lightning.cli.lightning_cli
from mnist_lightning.cli.main import main
for line in sys.stdin:
    *args, folder = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        handle = os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1), os.dup2(handle, 2)
        sys.argv = ["mnist-lightning", *args]
        try:
            main(args)
        except SystemExit as stop:
            sys.stdout.flush()
            os._exit(stop.code if isinstance(stop.code, int) else 1)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self) -> None:
        self.folder = Path()  # where they run
        self.child: int | None = None  # the process id of the one that runs
        self.server = subprocess.Popen(
            [sys.executable, "-c", self.SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    @property
    def out(self) -> Path:
        """What the commands printed."""
        return self.folder / "out.txt"

    def start(self, *args: str) -> int:
        """Start a command; return its process id."""
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write("\t".join([*args, str(self.folder)]) + "\n")
        self.server.stdin.flush()
        self.child = int(self.server.stdout.readline())
        return self.child

    def wait(self) -> int:
        """Wait for the command's end; return its exit code, negative for a signal that killed it."""
        assert self.server.stdout
        code = int(self.server.stdout.readline())
        self.child = None
        return code

    def run(self, *args: str) -> int:
        """Run a command to its end."""
        self.start(*args)
        return self.wait()

    def wait_for(self, path: Path, child: int) -> None:
        """Wait until a resumed command has created a file."""
        while not path.exists():
            try:
                os.kill(child, 0)
            except ProcessLookupError:
                pytest.fail(f"{path} never came: {self.out.read_text()}")
            time.sleep(0.02)


@pytest.fixture(scope="module")
def server() -> Iterator[Commands]:
    commands = Commands()
    with commands.server:  # closes its pipes, which ends it
        yield commands


@pytest.fixture
def commands(server: Commands, tmp_path: Path) -> Iterator[Commands]:
    server.folder = tmp_path
    yield server
    if server.child:  # the test has failed
        os.kill(server.child, signal.SIGKILL)
        server.wait()


def options(digits_dir: Path) -> list[str]:
    return [
        "fit", "--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.batch_size", "32",
        "--trainer.max_epochs", str(EPOCHS), "--checkpoint.every_n_steps", "3",
        "--tensorboard.figures", "none",
    ]  # fmt: skip


def assert_runs_equal(left: Path, right: Path) -> None:
    assert_same(comparable(content(left)), comparable(content(right)))
    assert scalars(left.parents[1] / "lightning_logs" / left.name) == scalars(
        right.parents[1] / "lightning_logs" / right.name
    )


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGINT", "SIGHUP")]
)
def test_a_signal_saves_exits_with_its_code_and_the_run_resumes_exactly(
    commands: Commands, tmp_path: Path, digits_dir: Path, name: str
) -> None:
    number = signal.Signals[name]
    first = tmp_path / "checkpoints" / "version_0"
    child = commands.start(*options(digits_dir), *ENDLESS)
    commands.wait_for(first / "last.ckpt", child)
    os.kill(child, number)
    assert commands.wait() == 128 + number
    assert f"{name}: saved after step" in commands.out.read_text()
    stopped_after = content(first)["global_step"]
    epochs = str(stopped_after // STEPS_PER_EPOCH + 2)
    assert commands.run("fit", "--ckpt_path", "last", "--trainer.max_epochs", epochs) == 0
    assert commands.run(
        *options(digits_dir), "--trainer.max_epochs", epochs, "--early_stopping.enabled", "false"
    ) == 0  # fmt: skip
    assert_runs_equal(first, tmp_path / "checkpoints" / "version_1")


def test_a_second_signal_ends_at_once(commands: Commands, tmp_path: Path, digits_dir: Path) -> None:
    child = commands.start(*options(digits_dir), *ENDLESS)
    commands.wait_for(tmp_path / "checkpoints" / "version_0" / "last.ckpt", child)
    os.kill(child, signal.SIGSTOP)  # both are there before it can finish the step
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    os.kill(child, signal.SIGCONT)
    assert commands.wait() in (-signal.SIGTERM, -signal.SIGINT)


def test_a_second_fit_in_the_same_run_is_refused(
    commands: Commands, command: Command, tmp_path: Path, digits_dir: Path
) -> None:
    child = commands.start(*options(digits_dir), *ENDLESS)
    commands.wait_for(tmp_path / "checkpoints" / "version_0" / "last.ckpt", child)
    os.kill(child, signal.SIGSTOP)  # however long the second takes, the first is still there
    second = command("fit", "--ckpt_path", "last")
    assert second.code == 2
    assert "version_0 is being trained by another process" in second.err
    os.kill(child, signal.SIGKILL)
    assert commands.wait() == -signal.SIGKILL
    # The lock of a killed process does not count.
    epochs = str(content(tmp_path / "checkpoints" / "version_0")["global_step"] // STEPS_PER_EPOCH + 2)
    assert commands.run("fit", "--ckpt_path", "last", "--trainer.max_epochs", epochs) == 0


TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)  # the terminal whose closing is to end this process
from mnist_lightning.cli.main import main
main()
"""


@pytest.mark.slow
def test_closing_the_terminal_saves_and_the_run_resumes_exactly(
    commands: Commands, tmp_path: Path, digits_dir: Path
) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *options(digits_dir), *ENDLESS],
        cwd=tmp_path, stdin=child, stdout=child, stderr=child, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    first = tmp_path / "checkpoints" / "version_0"
    while not (first / "last.ckpt").exists():
        os.read(parent, 1024)
    os.close(parent)
    assert process.wait() == 128 + signal.SIGHUP
    epochs = str(content(first)["global_step"] // STEPS_PER_EPOCH + 2)
    for arguments in (["fit", "--ckpt_path", "last"], [*options(digits_dir), "--early_stopping.enabled", "false"]):
        assert commands.run(*arguments, "--trainer.max_epochs", epochs) == 0
    assert_runs_equal(first, tmp_path / "checkpoints" / "version_1")


def train_under_fire(commands: Commands, digits_dir: Path, root: Path, kills: int, unbroken_s: float) -> int:
    """Train to the end through SIGKILLs at random moments; return how many there were."""
    fired, fresh = 0, True
    while True:
        child = commands.start(*(options(digits_dir) if fresh else ["fit", "--ckpt_path", "last"]))
        if fired < kills:
            time.sleep(random.uniform(0.1, 1) * unbroken_s)
            with contextlib.suppress(ProcessLookupError):  # it had finished
                os.kill(child, signal.SIGKILL)
        code = commands.wait()
        if code == 0:
            return fired
        assert code == -signal.SIGKILL, commands.out.read_text()
        fired += 1
        fresh = not any(newest(root).glob("*.ckpt"))


def newest(root: Path) -> Path:
    """The checkpoint folder of the newest run, which need not be there."""
    folders = (root / "checkpoints").glob("version_*")
    return max(folders, default=root / "checkpoints" / "version_0", key=lambda path: int(path.name[8:]))


@pytest.mark.slow
def test_random_kills_of_real_runs_change_no_bit(commands: Commands, tmp_path: Path, digits_dir: Path) -> None:
    assert commands.run(*options(digits_dir)) == 0
    started_s = time.monotonic()  # of the second: the first waits for the imports, and kills so late would hit nothing
    assert commands.run(*options(digits_dir)) == 0
    unbroken, unbroken_s = newest(tmp_path), time.monotonic() - started_s
    fired = 0
    while fired < TRIALS:
        fired += train_under_fire(commands, digits_dir, tmp_path, random.randint(1, 6), unbroken_s)
        assert_runs_equal(newest(tmp_path), unbroken)
        assert not list(newest(tmp_path).glob(".*.part")), "what a kill left behind is cleared away"
        print(f"{fired} kills so far", flush=True)  # the long form takes most of an hour
    print(f"{fired} kills, 0 differences")
