"""The command `export`: write a trained network to a file for other programs, and verify that it computes the same.

Heavy modules are imported when they are needed, so that `--help` is fast.
"""

import json
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning.atomic_write import check_output_file, write_output_file
from mnist_lightning.console import CommandParser
from mnist_lightning.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from mnist_lightning.data.image_schema import ImageSchema
    from mnist_lightning.inference.network import TrainedNetwork

# The packages that each format needs in addition to those needed for training.
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ("safetensors",)}

DESCRIPTION = """\
Write a trained network to a file, read the file back in its own runtime, and compare it with the checkpoint on test
images: all predicted labels must be equal, and all outputs equal up to rounding. Otherwise the file is not written, and
the exit code is 6.

  onnx         runs in onnxruntime and many other runtimes
  pt2          runs in torch, without this package
  safetensors  contains the weights only, for SimpleCNN

ONNX and pt2 take uint8 pixels (N, 28, 28), white on black, and return float32 logits and probabilities (N, classes).
A network that was trained on folders of images takes (N, S, S), or RGB (N, S, S, 3)."""


def main(args: list[str]) -> int:
    """Run the command with the arguments after `export`; return its exit code."""
    options = _parser().parse_args(args)
    if missing := ", ".join(package for package in PACKAGES[options.format] if find_spec(package) is None):
        raise ConfigError(f"--format {options.format} needs {missing}: pip install 'mnist-lightning[export]'")
    if options.output and options.output.suffix != f".{options.format}":
        raise ConfigError(f"--output {options.output} must end in .{options.format}, or pass another --format")
    from mnist_lightning.data.image_schema import ImageSchema
    from mnist_lightning.inference.export import verify
    from mnist_lightning.inference.export.formats import FORMATS
    from mnist_lightning.inference.network import load_network
    from mnist_lightning.inference.pixel_network import torch_runtime

    trained = load_network(ImageSchema, options.ckpt_path)
    if options.data_dir and trained.schema.origin:
        raise ConfigError("--data.data_dir is for MNIST and its variants; this network was trained on image folders")
    data_dir = options.data_dir or trained.data_dir
    output = options.output or trained.path.with_suffix(f".{options.format}")
    check_output_file(output)
    if trained.schema.origin:
        images, source = verify.read_folder_images(trained.schema, trained.root / trained.schema.origin.path)
    else:
        images, source = verify.read_test_images(trained.dataset, data_dir)
    if sys.stderr.isatty():
        print(f"exporting to {output}, which takes about ten seconds", file=sys.stderr)
    file_format, network = FORMATS[options.format], trained.pixel_network
    data = file_format.write(network, _metadata(trained, data_dir))
    exported, reference = file_format.read(data), torch_runtime(network)
    result = verify.compare(exported, reference, images, verify.longest_sum(network))
    if not result.matches:
        raise CheckpointError(
            f"{output} does not compute the same as {trained.path}: {result.different_labels} of {result.count:,} "
            f"labels differ, outputs by up to {result.difference:.1e} (rounding explains {result.bound:.1e}); "
            "not written"
        )
    write_output_file(output, data)
    print(
        f"{output}: {len(data):,} bytes, from {trained.path} (epoch {trained.epoch})\n"
        f"read back by {file_format.runtime} and compared with the checkpoint on {result.count:,} images of {source}:\n"
        f"same labels on all, outputs differ by at most {result.difference:.1e} (rounding explains {result.bound:.1e})"
    )
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "export", DESCRIPTION, "export --format onnx --ckpt_path version_3/best --output digits.onnx"
    )
    parser.add_argument("--format", choices=PACKAGES, default="onnx", help="file format (default: onnx)")
    parser.add_checkpoint_option()
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: beside the checkpoint)")
    parser.add_argument(
        "--data.data_dir",
        dest="data_dir",
        type=Path,
        metavar="FOLDER",
        help="data folder with the test images for the comparison (default: the run's, else the bundled MNIST)",
    )
    return parser


def _metadata(trained: "TrainedNetwork[ImageSchema]", data_dir: Path | None) -> dict[str, str]:
    """Return the metadata of the file; all values are strings, with lists and mappings as JSON."""
    from mnist_lightning.runs import checkpoint_verification

    metadata = {
        "class_names": json.dumps(trained.schema.class_names),
        "pixel_mean": repr(trained.schema.mean),
        "pixel_std": repr(trained.schema.std),
        "temperature": repr(trained.calibration.temperature),
        "checkpoint_sha256": checkpoint_verification.sha256(trained.path),
        "epoch": str(trained.epoch),
        "made_by": f"mnist-lightning {version('mnist-lightning')}",
    }
    if trained.class_path:
        metadata["network"] = json.dumps(trained.class_path)
    if trained.run:
        metadata["run"] = trained.run.name
    if trained.schema.origin:
        metadata["data_sha256"] = trained.schema.origin.sha256
    elif data_dir:
        folder = data_dir / trained.dataset.folder / "raw"
        digests = {file.name: checkpoint_verification.sha256(folder / file.name) for file in trained.dataset.files}
        if all(digests.values()):
            metadata["data_sha256"] = json.dumps(digests)
    return metadata
