import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import CDLL
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnist_lightning import SimpleCNN
from mnist_lightning.models.kernels import conv_pool_relu as kernels
from mnist_lightning.models.kernels.conv_pool_relu import conv_pool_relu

FOLDER = Path(kernels.__file__).parent
BUILT = [path.stem for path in sorted(FOLDER.glob("*.so"))]
RUNS_HERE = {"baseline", *kernels.LIBRARIES.get(torch.backends.cpu.get_cpu_capability(), ())}
AVAILABLE = [name for name in BUILT if name in RUNS_HERE]
# Batch, channels in and out, height and width: those of MNIST, and what each path of the C file meets at its edges.
SHAPES = [(3, 1, 32, 28, 28), (2, 32, 64, 14, 14), (5, 3, 16, 8, 6), (4, 16, 48, 4, 2), (1, 20, 32, 6, 6),
          (3, 48, 16, 10, 8), (7, 8, 8, 2, 2), (0, 16, 16, 4, 4)]  # fmt: skip

pytestmark = pytest.mark.skipif(
    not AVAILABLE, reason="the kernels are not compiled: python setup.py build_ext --inplace"
)


@pytest.fixture(autouse=True)
def small_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "LEAST_OUTPUTS", 0)


@contextmanager
def use(*names: str) -> Iterator[None]:
    """Use the libraries of these names and no others."""
    loaded = {name: library for name in names if (library := kernels.load(FOLDER / f"{name}.so"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_libraries", lambda: loaded)
        yield


def block(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, nn.Conv2d]:
    batch, channels, out_channels, height, width = shape
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, out_channels, 3, padding=1)
    images = torch.randn(batch, channels, height, width)
    return images.to(dtype).requires_grad_(), conv.to(dtype)


def in_torch(x: Tensor, conv: nn.Conv2d) -> Tensor:
    return F.relu(F.max_pool2d(conv(x), 2))


def results(pooled: Tensor, x: Tensor, conv: nn.Conv2d, gradient: Tensor) -> list[Tensor]:
    """Return the output and the gradients of input, weight and bias."""
    return [pooled, *torch.autograd.grad(pooled, (x, *conv.parameters()), gradient.to(pooled.dtype))]


def uses_kernel(pooled: Tensor) -> bool:
    return "conv_pool_relu" in type(pooled.grad_fn).__name__


@pytest.mark.parametrize("name", AVAILABLE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_gradients_are_those_of_torch(shape: tuple[int, ...], name: str) -> None:
    (x, conv), (exact_x, exact_conv) = block(shape), block(shape)
    exact_x, exact_conv = exact_x.detach().double().requires_grad_(), exact_conv.double()
    gradient = torch.randn(shape[0], shape[2], shape[3] // 2, shape[4] // 2).relu()  # zeros, as after dropout
    with use(name):
        pooled = conv_pool_relu(x, conv)
    assert uses_kernel(pooled) == (shape[2] % kernels.load(FOLDER / f"{name}.so").lanes() == 0)  # type: ignore[union-attr]
    with use(name):
        ours = results(pooled, x, conv, gradient)
    exact = results(in_torch(exact_x, exact_conv), exact_x, exact_conv, gradient)
    theirs = results(in_torch(x, conv), x, conv, gradient)
    for our, reference, their in zip(ours, exact, theirs, strict=True):
        scale = reference.abs().max().item() if reference.numel() else 0
        assert our.shape == their.shape
        torch.testing.assert_close(our.double(), reference, rtol=0, atol=1e-6 * scale)
        torch.testing.assert_close(our, their, rtol=0, atol=2e-6 * scale)


@pytest.mark.parametrize("channels", [1, 32])
def test_ties_send_the_gradient_to_one_of_the_equal_outputs(channels: int) -> None:
    conv = nn.Conv2d(channels, 16, 3, padding=1)
    x = torch.ones(1, channels, 8, 8, requires_grad=True)  # in the middle, the four outputs of a window are equal
    pooled = conv_pool_relu(x, conv)
    torch.testing.assert_close(pooled, in_torch(x, conv), rtol=1e-5, atol=1e-6)
    (bias_gradient,) = torch.autograd.grad(pooled.sum(), conv.bias)  # type: ignore[arg-type]
    assert torch.equal(bias_gradient, (pooled > 0).sum((0, 2, 3)).float())


@pytest.mark.parametrize("channels", [1, 32])
def test_not_a_number_reaches_the_output_and_the_gradient(channels: int) -> None:
    x, conv = block((2, channels, 16, 8, 8))
    with torch.no_grad():
        x[0, 0, 3, 3] = torch.nan
    pooled, theirs = conv_pool_relu(x, conv), in_torch(x, conv)
    assert bool(pooled[0].isnan()[theirs[0].isnan()].all())
    assert not pooled[1].isnan().any()
    gradient = torch.autograd.grad(pooled[1].sum() * torch.nan, conv.weight)[0]
    assert gradient.isnan().any()


def test_a_number_of_threads_gives_the_same_bits_each_time_and_each_image_the_same_in_any_batch() -> None:
    threads = torch.get_num_threads()
    images, labels = torch.randn(9, 1, 28, 28), torch.arange(9)
    network = SimpleCNN(conv_dropout=0, fc_dropout=0)
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            runs = [
                torch.autograd.grad(F.cross_entropy(network(images), labels), tuple(network.parameters()))
                for _ in range(3)
            ]
            assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
            blocks = conv_pool_relu(images, network.conv1)
            alone = torch.cat([conv_pool_relu(image[None], network.conv1) for image in images])
            assert torch.equal(blocks, alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck reads
def test_the_network_can_be_copied_autocast_compiled_and_differentiated_twice() -> None:
    x, conv = block((2, 1, 16, 8, 8))
    copied = copy.deepcopy(conv)
    assert torch.equal(conv_pool_relu(x, copied), conv_pool_relu(x, conv))
    with torch.autocast("cpu", torch.bfloat16):
        pooled = conv_pool_relu(x, conv)
    assert pooled.dtype == torch.float32
    assert torch.equal(pooled, conv_pool_relu(x, conv))
    compiled = torch.compile(conv_pool_relu, backend="aot_eager", fullgraph=True)(x, conv)
    assert torch.equal(compiled, pooled)
    for block_of, second in ((conv_pool_relu, []), (in_torch, [])):  # type: ignore[var-annotated]
        (first,) = torch.autograd.grad(block_of(x, conv).square().sum(), x, create_graph=True)
        second += torch.autograd.grad(first.square().sum(), (x, conv.weight))
        if block_of is conv_pool_relu:
            ours = second
    for our, their in zip(ours, second, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-3, atol=1e-3 * their.abs().max().item())
    torch.library.opcheck(kernels.fused, (x, conv.weight, conv.bias))


def test_transforms_of_torch_func_use_torch() -> None:
    network, images = SimpleCNN(conv_dropout=0, fc_dropout=0), torch.randn(2, 1, 28, 28)
    parameters: dict[str, Tensor] = dict(network.named_parameters())

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(network, parameters, image[None])
        return logits.square().sum()

    of_each = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, images)
    (theirs,) = torch.autograd.grad(network(images).square().sum(), network.conv1.weight)
    torch.testing.assert_close(of_each["conv1.weight"].sum(0), theirs, rtol=1e-3, atol=1e-4)


def test_exported_programs_consist_of_torch_operators() -> None:
    program = torch.export.export(SimpleCNN().eval(), (torch.zeros(2, 1, 28, 28),))
    assert not [node for node in program.graph.nodes if "mnist_lightning" in str(node.target)]


@pytest.mark.parametrize(
    ("x", "conv"),
    [
        (torch.randn(2, 1, 9, 8), nn.Conv2d(1, 16, 3, padding=1)),
        (torch.randn(1, 8, 8), nn.Conv2d(1, 16, 3, padding=1)),
        (torch.randn(2, 1, 8, 8), nn.Conv2d(1, 10, 3, padding=1)),
        (torch.randn(2, 1, 8, 8), nn.Conv2d(1, 16, 3, padding=1, bias=False)),
        (torch.randn(2, 1, 8, 8), nn.Conv2d(1, 16, 3, padding=1, padding_mode="reflect")),
        (torch.randn(2, 1, 8, 8).double(), nn.Conv2d(1, 16, 3, padding=1).double()),
        (torch.randn(2, 32, 8, 8), nn.Conv2d(32, 32, 3, padding=1, groups=2)),
    ],
)
def test_torch_computes_what_the_kernels_do_not_take(x: Tensor, conv: nn.Conv2d) -> None:
    pooled = conv_pool_relu(x, conv)
    assert not uses_kernel(pooled)
    assert torch.equal(pooled, in_torch(x, conv))


def test_hooks_of_a_layer_run() -> None:
    x, conv = block((2, 1, 16, 8, 8))
    seen: list[torch.Size] = []
    conv.register_forward_hook(lambda _module, _args, out: seen.append(out.shape))
    conv_pool_relu(x, conv)
    assert seen == [(2, 16, 8, 8)]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads the loaded libraries from Linux")
def test_a_process_has_one_pool_of_threads() -> None:
    script = "import torch; from mnist_lightning import SimpleCNN; SimpleCNN()(torch.zeros(9, 1, 28, 28))\n"
    script += "print(*{line.split()[-1] for line in open('/proc/self/maps') if 'omp' in line.rpartition('/')[2]})"
    libraries = subprocess.check_output([sys.executable, "-c", script], text=True).split()
    assert len(libraries) == 1


@pytest.mark.parametrize("reason", ["off", "not compiled"])
def test_without_the_libraries_torch_computes_and_says_why(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason == "off":
        monkeypatch.setenv(kernels.VARIABLE, "off")
        monkeypatch.setattr(kernels, "_libraries", kernels._libraries.__wrapped__)
    else:
        monkeypatch.setattr(kernels, "_libraries", lambda: {})
    x, conv = block(SHAPES[0])
    assert torch.equal(conv_pool_relu(x, conv), in_torch(x, conv))
    assert kernels.kernel_set() == "torch"
    assert reason in kernels.describe()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["-mavx2", "-mfma"], ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"]])
def test_the_sanitizers_find_nothing(flags: list[str], tmp_path: Path) -> None:
    if len(flags) > {"AVX512": 4, "AVX2": 2}.get(torch.backends.cpu.get_cpu_capability(), 0):
        pytest.skip("this CPU lacks the instructions")
    library = tmp_path / f"{AVAILABLE[0]}.so"  # under the name of a library that the tests use
    sanitize = [
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
        "-O1",
        "-g",
        "-fopenmp",
        "-shared",
        "-fPIC",
    ]
    source = [str(FOLDER / "conv_pool_relu.c"), "-o", str(library)]
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", *sanitize, *flags, *source], check=True
    )
    find = ["gcc", "-print-file-name=libasan.so", "-print-file-name=libstdc++.so"]  # torch throws C++ exceptions
    runtimes = [subprocess.check_output([find[0], name], text=True).strip() for name in find[1:]]
    script = (
        "from pathlib import Path; from tests.models.kernels import test_conv_pool_relu as t\n"
        "t.kernels.LEAST_OUTPUTS = 0\n"
        f"t.FOLDER = Path({str(tmp_path)!r})\n"
        f"for shape in t.SHAPES: t.test_output_and_gradients_are_those_of_torch(shape, {AVAILABLE[0]!r})\n"
        "t.test_not_a_number_reaches_the_output_and_the_gradient(32)\n"
    )
    environment = {**os.environ, "LD_PRELOAD": " ".join(runtimes), "ASAN_OPTIONS": "detect_leaks=0"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, cwd=FOLDER.parents[2])


def test_a_library_that_cannot_be_loaded_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "avx2.so").write_bytes(b"not a library")
    assert kernels.load(tmp_path / "avx2.so") is None
    assert isinstance(kernels.load(FOLDER / f"{AVAILABLE[0]}.so"), CDLL)
