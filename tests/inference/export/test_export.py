import dataclasses
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import mnist_lightning
from mnist_lightning import Classifier, SimpleCNN
from mnist_lightning.data.mnist import idx
from mnist_lightning.inference.export import command as command_module
from mnist_lightning.inference.export import formats
from mnist_lightning.inference.export.verify import compare
from mnist_lightning.inference.pixel_network import PixelNetwork, Runtime
from tests.conftest import DIGITS_MEAN, DIGITS_STD, TEST_COUNT, Command, Outcome
from tests.inference.conftest import CALIBRATION, TrainedRun

GUIDE = Path(mnist_lightning.__file__).parents[1] / "docs" / "guide.md"
SUFFIXES = ("onnx", "pt2", "safetensors")


@pytest.fixture(scope="module")
def exported(trained_run: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `digits.onnx`, `digits.pt2` and `digits.safetensors`."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained_run.root)
        for suffix in SUFFIXES:
            assert command_module.main(["--format", suffix, "--output", str(folder / f"digits.{suffix}")]) == 0
    return folder


@pytest.fixture
def images(trained_run: TrainedRun) -> NDArray[np.uint8]:
    return idx.read_images(trained_run.data_dir / "MNIST" / "raw" / "t10k-images-idx3-ubyte")


def expected_logits(run: TrainedRun, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The logits of the network as Lightning loads it, normalised by its training file."""
    classifier = Classifier.load_from_checkpoint(run.best, weights_only=True).eval()
    with torch.inference_mode():
        logits: NDArray[np.float32] = classifier(
            torch.tensor((images[:, None] / 255 - DIGITS_MEAN) / DIGITS_STD).float()
        ).numpy()
    return logits


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    quotient: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return quotient


def test_onnxruntime_computes_the_same_as_lightning_for_any_batch_size(
    trained_run: TrainedRun, exported: Path, images: NDArray[np.uint8]
) -> None:
    session = onnxruntime.InferenceSession(exported / "digits.onnx")
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [28, 28])
    assert [given.name for given in session.get_outputs()] == ["logits", "probabilities"]
    expected = expected_logits(trained_run, images)
    likely = softmax(expected / CALIBRATION.temperature)
    for count in (1, 2, 17, TEST_COUNT):
        logits, probabilities = session.run(None, {"images": images[:count]})
        # Logits of up to 10 and sums of up to 3,136 products in another order: some units in the last place.
        np.testing.assert_allclose(logits, expected[:count], rtol=0, atol=1e-4)
        np.testing.assert_allclose(probabilities, likely[:count], rtol=0, atol=1e-4)


def test_torch_alone_runs_the_pt2_file(trained_run: TrainedRun, exported: Path, images: NDArray[np.uint8]) -> None:
    module = torch.export.load(exported / "digits.pt2").module()
    expected = expected_logits(trained_run, images)
    likely = softmax(expected / CALIBRATION.temperature)
    for count in (1, 2, TEST_COUNT):
        logits, probabilities = module(torch.from_numpy(images[:count]))
        np.testing.assert_allclose(logits.detach(), expected[:count], rtol=0, atol=1e-4)
        np.testing.assert_allclose(probabilities.detach(), likely[:count], rtol=0, atol=1e-4)


def test_safetensors_contains_the_weights_under_the_labs_names(trained_run: TrainedRun, exported: Path) -> None:
    weights = load_file(exported / "digits.safetensors")
    SimpleCNN().load_state_dict(weights)
    saved = torch.load(trained_run.best, weights_only=True)["state_dict"]
    assert all(torch.equal(value, saved[f"network.{name}"]) for name, value in weights.items())


def metadata_of(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".pt2":
        extra = {"metadata.json": ""}
        torch.export.load(path, extra_files=extra)
        return dict(json.loads(extra["metadata.json"]))
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_name_the_run_the_data_and_the_classes(trained_run: TrainedRun, exported: Path, suffix: str) -> None:
    metadata = metadata_of(exported / f"digits.{suffix}")
    raw = trained_run.data_dir / "MNIST" / "raw"
    assert json.loads(metadata.pop("data_sha256")) == {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in raw.iterdir()
    }
    assert json.loads(metadata.pop("class_names")) == list("0123456789")
    assert metadata == {
        "run": "version_0",
        "epoch": str(torch.load(trained_run.best, weights_only=True)["epoch"]),
        "checkpoint_sha256": hashlib.sha256(trained_run.best.read_bytes()).hexdigest(),
        "pixel_mean": str(DIGITS_MEAN),
        "pixel_std": str(DIGITS_STD),
        "temperature": "2.0",
        "made_by": f"mnist-lightning {mnist_lightning.__version__}",
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_contains_no_paths_of_this_machine(exported: Path, suffix: str) -> None:
    data = (exported / f"digits.{suffix}").read_bytes()
    if suffix == "pt2":
        assert all(info.compress_type == zipfile.ZIP_STORED for info in zipfile.ZipFile(io.BytesIO(data)).infolist())
    assert b"formats.py" not in data
    assert str(GUIDE.parents[1]).encode() not in data


def test_the_guides_onnx_example_runs_without_this_package_and_torch(exported: Path, images: NDArray[np.uint8]) -> None:
    (code,) = re.findall(r"```python\n(import .*?onnxruntime.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) <= 10
    Image.fromarray(images[7]).save(exported / "digit.png")
    block = "import sys; sys.modules['torch'] = sys.modules['mnist_lightning'] = None\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block + code.replace("checkpoints/version_0/best.onnx", "digits.onnx")],
        cwd=exported, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "7"  # the small data's images 0, 1, 2 … show 0, 1, 2 …


def run_export(command: Command, run: TrainedRun, monkeypatch: pytest.MonkeyPatch, *args: str) -> Outcome:
    """Export the trained run as safetensors, which is fast."""
    monkeypatch.chdir(run.root)
    return command("export", "--format", "safetensors", *args)


def test_the_output_reports_the_file_and_the_comparison(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "x.safetensors"
    outcome = run_export(command, trained_run, monkeypatch, "--output", str(output))
    assert outcome.code == 0, outcome.err
    assert f"{output}: {output.stat().st_size:,} bytes, from checkpoints/version_0/best.ckpt" in outcome.out
    assert f"on {TEST_COUNT} images of {trained_run.data_dir}" in outcome.out
    assert "same labels on all, outputs differ by at most 0.0e+00" in outcome.out
    assert list(tmp_path.iterdir()) == [output], "no temporary file is left"


@pytest.mark.slow
def test_without_the_runs_data_the_bundled_mnist_is_compared_and_no_data_hash_is_written(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = tmp_path / "x.safetensors"
    nowhere = tmp_path / "nowhere"
    args = ("--output", str(output), "--data.data_dir", str(nowhere))
    outcome = run_export(command, trained_run, monkeypatch, *args)
    assert outcome.code == 0, outcome.err
    assert "on 10,000 images of the bundled MNIST" in outcome.out
    assert not nowhere.exists()
    assert "data_sha256" not in metadata_of(output)


def test_a_file_that_does_not_compute_the_same_is_not_written(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    correct = formats.FORMATS["safetensors"]

    def write(network: PixelNetwork, metadata: Mapping[str, str]) -> bytes:
        return correct.write(network, {**metadata, "pixel_mean": "0.1300"})

    monkeypatch.setitem(formats.FORMATS, "safetensors", dataclasses.replace(correct, write=write))
    output = tmp_path / "x.safetensors"
    outcome = run_export(command, trained_run, monkeypatch, "--output", str(output))
    assert outcome.code == 6
    assert f"{output} does not compute the same as" in outcome.err
    assert not list(tmp_path.iterdir())
    output.write_text("an earlier file")
    assert run_export(command, trained_run, monkeypatch, "--output", str(output)).code == 6
    assert output.read_text() == "an earlier file"


@pytest.mark.parametrize(
    ("logits", "matches"),
    [
        ([[0.0, 8.0], [8.0, 0.0]], True),
        ([[0.0, 8.00002], [8.0, 0.0]], True),  # 2.5e-6 of the largest
        ([[0.0, 8.001], [8.0, 0.0]], False),  # 1.2e-4 of the largest
        ([[0.0, 8.0], [0.0, 8.0]], False),
        ([[0.0, 8.0], [8.0, float("nan")]], False),
    ],
)
def test_a_comparison_tolerates_rounding_only(logits: list[list[float]], matches: bool) -> None:
    expected = np.array([[0.0, 8.0], [8.0, 0.0]], dtype=np.float32)
    found = np.array(logits, dtype=np.float32)
    images = np.array([0, 1], dtype=np.uint8).reshape(2, 1, 1)  # which row to return

    def runtime(rows: NDArray[np.float32]) -> Runtime:
        return lambda images: (rows[images[:, 0, 0]], softmax(rows[images[:, 0, 0]]).astype(np.float32))

    result = compare(runtime(found), runtime(expected), images)
    assert result.count == 2
    assert result.matches == matches


def test_a_full_disk_exits_5_and_keeps_the_earlier_file(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    output = tmp_path / "x.safetensors"
    output.write_text("an earlier file")
    monkeypatch.setattr(os, "fsync", fail)
    outcome = run_export(command, trained_run, monkeypatch, "--output", str(output))
    assert outcome.code == 5
    assert f"cannot write {output}" in outcome.err
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier file"]


def test_a_missing_output_folder_exits_5(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = run_export(command, trained_run, monkeypatch, "--output", "missing/x.safetensors")
    assert outcome.code == 5
    assert "cannot write missing/x.safetensors: its folder is missing" in outcome.err


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime", "safetensors"])
def test_a_missing_package_is_one_line_that_names_the_extra(
    command: Command, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setattr(command_module, "find_spec", lambda name: None if name == package else object())
    outcome = command("export", "--format", "safetensors" if package == "safetensors" else "onnx")
    assert outcome.code == 2
    assert len(outcome.err.splitlines()) == 1
    assert f"needs {package}: pip install 'mnist-lightning[export]'" in outcome.err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--formt", "onnx"], 2, "unknown option --formt; did you mean --format?"),
        (["--output=x", "--ckpt", "best"], 2, "unknown option --ckpt; did you mean --ckpt_path?"),
        (["--format", "onx"], 2, "--format must be one of onnx, pt2, safetensors, got onx; did you mean onnx?"),
        (["--format"], 2, "--format: expected one argument"),
        (["--output", "digits.pt"], 2, "--output digits.pt must end in .onnx, or pass another --format"),
        ([], 6, "there is no run"),
        (["--ckpt_path", "missing.ckpt"], 6, "missing.ckpt: no such checkpoint file"),
    ],
)
def test_a_usage_error_is_one_line_and_writes_nothing(
    command: Command, tmp_path: Path, args: list[str], code: int, message: str
) -> None:
    outcome = command("export", *args)
    assert outcome.code == code
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_corrupted_test_images_exit_4(
    command: Command, trained_run: TrainedRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"no images")
    outcome = run_export(command, trained_run, monkeypatch, "--data.data_dir", str(tmp_path))
    assert outcome.code == 4
    assert "t10k-images-idx3-ubyte" in outcome.err


def test_the_command_line_offers_all_formats() -> None:
    assert list(command_module.PACKAGES) == list(formats.FORMATS)


def test_help_ends_with_an_example(command: Command) -> None:
    outcome = command("export", "--help")
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].startswith("  python -m mnist_lightning export --")
