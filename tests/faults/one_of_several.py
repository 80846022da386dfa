"""The command line as one process of several: little to score, a record of what it did, and a fault on demand.

As a program it runs one command. With `--fork` it reads commands from stdin and forks the processes of each, which
spares them the seconds that importing takes.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import Tensor

import mnist_lightning.cli.lightning_cli
import mnist_lightning.data.mnist.datamodule
from mnist_lightning import Classifier
from mnist_lightning.cli.main import main
from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.sampler import ShuffledSampler
from mnist_lightning.data.samples import Batch

FAULT = "FAULT_OF_A_PROCESS"  # such as `1 11 SIGTERM`: what befalls process 1 in the step after 11 others
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
original_batch, original_step = BatchLoader._batch, Classifier.training_step


def rank() -> int:
    """Return the number of this process, whoever started it."""
    return int(next((os.environ[name] for name in RANKS if name in os.environ), "0"))


def batch(self: BatchLoader, number: int, positions: Tensor) -> Batch:
    """Serve a batch, and note which images a training batch is of."""
    if isinstance(self.sampler, ShuffledSampler):
        chosen = self.dataset.indices[positions]
        with Path(f"served-{rank()}.txt").open("a") as file:
            file.write(f"{json.dumps([self.sampler.epoch, chosen.tolist()])}\n")
    return original_batch(self, number, positions)


def training_step(self: Classifier, images_and_labels: Batch, batch_idx: int) -> Tensor:
    """Take a step, and suffer the fault where it is due."""
    loss = original_step(self, images_and_labels, batch_idx)
    process, step, fault = os.environ.get(FAULT, "-1 -1 none").split()
    if (int(process), int(step)) == (rank(), self.global_step):
        if fault == "nan":
            return loss * float("nan")
        os.kill(os.getpid(), signal.Signals[fault])
    return loss


def on_fit_end(self: Classifier) -> None:
    """Leave the weights that this process ends with."""
    torch.save(self.network.state_dict(), f"weights-{rank()}.pt")
    note_threads("training")


def note_threads(name: str) -> None:
    """Note the names of the threads of this process, those of PyTorch included."""
    names = sorted(path.read_text() for path in Path("/proc/self/task").glob("*/comm"))
    Path(f"threads-{name}-{rank()}.txt").write_text("".join(names))


def run(args: list[str]) -> None:
    """Run a command."""
    mnist_lightning.data.image_schema.EVAL_PIXELS = 10 * 28**2
    BatchLoader._batch = batch  # type: ignore[method-assign]
    Classifier.training_step = training_step  # type: ignore[method-assign,assignment]
    Classifier.on_fit_end = on_fit_end  # type: ignore[method-assign,assignment]
    main(args)


def serve() -> None:
    """Fork the processes of each command that is read, and print their exit codes."""
    for line in sys.stdin:
        command = json.loads(line)
        children = [fork(command["args"], command["folder"], environment) for environment in command["environments"]]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


def fork(args: list[str], folder: str, environment: dict[str, str]) -> int:
    """Start a process; return its id."""
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(environment)
        for stream, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(f"{name}-{rank()}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        sys.argv = ["mnist-lightning", *args]
        try:
            run(args)
        except SystemExit as stop:
            sys.stdout.flush()
            note_threads("end")
            os._exit(stop.code if isinstance(stop.code, int) else 1)
    return child


if __name__ == "__main__":
    if sys.argv[1:] == ["--fork"]:
        serve()
    else:
        run(sys.argv[1:])
