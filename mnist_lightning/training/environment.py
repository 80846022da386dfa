"""The environment that the bits of a run depend on besides its options: versions, device, precision. No Lightning."""

from typing import Literal

import torch
from torch import nn

from mnist_lightning.models.cnn import SimpleCNN
from mnist_lightning.models.kernels.conv_pool_relu import NO_KERNELS, kernel_set


def environment(device: torch.device, precision: str) -> dict[str, str]:
    """Return what must be equal for a resumed run to reproduce the bits of an unbroken one."""
    return {
        "torch": str(torch.__version__),
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "kernels": kernel_set() if device.type == "cpu" else NO_KERNELS,
        "precision": precision,
    }


def device_name(device: torch.device) -> str:
    """Return a description of a device, such as `cpu (AMD EPYC, 2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        name = torch.cpu.get_capabilities().get("cpu_name", "unknown CPU")
        return f"cpu ({name}, {torch.get_num_threads()} threads)"
    return str(device)


def uses_kernels(network: nn.Module) -> bool:
    """Return whether a network trains with the fused kernels on this machine's CPU."""
    return kernel_set() != NO_KERNELS and has_blocks(network)


def has_blocks(network: nn.Module) -> bool:
    """Return whether a network consists of the blocks that the fused kernels compute."""
    return any(isinstance(module, SimpleCNN) for module in network.modules())


def native_precision(*, on_gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """Return bfloat16 if the device supports it natively; emulated, it would be slower than float32.

    Networks with kernels (see `uses_kernels`) train in float32: on an AVX-512 Xeon a step of 64 then took 0.9 of the
    time of one with the same kernels under bfloat16 autocast, and 0.4 of that of one with torch's kernels in bfloat16
    (`python -m benchmarks.kernels`). A CPU without bfloat16 has no choice. Not measured with AMX.
    """
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16-mixed" if native else "32-true"
