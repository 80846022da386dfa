"""The environment that the bits of a run depend on besides its options: versions, device, precision. No Lightning."""

from typing import Literal

import torch


def environment(device: torch.device, precision: str) -> dict[str, str]:
    """Return what must be equal for a resumed run to reproduce the bits of an unbroken one."""
    return {
        "torch": str(torch.__version__),
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
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


def native_precision(*, on_gpu: bool) -> Literal["bf16-mixed", "32-true"]:
    """Return bfloat16 if the device supports it natively; emulated, it would be slower than float32."""
    if on_gpu:
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return "bf16-mixed" if native else "32-true"
