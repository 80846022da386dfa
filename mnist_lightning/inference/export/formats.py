"""The file formats of exported networks: how each is written, and how its own runtime reads it back, both as bytes."""

import io
import json
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mnist_lightning.inference.pixel_network import PixelNetwork, Runtime, torch_runtime
from mnist_lightning.models.class_path import build
from mnist_lightning.models.cnn import SimpleCNN

# The lowest that torch's exporter writes without conversion. onnxruntime 1.19, the first for numpy 2, can read it.
ONNX_OPSET = 18


@dataclass(frozen=True)
class Format:
    """How a network and its metadata become a file's bytes, and how the runtime of that name runs these bytes."""

    runtime: str
    write: Callable[[PixelNetwork, Mapping[str, str]], bytes]
    read: Callable[[bytes], Runtime]


def _write_onnx(network: PixelNetwork, metadata: Mapping[str, str]) -> bytes:
    import onnx

    program = torch.onnx.export(
        _traced(network),
        dynamo=True,
        opset_version=ONNX_OPSET,
        input_names=["images"],
        output_names=["logits", "probabilities"],
        verbose=False,
    )
    assert program is not None  # it is None only if a file name is passed
    model = program.model_proto
    graph = model.graph
    for element in (*graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        element.ClearField("metadata_props")  # contains the paths of this machine's source files
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _read_onnx(data: bytes) -> Runtime:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return lambda images: tuple(session.run(["logits", "probabilities"], {"images": images}))


def _write_pt2(network: PixelNetwork, metadata: Mapping[str, str]) -> bytes:
    program = _traced(network)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains the paths of this machine's source files
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"metadata.json": json.dumps(dict(metadata))})
    return buffer.getvalue()


def _read_pt2(data: bytes) -> Runtime:
    return torch_runtime(torch.export.load(io.BytesIO(data)).module())


def _write_safetensors(network: PixelNetwork, metadata: Mapping[str, str]) -> bytes:
    from safetensors.torch import save

    return save(network.network.state_dict(), dict(metadata))


def _read_safetensors(data: bytes) -> Runtime:
    from safetensors.torch import load

    # https://huggingface.co/docs/safetensors: eight bytes with the length of a JSON header, then the header.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    weights = load(data)
    class_path = header["__metadata__"].get("network")
    network = build(json.loads(class_path), nn.Module) if class_path else _simple_cnn(weights)
    network.load_state_dict(weights)
    mean, std, temperature = (
        float(header["__metadata__"][name]) for name in ("pixel_mean", "pixel_std", "temperature")
    )
    return torch_runtime(PixelNetwork(network.eval(), mean, std, temperature))


def _simple_cnn(weights: Mapping[str, Tensor]) -> nn.Module:
    return SimpleCNN(
        num_classes=len(weights["fc2.bias"]),
        in_channels=weights["conv1.weight"].shape[1],
        image_size=4 * math.isqrt(weights["fc1.weight"].shape[1] // 64),  # halved twice, which drops up to 3 pixels
    )


def _traced(network: PixelNetwork) -> torch.export.ExportedProgram:
    """Return the network's operations for any number of images, at least one."""
    example = torch.zeros(2, *network.shape, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        # torch's pytree warns about a name that torch itself uses.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        return torch.export.export(network, (example,), dynamic_shapes=({0: batch},))


FORMATS = {
    "onnx": Format("onnxruntime", _write_onnx, _read_onnx),
    "pt2": Format("torch.export", _write_pt2, _read_pt2),
    "safetensors": Format("safetensors and SimpleCNN", _write_safetensors, _read_safetensors),
}
