"""Checkpoints made by an attacker are refused with exit code 6, by every way in; nothing in them runs."""

import builtins
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch

from mnist_lightning import SimpleCNN
from mnist_lightning.runs import checkpoint_verification, run_folders
from mnist_lightning.runs.manifest import Entry, manifest_text
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO
from tests.conftest import Command
from tests.faults.watch import CANARY, listing, unharmed, watch
from tests.training.bits import assert_same

RUN = Path("checkpoints/version_0")

Content = dict[str, Any]


class Payload:
    """Unpickles by calling a function, as an attack would."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


PAYLOADS: dict[str, Callable[[Path], Payload]] = {
    "mkdir": lambda canary: Payload(os.mkdir, str(canary)),
    "eval": lambda canary: Payload(builtins.eval, f"__import__('os').mkdir({str(canary)!r})"),
    "exec": lambda canary: Payload(builtins.exec, f"import os; os.mkdir({str(canary)!r})"),
    "system": lambda canary: Payload(os.system, f"mkdir {canary}"),
}


def test_the_watch_detects_each_payload(tmp_path: Path) -> None:
    with watch() as events:
        for payload in PAYLOADS.values():
            with suppress(OSError):
                pickle.loads(pickle.dumps(payload(tmp_path / CANARY)))
    assert {event.split()[0] for event in events} == {"os.mkdir", "os.system", "exec", "compile"}
    (tmp_path / CANARY).rmdir()


# What torch.save writes: a real checkpoint with something changed.


def weight(content: Content, name: object, value: object) -> Content:
    return content | {"state_dict": content["state_dict"] | {name: value}}


def hyper(content: Content, name: object, value: object) -> Content:
    return content | {"hyper_parameters": content["hyper_parameters"] | {name: value}}


def without(content: Content, key: str) -> Content:
    return {name: value for name, value in content.items() if name != key}


def beside_the_weights(name: str, content: Content, canary: Path) -> Content:
    return content | {"x": PAYLOADS[name](canary)}


BIAS = "network.fc2.bias"

CONTENTS: dict[str, Callable[[Content, Path], object]] = {
    # Code.
    **{f"{name}-beside-the-weights": partial(beside_the_weights, name) for name in PAYLOADS},
    "code-for-a-weight": lambda content, canary: weight(content, BIAS, PAYLOADS["mkdir"](canary)),
    "code-in-hyper-parameters": lambda content, canary: hyper(content, "lr", PAYLOADS["eval"](canary)),
    "code-in-callbacks": lambda content, canary: content | {"callbacks": {"x": PAYLOADS["mkdir"](canary)}},
    # Weights.
    "nan": lambda content, _: weight(content, BIAS, torch.full((10,), float("nan"))),
    "infinity": lambda content, _: weight(content, "network.conv1.weight", torch.full((32, 1, 3, 3), float("inf"))),
    "wrong-shape": lambda content, _: weight(content, "network.fc2.weight", torch.zeros(11, 128)),
    "another-network": lambda content, _: content | {"state_dict": torch.nn.Linear(2, 2).state_dict()},
    "weights-without-the-prefix": lambda content, _: content | {"state_dict": SimpleCNN().state_dict()},
    "more-of-the-network": lambda content, _: weight(content, "network.fc3.weight", torch.zeros(1)),
    "more-beside-the-network": lambda content, _: weight(content, "backdoor.weight", torch.zeros(1)),
    "no-tensor": lambda content, _: weight(content, BIAS, "zeros"),
    "meta-tensor": lambda content, _: weight(content, BIAS, torch.zeros(10, device="meta")),
    "sparse-tensor": lambda content, _: weight(content, BIAS, torch.zeros(10).to_sparse()),
    "complex-tensor": lambda content, _: weight(content, BIAS, torch.zeros(10, dtype=torch.complex64)),
    "newline-in-a-name": lambda content, _: weight(content, "network.a\n\x1b[2Jerror: b", torch.zeros(1)),
    "name-is-a-number": lambda content, _: weight(content, 7, torch.zeros(1)),
    # Structure.
    "no-state-dict": lambda content, _: without(content, "state_dict"),
    "state-dict-is-a-list": lambda content, _: content | {"state_dict": [1, 2]},
    "only-weights": lambda content, _: content["state_dict"],
    "a-list": lambda content, _: [content],
    "a-tensor": lambda content, _: torch.zeros(3),
    "untrained": lambda content, _: content | {"global_step": 0},
    "step-is-text": lambda content, _: content | {"global_step": "many"},
    "no-epoch": lambda content, _: without(content, "epoch"),
}

# What only a checkpoint outside any run is read for: a run has its config.
HYPER_PARAMETERS: dict[str, Callable[[Content, Path], object]] = {
    "instantiator": lambda content, _: hyper(content, "_instantiator", "os.system"),
    "class-path": lambda content, _: hyper(content, "_class_path", "subprocess.Popen"),
    "nested-class-path": lambda content, canary: hyper(
        content, "lr", {"class_path": "os.system", "init_args": {"command": f"mkdir {canary}"}}
    ),
    "options-in-hyper-parameters": lambda content, _: hyper(content, "lr=1 --config", "evil.yaml"),
    "no-hyper-parameters": lambda content, _: without(content, "hyper_parameters"),
    "hyper-parameters-are-a-list": lambda content, _: content | {"hyper_parameters": ["lr", 1]},
    "hyper-parameter-is-a-number": lambda content, _: hyper(content, 5, "five"),
    "hyper-parameters-without-lr": lambda content, _: content | {"hyper_parameters": {"seed": 0}},
}


# What torch.save does not write.


class ClaimPickler(pickle.Pickler):
    """Writes storages as torch does, with any size they claim."""

    def persistent_id(self, obj: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", obj.numel) if isinstance(obj, Claim) else None


class Claim:
    """A storage that claims a number of items."""

    def __init__(self, numel: int) -> None:
        self.numel = numel


class ClaimedTensor:
    """A tensor whose header claims any size, shape and stride."""

    def __init__(self, numel: int, shape: int, stride: int) -> None:
        self.args = (Claim(numel), 0, (shape,), (stride,), False, OrderedDict[str, Any]())

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, self.args


def claim(numel: int, shape: int, stride: int) -> bytes:
    """Return a pickle whose one weight claims a size."""
    buffer = io.BytesIO()
    ClaimPickler(buffer, protocol=2).dump({"state_dict": {BIAS: ClaimedTensor(numel, shape, stride)}, "epoch": 0})
    return buffer.getvalue()


def zip_of(pickled: bytes, more: Mapping[str, bytes] = MappingProxyType({}), *, packed: bool = False) -> bytes:
    """Return a zip file with the layout of a file of torch.save."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        members = {"data.pkl": pickled, "byteorder": b"little", "data/0": bytes(16), "version": b"3\n", **more}
        for name, data in members.items():
            archive.writestr(f"archive/{name}", data)
    return buffer.getvalue()


def old_format(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(b""))
    return buffer.getvalue()


EMPTY = pickle.dumps({}, protocol=2)

FILES: dict[str, Callable[[Path], bytes]] = {
    "pickle-protocol-4": lambda canary: pickle.dumps(PAYLOADS["mkdir"](canary), protocol=4),
    "pickle-in-zip": lambda canary: zip_of(pickle.dumps(PAYLOADS["system"](canary), protocol=2)),
    "second-pickle": lambda canary: zip_of(EMPTY, {"constants.pkl": pickle.dumps(PAYLOADS["mkdir"](canary))}),
    "old-torch-format": lambda canary: old_format({"x": PAYLOADS["mkdir"](canary)}),
    "old-torch-format-harmless": lambda _: old_format({"state_dict": SimpleCNN().state_dict()}),
    "tar": lambda _: tar(),
    "torchscript": lambda _: zip_of(EMPTY, {"code/__torch__.py": b"import os", "constants.pkl": b"\x80\x02)."}),
    "path-traversal": lambda _: zip_of(EMPTY, {f"../../../{CANARY}/x": b"x"}),
    "zip-bomb": lambda _: zip_of(bytes(2**26), packed=True),
    "claims-a-storage": lambda _: zip_of(claim(10**12, 10**12, 1)),
    "claims-a-shape": lambda _: zip_of(claim(4, 10**12, 1)),
    "claims-a-repetition": lambda _: zip_of(claim(4, 10**12, 0)),
    "claims-less-than-nothing": lambda _: zip_of(claim(-4, -4, 1)),
    "bytearray-of-a-terabyte": lambda _: zip_of(
        b"\x80\x02cbuiltins\nbytearray\n\x8a\x08" + (10**12).to_bytes(8, "little") + b"\x85R."
    ),
    "deep-nesting": lambda _: zip_of(b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."),
    "storage-without-a-type": lambda _: zip_of(b"\x80\x02K\x01Q."),
    "text": lambda _: b"not a checkpoint",
    "empty": lambda _: b"",
    "empty-zip": lambda _: b"PK\5\6" + bytes(18),
}

NO_FILES: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "symlink-loop": lambda path: path.symlink_to(path.name),
    "more-than-a-gibibyte": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**30 + 1),  # of nothing
}

ATTACKS = [*CONTENTS, *FILES, *NO_FILES]


def put(path: Path, attack: str, content: Content, canary: Path) -> None:
    """Write an attack to a path, without running its payload."""
    if attack in CONTENTS:
        torch.save(CONTENTS[attack](content, canary), path)
    elif attack in FILES:
        path.write_bytes(FILES[attack](canary))
    else:
        NO_FILES[attack](path)


# The ways in: a file that is named, or a run's checkpoints, with or without a manifest.

WAYS = (
    "test --ckpt_path attack.ckpt",
    "validate --ckpt_path attack.ckpt",
    "fit --ckpt_path attack.ckpt",
    "test, without a manifest",
    "fit --ckpt_path last, without a manifest",
    "test, with a forged manifest",
    "fit --ckpt_path last, with a forged manifest",
    "test, with the manifest of another file",
    "fit --ckpt_path last, with the manifest of another file",
)

# All pairs take minutes; the quick tests run every seventh attack, each in another way.
PAIRS = [
    pytest.param(attack, way, marks=[] if number % 7 == turn % 9 == number // 7 % 9 else pytest.mark.slow)
    for number, attack in enumerate(ATTACKS)
    for turn, way in enumerate(WAYS)
]


def refuse(command: Command, root: Path, *line: str, codes: tuple[int, ...] = (6,)) -> str:
    """Run a command, check that it is refused and leaves no files, and return its message."""
    before = listing(root)
    with unharmed(root):
        outcome = command(*line)
    assert outcome.code in codes, outcome.err
    *notes, error = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert all("corrupted" in note or "checkpoint" in note for note in notes)
    assert len(notes) <= 2
    assert outcome.err.replace("\n", "").isprintable()
    assert [name for name in listing(root) if not name.endswith(".lock")] == before
    return outcome.err


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that makes torch and Lightning unpickle anything."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")


@pytest.mark.parametrize(("attack", "way"), PAIRS)
@pytest.mark.usefixtures("careless")
def test_an_attack_is_refused_by_every_way_in_and_runs_nothing(
    attack: str, way: str, trained: Content, digits_dir: Path, command: Command, tmp_path: Path
) -> None:
    line, _, manifest = way.partition(", ")
    place = partial(put, attack=attack, content=trained, canary=tmp_path / CANARY)
    if not manifest:
        place(tmp_path / "attack.ckpt")
    else:
        (tmp_path / RUN).mkdir(parents=True)
        for name in ("best.ckpt", "last.ckpt", "epoch=00.ckpt"):
            place(tmp_path / RUN / name)
        logs = tmp_path / "lightning_logs" / RUN.name
        logs.mkdir(parents=True)
        (logs / "config.yaml").write_text("seed_everything: 0\n")
    if "manifest of" in manifest or "forged" in manifest:
        digest = checkpoint_verification.sha256(tmp_path / RUN / "last.ckpt") if "forged" in manifest else "0" * 64
        entry = Entry("epoch=00.ckpt", digest, 0, 7, {"val_acc": 0.9, "val_loss": 0.1})
        (tmp_path / RUN / "manifest.json").write_text(manifest_text([entry]))
    # With small data, so that a command that is not refused ends soon.
    data = ["--data.data_dir", str(digits_dir), "--data.val_size", "60", "--data.source", "files"]
    refuse(command, tmp_path, *line.split(), *data)


@pytest.mark.parametrize("attack", HYPER_PARAMETERS)
def test_forged_hyper_parameters_are_refused(attack: str, trained: Content, command: Command, tmp_path: Path) -> None:
    torch.save(HYPER_PARAMETERS[attack](trained, tmp_path / CANARY), tmp_path / "a.ckpt")
    refuse(command, tmp_path, "test", "--ckpt_path", "a.ckpt", codes=(2, 6))


@pytest.mark.parametrize(
    "changes",
    [
        {"lr": "fast"},
        {"lr": float("nan")},
        {"lr": {"class_path": "os.system"}},
        {"lr": "/etc/passwd"},
        {"seed": None},
        {"seed": 10**40},
        {"fc_dropout": [0.1, 0.2]},
    ],
    ids=str,
)
def test_hyper_parameters_with_invalid_values_are_refused(
    changes: Content, trained: Content, command: Command, tmp_path: Path
) -> None:
    torch.save(trained | {"hyper_parameters": trained["hyper_parameters"] | changes}, tmp_path / "a.ckpt")
    # They are parsed as options, so the error may be that of an option.
    refuse(command, tmp_path, "test", "--ckpt_path", "a.ckpt", codes=(2, 6))


REFERENCES = [
    "http://127.0.0.1:9/x.ckpt", "HTTPS://127.0.0.1:9/x.ckpt", "file://{root}/attack.ckpt", "s3://bucket/x.ckpt",
    "memory://x.ckpt", "registry", "registry:model:version:1", "hpc", "auto", "version_0/best", "version_99999999/last",
    f"version_{'9' * 5000}/last", "x" * 300, ".", "..", "/dev/null", "/dev/zero", "/proc/self/mem", "a\x1b[2J",
]  # fmt: skip


@pytest.mark.parametrize("name", ["test", pytest.param("fit", marks=pytest.mark.slow)])
@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_to_anything_but_a_local_file_is_refused(
    reference: str, name: str, command: Command, tmp_path: Path
) -> None:
    torch.save({"x": PAYLOADS["mkdir"](tmp_path / CANARY)}, tmp_path / "attack.ckpt")
    refuse(command, tmp_path, name, "--ckpt_path", reference.format(root=tmp_path))


def manifest_with(**changes: object) -> str:
    entry: dict[str, object] = {"file": "a", "sha256": "", "epoch": 0, "global_step": 1, "metrics": {}}
    return json.dumps({"checkpoints": [entry | changes]})


MANIFESTS = {
    "a-list": "[]",
    "deep": "[" * 10**5,
    "a-number": '{"checkpoints": 7}',
    "entry-is-text": '{"checkpoints": ["x"]}',
    "strange-fields": '{"checkpoints": [{"a": 1}]}',
    "file-is-a-number": manifest_with(file=5),
    "digest-is-a-list": manifest_with(sha256=[]),
    "step-is-text": manifest_with(global_step="y"),
    "metrics-are-a-number": manifest_with(metrics=3),
    "metrics-are-text": manifest_with(metrics={"val_acc": "x"}),
    "outside": manifest_with(file="../../.."),
    "huge-number": '{"checkpoints": [' + "9" * 5000 + "]}",
    "no-text": "\udcff",
}


@pytest.mark.parametrize("line", ["test", pytest.param("fit --ckpt_path last", marks=pytest.mark.slow)])
@pytest.mark.parametrize("text", MANIFESTS.values(), ids=MANIFESTS)
def test_a_forged_manifest_does_not_bypass_the_checks_of_a_checkpoint(
    text: str, line: str, command: Command, tmp_path: Path
) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "manifest.json").write_text(text, errors="surrogateescape")
    (tmp_path / RUN / "last.ckpt").write_text("not a checkpoint")
    assert len(refuse(command, tmp_path, *line.split())) < 1000


@pytest.mark.parametrize("name", ["manifest.json", "best.ckpt", "epoch=00.ckpt"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "symlink-loop"])
def test_a_folder_or_pipe_beside_good_checkpoints_does_not_stop_the_program(
    kind: str, name: str, trained: Content, tmp_path: Path
) -> None:
    run = run_folders.create(tmp_path)
    content = trained | {"metrics": {"val_acc": 0.9, "val_loss": 0.1}}
    DurableCheckpointIO().save_checkpoint(content, run.checkpoints / "epoch=00.ckpt")
    (run.checkpoints / name).unlink()
    NO_FILES[kind](run.checkpoints / name)
    with unharmed(tmp_path):
        for found in (run.best(), run.last()):
            assert_same(checkpoint_verification.read_checkpoint(found), content)
