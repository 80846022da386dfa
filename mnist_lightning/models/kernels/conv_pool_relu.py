"""Convolution, pooling and ReLU in one operation: in torch, and on a CPU by the kernels of `conv_pool_relu.c`.

`pip install` compiles the C file for several instruction sets if there is a C compiler. Without the libraries, on other
devices, and for layers and shapes that the kernels do not take, torch computes the same.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning.errors import ConfigError

VARIABLE = "MNIST_LIGHTNING_KERNELS"  # auto, the default, or off
# The libraries for what torch says of the CPU, longest vectors first; a shorter one takes what the first cannot.
LIBRARIES = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}
NO_KERNELS = "torch"
LEAST_OUTPUTS = 40_000  # of the convolution; for one or two images of MNIST torch is as fast
MOST_FLOATS = 2**31 - 1  # of an image with its rim: the kernels number them by int32


def conv_pool_relu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Return `relu(max_pool2d(conv(x), 2))`, by the fused kernels where they can be used.

    They take float32 on a CPU, 3×3 convolutions with padding 1 and a bias, output channels in multiples of 4 to 16
    (the length of a vector), even heights and widths, and more than an image or two. Under
    autocast the result is float32 then.

    Args:
        x: float (B, C, H, W).
        conv: The convolution, C to O channels.

    Returns:
        float (B, O, H // 2, W // 2), channels_last if the kernels computed it.
    """
    if _takes(conv, x):
        pooled: Tensor = fused(x, conv.weight, conv.bias)[0]
        return pooled
    # Max pooling and ReLU commute; pooling first leaves ReLU a quarter of the work.
    return F.relu(F.max_pool2d(conv(x), 2))


def kernel_set() -> str:
    """Return the name of the kernels in use, such as `avx512`; `torch` if these are torch's own."""
    return next(iter(_libraries()), NO_KERNELS)


def describe() -> str:
    """Return what computes the blocks on a CPU, and why if it is torch."""
    if (name := kernel_set()) != NO_KERNELS:
        return f"fused kernels ({name})"
    if os.environ.get(VARIABLE) == "off":
        return f"torch's kernels ({VARIABLE} is off)"
    return "torch's kernels (the faster ones were not compiled: install gcc or clang and this package again)"


@cache
def _libraries() -> dict[str, ctypes.CDLL]:
    """Load the libraries for this CPU."""
    wanted = os.environ.get(VARIABLE, "auto")
    if wanted not in ("auto", "off"):
        raise ConfigError(f"the environment variable {VARIABLE} must be auto or off, got {wanted!r}")
    names = LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ()) if wanted == "auto" else ()
    found = {name: library for name in names if (library := load(Path(__file__).parent / f"{name}.so"))}
    if not found and wanted == "auto" and (library := load(Path(__file__).parent / "baseline.so")):
        found["baseline"] = library
    return found


def load(path: Path) -> ctypes.CDLL | None:
    """Return a library of the kernels; None if the file is missing or does not fit this machine."""
    try:
        # Its OpenMP functions are those of torch, which is loaded: one pool of threads. Its C functions need no GIL.
        library = ctypes.CDLL(str(path))
    except OSError:
        return None
    library.forward.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_ssize_t] * 5 + [ctypes.c_int]
    library.backward.argtypes = [ctypes.c_void_p] * 7 + [ctypes.c_ssize_t] * 5 + [ctypes.c_int]
    return library


def _library(channels: int) -> ctypes.CDLL | None:
    """Return the library with the longest vectors that divide a number of output channels."""
    return next((library for library in _libraries().values() if channels % library.lanes() == 0), None)


def _takes(conv: nn.Conv2d, x: Tensor) -> bool:
    """Return whether the kernels compute the same as torch for this layer and input."""
    if type(conv) is not nn.Conv2d or type(x) is not Tensor or x.device.type != "cpu" or x.dim() != 4:
        return False
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if tracing or torch.compiler.is_exporting():  # exported programs consist of torch's operators
        return False
    if torch._C._functorch.peek_interpreter_stack() is not None:  # torch.func: it transforms torch's operators only
        return False
    # A hook on the layer expects that the layer is called (private names, but torch has no public ones).
    if conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks:
        return False
    batch, channels, height, width = x.shape
    return (
        x.dtype == conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
        and conv.bias is not None
        and (conv.kernel_size, conv.padding, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1), (1, 1))
        and (conv.groups, conv.padding_mode, conv.in_channels) == (1, "zeros", channels)
        and height % 2 == width % 2 == 0
        and batch * height * width * conv.out_channels >= LEAST_OUTPUTS
        and (height + 2) * (width + 2) * channels <= MOST_FLOATS
        and _library(conv.out_channels) is not None
    )


@torch.library.custom_op("mnist_lightning::conv_pool_relu", mutates_args=(), device_types="cpu")
def fused(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return the block's output, and the winner of each pooling window (uint8; 4 where ReLU returned 0)."""
    x, weight, bias = _dense(x), _dense(weight), bias.contiguous()
    pooled, winner = _empty(x, weight)
    _run("forward", (x, weight, bias, pooled, winner), x, weight)
    return pooled, winner


@torch.library.custom_op("mnist_lightning::conv_pool_relu_backward", mutates_args=(), device_types="cpu")
def fused_backward(
    gradient: Tensor, winner: Tensor, x: Tensor, weight: Tensor, of_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of input (of no elements unless `of_input`), weight and bias."""
    gradient, winner, x, weight = _dense(gradient), _dense(winner), _dense(x), _dense(weight)
    gradients: tuple[Tensor, Tensor, Tensor] = _empty_gradients(gradient, winner, x, weight, of_input)
    to_input = gradients[0] if of_input else None
    _run("backward", (gradient, winner, x, weight, to_input, *gradients[1:]), x, weight)
    return gradients


def _run(name: str, tensors: tuple[Tensor | None, ...], x: Tensor, weight: Tensor) -> None:
    library = _library(weight.shape[0])
    if library is None:
        raise ConfigError(f"no fused kernels for {weight.shape[0]} output channels on this machine")
    batch, channels, height, width = x.shape
    pointers = [None if tensor is None else tensor.data_ptr() for tensor in tensors]
    sizes = batch, height, width, channels, weight.shape[0], torch.get_num_threads()
    if getattr(library, name)(*pointers, *sizes):
        raise MemoryError(f"no memory for the convolution of {batch} inputs of {channels}×{height}×{width}")


def _dense(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


@fused.register_fake
def _empty(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    shape = x.shape[0], weight.shape[0], x.shape[2] // 2, x.shape[3] // 2
    pooled = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return pooled, torch.empty_like(pooled, dtype=torch.uint8)


@fused_backward.register_fake
def _empty_gradients(
    gradient: Tensor, winner: Tensor, x: Tensor, weight: Tensor, of_input: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dense = torch.channels_last
    of_x = torch.empty_like(x, memory_format=dense) if of_input else x.new_empty(0)
    return of_x, torch.empty_like(weight, memory_format=dense), weight.new_empty(weight.shape[0])


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, gradient: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, winner = ctx.saved_tensors
    if torch.is_grad_enabled():  # the gradients are differentiated again (create_graph): torch knows how
        inputs = x, weight, bias
        wanted = [tensor for tensor, needed in zip(inputs, ctx.needs_input_grad, strict=True) if needed]
        pooled = F.relu(F.max_pool2d(F.conv2d(x, weight, bias, padding=1), 2))
        found = iter(torch.autograd.grad(pooled, wanted, gradient, create_graph=True))
        return tuple(next(found) if needed else None for needed in ctx.needs_input_grad)
    of_input, *others = fused_backward(gradient, winner, x, weight, ctx.needs_input_grad[0])
    return of_input if ctx.needs_input_grad[0] else None, *others


fused.register_autograd(_differentiate, setup_context=_save)
fused.register_autocast("cpu", torch.float32)
