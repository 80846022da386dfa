"""The processes that train together: which one writes, what they agree on, and what is told when one of them ends.

Lightning starts them, or torchrun, SLURM or the user does; it computes and exchanges. What is here is what it leaves
out: before they speak to each other each knows whether it is the first, and none waits in vain for one that is gone.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.fabric.utilities.distributed import _set_num_threads_if_needed
from lightning.pytorch import Trainer
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed import DistError
from torch.nn.parallel import DistributedDataParallel

from mnist_lightning.console import print_stderr
from mnist_lightning.errors import ProcessLostError

# Set by torchrun, Lightning's launcher, a person who starts one process a machine, and SLURM.
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
PARENT = "MNIST_LIGHTNING_PARENT"  # the environment variable with the id of the process that started this one
LOOK_S = 1.0  # between two looks at the other processes of this machine
GRACE_S = 30.0  # for a process to notice by itself that another has ended, and to say so


def is_first() -> bool:
    """Tell whether this process is the one that writes: the first of those that train together, or the only one."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def greatest(trainer: Trainer, numbers: list[int]) -> list[int]:
    """Return, of each number, the greatest that any process has; all call this at the same point of their work."""
    if trainer.world_size == 1:
        return numbers
    tensor = torch.tensor(numbers, device=trainer.strategy.root_device)
    together: list[int] = trainer.strategy.reduce(tensor, reduce_op="max").tolist()
    return together


def gathered(trainer: Trainer, number: Tensor) -> Tensor:
    """Return the numbers () of all processes as (processes,), or the only one as it is."""
    if trainer.world_size == 1:
        return number
    numbers = torch.zeros(trainer.world_size, dtype=number.dtype, device=number.device)
    numbers[trainer.global_rank] = number
    together: Tensor = trainer.strategy.reduce(numbers, reduce_op="sum")
    return together


def settle_gradient_groups(trainer: Trainer, images: Tensor) -> None:
    """Let DDP settle now how it groups gradients for their exchange, by a backward pass that nothing comes of.

    It does so after the first one in a process's life. Three numbers in another group are summed in another order, so
    the first step of a resumed run would differ in its last bits from that of an unbroken one.
    """
    model = trainer.strategy.model
    if isinstance(model, DistributedDataParallel):
        modes = {module: module.training for module in model.modules()}
        model.eval()  # so that no running statistics move
        model(images).sum().backward()
        model.zero_grad()
        for module, mode in modes.items():
            module.training = mode


class Launcher(_SubprocessScriptLauncher):
    """Start the other processes of this machine, and end with a line when one of all is lost.

    Lightning's own kills this process with them (SIGKILL), without a word and whatever it was about to save or say.
    """

    advice = ""  # what to do when a process is lost
    started: ClassVar[list["subprocess.Popen[bytes]"]] = []  # once: they take part in all trainings of this process

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        """Run a function in all processes.

        Raises:
            ProcessLostError: If another process has ended while this one needed it.
        """
        if trainer and trainer.state.fn == TrainerFn.FITTING:
            self.advice = "; fit --ckpt_path last goes on from what was saved last"
        self.cluster_environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not self.cluster_environment.creates_processes_externally:
            os.environ[PARENT] = str(os.getpid())
            self._call_children_scripts()
            Launcher.started = self.procs
            _watch(lambda: any(child.poll() for child in self.procs), self._tell_and_end)
        elif _has_parent():
            _watch(lambda: not _has_parent(), self._tell_and_end)
        self.procs = Launcher.started
        _set_num_threads_if_needed(num_processes=self.num_processes)
        try:
            return function(*args, **kwargs)
        except RuntimeError as error:
            if not _is_lost_connection(error):
                self.kill(signal.SIGKILL)
                raise
            self._wait_for_the_end_of_another()
            lost = self._lost()
            self.kill(signal.SIGKILL)
            raise lost from error
        except BaseException:
            self.kill(signal.SIGKILL)  # nothing they have is lost: this process saves
            raise

    def _lost(self) -> ProcessLostError:
        """Return what to say of the process that has ended."""
        for rank, child in enumerate(self.procs, start=1):
            if child.returncode:
                return ProcessLostError(f"process {rank} of this run {_ending(child)}{self.advice}", child.returncode)
        return ProcessLostError(f"another process of this run has ended or cannot be reached{self.advice}")

    def _wait_for_the_end_of_another(self) -> None:
        """Wait until the system knows what the broken connection told, and, of two that noticed, for the first."""
        until_s = time.monotonic() + GRACE_S
        while time.monotonic() < until_s:
            if any(child.poll() for child in self.procs) or not (self.procs or _has_parent()):
                return
            time.sleep(0.05)

    def _tell_and_end(self) -> None:
        lost = self._lost()
        self.kill(signal.SIGKILL)
        print_stderr(f"error: {lost}")
        os._exit(lost.exit_code)


def _watch(is_lost: Callable[[], bool], end: Callable[[], None]) -> None:
    """Look after the other processes from a thread: one that waits for an accelerator hears of nothing."""

    def look() -> None:
        while not is_lost():
            time.sleep(LOOK_S)
        time.sleep(GRACE_S)
        end()

    threading.Thread(target=look, daemon=True, name="other processes").start()


def _has_parent() -> bool:
    """Tell whether this process was started by another of the same training, which is still there."""
    return os.environ.get(PARENT) == str(os.getppid())


def _is_lost_connection(error: RuntimeError) -> bool:
    """Tell whether this is how torch says that another process did not answer; gloo has no class for it."""
    return isinstance(error, DistError) or "/gloo/" in str(error)


def _ending(child: "subprocess.Popen[bytes]") -> str:
    if child.returncode < 0:
        return f"(pid {child.pid}) was killed by {signal.Signals(-child.returncode).name}"
    return f"(pid {child.pid}) has ended with exit code {child.returncode}"
