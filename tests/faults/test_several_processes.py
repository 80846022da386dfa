"""Distributed training: one run, one order of images, exact resumption, and all ranks end together."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch.nn import functional as F

from mnist_lightning import Classifier, MNISTDataModule, SimpleCNN
from tests.conftest import DIGITS_MEAN, DIGITS_STD, TRAIN_COUNT, Command
from tests.faults.one_of_several import FAULT
from tests.training.bits import assert_same, comparable, content, scalars

ROOT = Path(__file__).parents[2]
VAL_SIZE, BATCH_SIZE, EPOCHS, STEPS = 60, 16, 2, 8  # of an epoch: 120 images on each process, in batches of 16
MODULE = "tests.faults.one_of_several"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the processes"),
]


def options(digits_dir: Path, *more: str, processes: int = 2) -> list[str]:
    return [
        "fit", "--data.data_dir", str(digits_dir), "--data.source", "files", "--data.val_size", str(VAL_SIZE),
        "--data.batch_size", str(BATCH_SIZE), "--data.shift", "1", "--trainer.max_epochs", str(EPOCHS),
        "--trainer.accelerator", "cpu", "--trainer.strategy", "ddp", "--trainer.devices", str(processes),
        "--checkpoint.every_n_steps", "3", "--tensorboard.figures", "none",
        "--model.metrics", "[macro_f1,auroc]", *more,
    ]  # fmt: skip


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Forks:
    """Runs commands on several processes, each started by itself as on machines without a launcher."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-m", MODULE, "--fork"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, folder: Path, args: list[str], *, processes: int = 2, fault: str | None = None, slurm: bool = False
    ) -> list[int]:
        """Run a command to the end of all its processes; return their exit codes."""
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= {FAULT: fault} if fault else {}
        shared |= (
            SLURM_JOB | dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE"), str(processes))
            if slurm
            else {"NODE_RANK": "0"}
        )
        numbers = ("SLURM_PROCID", "SLURM_LOCALID") if slurm else ("LOCAL_RANK",)
        environments = [shared | dict.fromkeys(numbers, str(rank)) for rank in range(processes)]
        assert self.server.stdin
        assert self.server.stdout
        print(json.dumps({"args": args, "folder": str(folder), "environments": environments}), file=self.server.stdin)
        self.server.stdin.flush()
        codes: list[int] = json.loads(self.server.stdout.readline())
        return codes


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    forks = Forks()
    with forks.server:  # closes its pipes, which ends it
        yield forks


SLURM_JOB = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "job", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}


def errors(folder: Path) -> list[str]:
    """Return what all processes printed on stderr that is an error."""
    return re.findall(r"^error: .*$", "\n".join(path.read_text() for path in sorted(folder.glob("err-*.txt"))), re.M)


@dataclass(frozen=True)
class Unbroken:
    """A finished run on two processes, to compare with."""

    root: Path

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints" / "version_0"


@pytest.fixture(scope="module")
def unbroken(forks: Forks, digits_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    root = tmp_path_factory.mktemp("unbroken")
    assert forks.run(root, options(digits_dir)) == [0, 0], (root / "err-0.txt").read_text()
    return Unbroken(root)


def assert_runs_equal(root: Path, unbroken: Unbroken) -> None:
    checkpoints = root / "checkpoints" / "version_0"
    assert_same(comparable(content(checkpoints)), comparable(content(unbroken.checkpoints)))
    logs = Path("lightning_logs", "version_0")
    assert scalars(root / logs) == scalars(unbroken.root / logs)
    for folder in (Path("checkpoints"), Path("lightning_logs"), Path("checkpoints", "version_0")):
        assert names(root / folder) == names(unbroken.root / folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def train_indices() -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.sort(np.random.default_rng(0).permutation(TRAIN_COUNT)[VAL_SIZE:])


def test_two_ranks_make_one_run_with_one_set_of_checkpoints(unbroken: Unbroken) -> None:
    for kind in ("lightning_logs", "checkpoints"):
        assert names(unbroken.root / kind) == ["version_0"]
    files = names(unbroken.checkpoints)
    assert [re.sub(r"val_loss=.*\.", "val_loss=.", name) for name in files] == [
        ".lock", "best.ckpt", "epoch=00-val_loss=.ckpt", "epoch=01-val_loss=.ckpt", "last.ckpt", "manifest.json",
    ]  # fmt: skip
    assert len(list((unbroken.root / "lightning_logs" / "version_0").glob("events.*"))) == 1
    assert (unbroken.root / "out-0.txt").read_text().count("epoch  1") == 1
    for silent in ("out-1.txt", "err-1.txt"):
        assert not (unbroken.root / silent).read_text()


def test_together_the_ranks_serve_the_order_of_each_epoch_once(unbroken: Unbroken) -> None:
    for rank in range(2):
        lines = (unbroken.root / f"served-{rank}.txt").read_text().splitlines()
        served = [json.loads(line) for line in lines]
        for epoch in range(EPOCHS):
            images = [image for served_epoch, chosen in served if served_epoch == epoch for image in chosen]
            order = train_indices()[np.random.default_rng([0, epoch]).permutation(TRAIN_COUNT - VAL_SIZE)]
            assert images == order[rank::2].tolist()


def test_all_ranks_end_with_the_same_weights(unbroken: Unbroken) -> None:
    first, second = (torch.load(unbroken.root / f"weights-{rank}.pt", weights_only=True) for rank in range(2))
    assert_same(first, second)


def test_further_metrics_are_those_of_one_process_also_if_a_rank_has_no_batch(
    forks: Forks, digits_dir: Path, tmp_path: Path
) -> None:
    few = options(digits_dir, "--data.val_size", "20", "--trainer.limit_val_batches", "1", "--model.lr", "1e-4")
    few += ["--tensorboard.figures", "epoch"]  # only the first rank has a logger, and all gather
    assert forks.run(tmp_path, few) == [0, 0], (tmp_path / "err-0.txt").read_text()
    folder = tmp_path / "checkpoints" / "version_0"
    data = MNISTDataModule(str(digits_dir), val_size=20)
    data.setup("fit")
    val = data.samples("val")
    chosen = val.indices[:10]
    inputs = (val.inputs[chosen].float() / 255 - 0.1307) / 0.3081
    with torch.inference_mode():
        logits = Classifier.load_from_checkpoint(folder / "last.ckpt").eval()(inputs.unsqueeze(1))
    expected = f1_score(val.labels[chosen], logits.argmax(1), average="macro")
    assert content(folder)["metrics"]["val_macro_f1"] == pytest.approx(expected, abs=1e-6)
    assert "val_auroc" in content(folder)["metrics"]


def test_ranks_numbered_by_slurm_train_like_others(
    forks: Forks, unbroken: Unbroken, digits_dir: Path, tmp_path: Path
) -> None:
    assert forks.run(tmp_path, options(digits_dir), slurm=True) == [0, 0], (tmp_path / "err-0.txt").read_text()
    assert_runs_equal(tmp_path, unbroken)


def test_a_step_uses_the_averaged_gradients(forks: Forks, digits_dir: Path, tmp_path: Path) -> None:
    plain = ("--model.conv_dropout", "0", "--model.fc_dropout", "0", "--data.shift", "0", "--trainer.max_steps", "5")
    exact = ("--trainer.precision", "32-true")  # as the reference computes, also where there is native bfloat16
    assert forks.run(tmp_path, options(digits_dir, *plain, *exact)) == [0, 0]
    pixels = np.fromfile(digits_dir / "MNIST/raw/train-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 28, 28)
    labels = np.fromfile(digits_dir / "MNIST/raw/train-labels-idx1-ubyte", np.uint8, offset=8).astype(np.int64)
    order = train_indices()[np.random.default_rng([0, 0]).permutation(TRAIN_COUNT - VAL_SIZE)]
    torch.manual_seed(0)
    network = SimpleCNN(0.0, 0.0)
    start = torch.cat([weights.detach().flatten().clone() for weights in network.parameters()])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for step in range(5):
        optimizer.zero_grad()
        for rank in range(2):
            chosen = order[rank::2][step * BATCH_SIZE : (step + 1) * BATCH_SIZE]
            images = (torch.from_numpy(pixels[chosen]).float()[:, None] / 255 - DIGITS_MEAN) / DIGITS_STD
            (F.cross_entropy(network(images), torch.from_numpy(labels[chosen])) / 2).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    trained = torch.load(tmp_path / "weights-0.pt", weights_only=True)
    ours = torch.cat([trained[name].flatten() for name, _ in network.named_parameters()])
    theirs = torch.cat([weights.detach().flatten() for weights in network.parameters()])
    # Adam divides by the gradient's size: where that is rounding error, so is the direction of the step.
    assert (ours - theirs).norm() < 0.01 * (theirs - start).norm()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_rank_saves_and_ends_all_and_the_run_resumes_exactly(
    forks: Forks, unbroken: Unbroken, digits_dir: Path, tmp_path: Path, rank: int
) -> None:
    step = STEPS + 3
    assert forks.run(tmp_path, options(digits_dir), fault=f"{rank} {step} SIGTERM") == [143, 143]
    assert content(tmp_path / "checkpoints" / "version_0")["global_step"] == step + 1
    printed = [
        (tmp_path / f"out-{process}.txt").read_text().count("SIGTERM: saved after step 12") for process in (0, 1)
    ]
    assert printed == [1, 0]
    assert forks.run(tmp_path, ["fit", "--ckpt_path", "last"]) == [0, 0], (tmp_path / "err-0.txt").read_text()
    assert_runs_equal(tmp_path, unbroken)


def test_three_ranks_resume_exactly_although_their_sums_depend_on_the_order(
    forks: Forks, digits_dir: Path, tmp_path: Path
) -> None:
    for name, fault in (("unbroken", None), ("stopped", "1 7 SIGTERM")):
        (tmp_path / name).mkdir()
        codes = forks.run(tmp_path / name, options(digits_dir, processes=3), processes=3, fault=fault)
        assert codes == [143 if fault else 0] * 3
    assert content(tmp_path / "stopped" / "checkpoints" / "version_0")["global_step"] == 8
    assert forks.run(tmp_path / "stopped", ["fit", "--ckpt_path", "last"], processes=3) == [0, 0, 0]
    assert_runs_equal(tmp_path / "stopped", Unbroken(tmp_path / "unbroken"))


def test_a_loss_that_is_not_finite_on_one_rank_ends_all(forks: Forks, digits_dir: Path, tmp_path: Path) -> None:
    assert forks.run(tmp_path, options(digits_dir), fault=f"1 {STEPS + 3} nan") == [3, 3]
    assert len(errors(tmp_path)) == 1
    assert f"step {STEPS + 3}: the loss is nan" in errors(tmp_path)[0]
    weights = content(tmp_path / "checkpoints" / "version_0")["state_dict"].values()
    assert all(value.isfinite().all() for value in weights)


def test_a_killed_rank_0_ends_the_other_and_the_run_resumes_exactly(
    forks: Forks, unbroken: Unbroken, digits_dir: Path, tmp_path: Path
) -> None:
    killed, other = forks.run(tmp_path, options(digits_dir), fault=f"0 {STEPS + 5} SIGKILL")
    assert killed == -9
    assert other != 0
    assert content(tmp_path / "checkpoints" / "version_0")["global_step"] == 12
    assert forks.run(tmp_path, ["fit", "--ckpt_path", "last"]) == [0, 0], (tmp_path / "err-0.txt").read_text()
    assert_runs_equal(tmp_path, unbroken)


def test_the_number_of_processes_cannot_change_in_mid_epoch(
    forks: Forks, command: Command, digits_dir: Path, tmp_path: Path
) -> None:
    assert forks.run(tmp_path, options(digits_dir), fault=f"0 {STEPS + 3} SIGTERM") == [143, 143]
    outcome = command("fit", "--ckpt_path", "last", "--trainer.devices", "1", "--trainer.strategy", "auto")
    assert outcome.code == 2
    assert "was saved in mid-epoch on 2 processes and cannot be resumed on 1" in outcome.err
    (ended,) = (tmp_path / "checkpoints" / "version_0").glob("epoch=00-val*.ckpt")
    outcome = command("fit", "--ckpt_path", str(ended), "--trainer.devices", "1", "--trainer.strategy", "auto")
    assert outcome.code == 0, outcome.err
    assert "processes: 2 when saved, 1 now: results will differ" in outcome.out


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def test_a_killed_rank_that_lightning_launched_ends_the_job_and_the_run_resumes_exactly(
    forks: Forks, unbroken: Unbroken, digits_dir: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", MODULE, *options(digits_dir)],
        cwd=tmp_path, env=environment(**{FAULT: f"1 {STEPS + 5} SIGKILL"}),
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode != 0, done.stderr
    assert forks.run(tmp_path, ["fit", "--ckpt_path", "last"]) == [0, 0], (tmp_path / "err-0.txt").read_text()
    assert_runs_equal(tmp_path, unbroken)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's list of threads")
def test_no_thread_of_the_process_group_outlives_the_command(unbroken: Unbroken) -> None:
    for rank in range(2):  # such a thread can abort the process while the interpreter ends
        assert "gloo" in (unbroken.root / f"threads-training-{rank}.txt").read_text()
        assert "gloo" not in (unbroken.root / f"threads-end-{rank}.txt").read_text()


def test_two_agents_of_torchrun_train_like_one_machine(unbroken: Unbroken, digits_dir: Path, tmp_path: Path) -> None:
    port = free_port()
    agents = [
        subprocess.Popen(
            [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1",
                "--node_rank", str(node), "--rdzv_backend", "static", "--rdzv_endpoint", f"127.0.0.1:{port}",
                "--master_addr", "127.0.0.1", "--master_port", str(port),
                "-m", MODULE, *options(digits_dir, processes=1), "--trainer.num_nodes", "2",
            ],
            cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    printed = [agent.communicate(timeout=600)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], "\n".join(printed)
    assert_runs_equal(tmp_path, unbroken)
