"""`export`: write a trained network to a file that other programs run, and prove that it computes the same.

What the file formats are is for `formats` to say. Nothing heavy is imported before it is needed: `--help` answers at
once.
"""

import argparse
import json
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mnist_lightning import atomic_write
from mnist_lightning.console import CommandParser
from mnist_lightning.errors import CheckpointError, ConfigError, StorageError

if TYPE_CHECKING:
    from mnist_lightning.inference.network import TrainedNetwork

# The packages that each format takes beyond those of training.
PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pt2": (), "safetensors": ("safetensors",)}

DESCRIPTION = """\
Write a trained network to a file, read it back in its own runtime, and compare it with the checkpoint on test images:
labels must be the same on all of them, outputs up to rounding. A file that differs is not written (exit code 6).

  onnx         runs in onnxruntime and many others
  pt2          runs in torch, without this package
  safetensors  the weights alone, for SimpleCNN

ONNX and pt2 take uint8 pixels (N, 28, 28), white on black, and give float32 logits and probabilities (N, classes).
A network that was trained on folders of pictures takes (N, S, S), or (N, S, S, 3) in red, green and blue."""


def main(args: list[str]) -> int:
    """Run the command; return its exit code.

    Args:
        args: The command line after `export`.

    Raises:
        ConfigError: If options do not go together, or a package is missing.
        CheckpointError: If there is no checkpoint to export, or the file would not compute what it does.
        DatasetError: If the test images to compare on are damaged.
        StorageError: If the file cannot be written.
    """
    options = _parser().parse_args(args)
    missing = [package for package in PACKAGES[options.format] if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--format {options.format} needs {', '.join(missing)}: pip install 'mnist-lightning[export]'"
        )
    if options.output and options.output.suffix != f".{options.format}":
        raise ConfigError(f"--output {options.output} must end in .{options.format}, or pass another --format")
    if options.latency and options.format == "safetensors":
        raise ConfigError("--latency compares runtimes with PyTorch, and PyTorch is what runs safetensors")
    _export(options)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "export", DESCRIPTION, "export --format onnx --ckpt_path version_3/best --output digits.onnx"
    )
    parser.add_argument("--format", choices=PACKAGES, default="onnx", help="what to write (default: onnx)")
    parser.add_argument(
        "--ckpt_path",
        default="best",
        metavar="CHECKPOINT",
        help="best or last of the newest run, version_3/best, or a file (default: best)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="file to write (default: beside the checkpoint)")
    parser.add_argument(
        "--data.data_dir",
        dest="data_dir",
        type=Path,
        metavar="FOLDER",
        help="data folder whose test images to compare on (default: the run's, else the bundled MNIST)",
    )
    parser.add_argument("--latency", action="store_true", help="time batches of 1 and 256 images against PyTorch")
    return parser


def _export(options: argparse.Namespace) -> None:
    from mnist_lightning.inference.export import formats, latency, verify
    from mnist_lightning.inference.network import load_network
    from mnist_lightning.inference.pixel_network import torch_runtime

    trained = load_network(options.ckpt_path)
    if options.data_dir and trained.schema.origin:
        raise ConfigError(
            "--data.data_dir is for MNIST and its family; this network was trained on folders of pictures"
        )
    data_dir = options.data_dir or trained.data_dir
    output = options.output or trained.path.with_suffix(f".{options.format}")
    _check_writable(output.parent)
    if trained.schema.origin:
        images, origin = verify.read_pictures(trained.schema, trained.root / trained.schema.origin.path)
    else:
        images, origin = verify.read_test_images(trained.dataset, data_dir)
    form = formats.FORMATS[options.format]
    _show_progress(f"making {output}, which takes some ten seconds")
    network = trained.pixel_network
    data = form.write(network, _metadata(trained, data_dir))
    exported, reference = form.read(data), torch_runtime(network)
    result = verify.compare(exported, reference, images, trained.network.fc1.in_features)
    if not result.matches:
        raise CheckpointError(
            f"{output} would not compute what {trained.path} does: {result.other_labels} of {result.count:,} labels "
            f"differ, outputs by up to {result.difference:.1e} (rounding explains {result.bound:.1e}); not written"
        )
    try:
        atomic_write.replace_file(output, data)
    except OSError as error:
        raise StorageError(f"cannot write {output} ({len(data):,} bytes): {error.strerror or error}") from error
    print(f"{output}: {len(data):,} bytes, from {trained.path} (epoch {trained.epoch})")
    print(
        f"read back by {form.runtime} and compared with the checkpoint on {result.count:,} images of {origin}:\n"
        f"same labels on all, outputs differ by at most {result.difference:.1e} (rounding explains {result.bound:.1e})"
    )
    if options.latency:
        print(latency.table(latency.measure({form.runtime: exported, "PyTorch": reference}, images)))


def _metadata(trained: "TrainedNetwork", data_dir: Path | None) -> dict[str, str]:
    """Return what the file says of itself; every value is a text, and a list or table is JSON."""
    from mnist_lightning.runs import verification

    metadata = {
        "class_names": json.dumps(trained.schema.class_names),
        "pixel_mean": repr(trained.schema.mean),
        "pixel_std": repr(trained.schema.std),
        "temperature": repr(trained.calibration.temperature),
        "checkpoint_sha256": verification.sha256(trained.path),
        "epoch": str(trained.epoch),
        "made_by": f"mnist-lightning {version('mnist-lightning')}",
    }
    if trained.run:
        metadata["run"] = trained.run.name
    if trained.schema.origin:
        metadata["data_sha256"] = trained.schema.origin.sha256
        return metadata
    folder = data_dir / trained.dataset.folder / "raw" if data_dir else None
    if folder and all((folder / file.name).is_file() for file in trained.dataset.files):
        metadata["data_sha256"] = json.dumps(
            {file.name: verification.sha256(folder / file.name) for file in trained.dataset.files}
        )
    return metadata


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StorageError(f"cannot write into {folder}: {error.strerror}; pass another --output") from error


def _show_progress(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
