"""What the bits of a training run depend on besides its settings."""

import torch


def environment(device: torch.device, precision: str) -> dict[str, str]:
    """Return what must be the same for a resumed run to give the same bits, in words.

    Args:
        device: Where the network is.
        precision: The Trainer's precision.
    """
    return {
        "torch": str(torch.__version__),
        "device": device_name(device),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "precision": precision,
    }


def device_name(device: torch.device) -> str:
    """Return a device in words, such as `cpu (AMD EPYC, 2 threads)`."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        name = torch.cpu.get_capabilities().get("cpu_name", "unknown processor")
        return f"cpu ({name}, {torch.get_num_threads()} threads)"
    return str(device)
