import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mnist_lightning import SimpleCNN
from mnist_lightning.errors import CheckpointError, StorageError
from mnist_lightning.runs import run_folders
from mnist_lightning.training.checkpoint_io import DurableCheckpointIO, repair


def make_checkpoint(epoch: int = 0, **metrics: float) -> dict[str, object]:
    torch.manual_seed(epoch)
    weights = {f"network.{name}": value for name, value in SimpleCNN().state_dict().items()}
    return {"state_dict": weights, "epoch": epoch, "global_step": 10 * (epoch + 1), "metrics": metrics}


def save(run: run_folders.Run, epoch: int, **metrics: float) -> Path:
    path = run.checkpoints / f"epoch={epoch:02d}.ckpt"
    DurableCheckpointIO().save_checkpoint(make_checkpoint(epoch, **metrics), path)
    return path


def epoch_of(path: Path) -> int:
    epoch: int = torch.load(path, weights_only=True)["epoch"]
    return epoch


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture
def run(tmp_path: Path) -> run_folders.Run:
    return run_folders.create(tmp_path)


def test_runs_are_numbered_from_zero_with_the_same_number_in_both_folders(tmp_path: Path) -> None:
    assert [run_folders.create(tmp_path).version for _ in range(3)] == [0, 1, 2]
    (tmp_path / "lightning_logs" / "version_7").mkdir()
    assert run_folders.create(tmp_path).version == 8
    for kind in ("lightning_logs", "checkpoints"):
        assert (tmp_path / kind / "version_8").is_dir()


def test_processes_that_start_at_once_get_separate_runs(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: run_folders.create(tmp_path).version, range(24)))
    assert sorted(versions) == list(range(24))


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(StorageError, match="checkpoints is not a folder"):
        run_folders.create(tmp_path)


def test_best_is_the_highest_val_acc_with_ties_broken_by_the_lower_val_loss(run: run_folders.Run) -> None:
    for epoch, (val_acc, val_loss) in enumerate([(0.97, 0.05), (0.98, 0.09), (0.98, 0.08), (0.96, 0.01)]):
        save(run, epoch, val_acc=val_acc, val_loss=val_loss)
    assert run.best() == run.checkpoints / "best.ckpt"
    assert epoch_of(run.best()) == 2
    assert epoch_of(run.last()) == 3


def test_without_validation_best_is_last(run: run_folders.Run) -> None:
    for epoch in range(2):
        save(run, epoch, train_acc=0.9)
    assert epoch_of(run.best()) == 1


def test_the_manifest_holds_the_digests_of_the_files(run: run_folders.Run) -> None:
    path = save(run, 0, val_acc=0.9, val_loss=0.1)
    (entry,) = json.loads((run.checkpoints / "manifest.json").read_text())["checkpoints"]
    for name in (path.name, "best.ckpt", "last.ckpt"):
        assert hashlib.sha256((run.checkpoints / name).read_bytes()).hexdigest() == entry["sha256"]
    assert sorted(file.name for file in run.checkpoints.iterdir()) == sorted(
        [path.name, "best.ckpt", "last.ckpt", "manifest.json"]
    )


def test_a_corrupted_last_falls_back_to_its_copy_then_to_the_epoch_before(
    run: run_folders.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    save(run, 0, val_acc=0.9, val_loss=0.1)
    newest = save(run, 1, val_acc=0.8, val_loss=0.2)
    flip_byte(run.checkpoints / "last.ckpt")
    assert run.last() == newest
    assert "last.ckpt is corrupted" in capsys.readouterr().err
    flip_byte(newest)
    assert epoch_of(run.last()) == 0
    assert f"{newest.name} is corrupted" in capsys.readouterr().err


def test_a_corrupted_best_falls_back_to_its_copy_and_never_to_a_worse_checkpoint(run: run_folders.Run) -> None:
    copy = save(run, 0, val_acc=0.9, val_loss=0.1)
    save(run, 1, val_acc=0.8, val_loss=0.2)
    flip_byte(run.checkpoints / "best.ckpt")
    assert run.best() == copy
    flip_byte(copy)
    with pytest.raises(CheckpointError, match="both copies of the best checkpoint are missing or corrupted"):
        run.best()


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("{")], ids=["deleted", "unreadable"])
def test_without_a_manifest_best_and_last_are_found_from_the_files(
    run: run_folders.Run, spoil: Callable[[Path], object]
) -> None:
    for epoch, val_acc in enumerate([0.8, 0.9, 0.7]):
        save(run, epoch, val_acc=val_acc, val_loss=0.1)
    spoil(run.checkpoints / "manifest.json")
    assert (epoch_of(run.best()), epoch_of(run.last())) == (1, 2)
    save(run, 3, val_acc=0.6, val_loss=0.1)
    assert (epoch_of(run.best()), epoch_of(run.last())) == (1, 3)
    assert epoch_of(run.checkpoints / "best.ckpt") == 1, "a worse epoch has replaced the best"


def test_without_a_manifest_a_copy_is_found_if_only_it_is_left(run: run_folders.Run) -> None:
    save(run, 0, val_acc=0.9, val_loss=0.1)
    for path in (save(run, 1, val_acc=0.8, val_loss=0.1), run.checkpoints / "manifest.json"):
        path.unlink()
    (run.checkpoints / "epoch=00.ckpt").write_bytes(b"damaged")
    assert (epoch_of(run.best()), epoch_of(run.last())) == (0, 1)
    repair(run.checkpoints)
    save(run, 2, val_acc=0.7, val_loss=0.1)
    assert (epoch_of(run.best()), epoch_of(run.last())) == (0, 2)


def test_a_named_run_without_a_checkpoint_is_refused_even_if_another_has_one(tmp_path: Path) -> None:
    save(run_folders.create(tmp_path), 0)
    run_folders.create(tmp_path)
    with pytest.raises(CheckpointError, match=r"version_1 in .* has no checkpoint that verifies; pass that of another"):
        run_folders.locate("version_1/best", tmp_path)


@pytest.mark.parametrize("reference", ["best", "last"])
def test_a_folder_without_checkpoints_is_not_the_newest_run(tmp_path: Path, reference: str) -> None:
    run_folders.create(tmp_path)
    with pytest.raises(CheckpointError, match="there is no run with a checkpoint"):
        run_folders.locate(reference, tmp_path)
    run = run_folders.create(tmp_path)
    save(run, 0)
    run_folders.create(tmp_path)
    (tmp_path / "lightning_logs" / "version_8" / "checkpoints").mkdir(parents=True)  # of a notebook's own Trainer
    (tmp_path / "lightning_logs" / "version_8" / "checkpoints" / "epoch=0-step=8.ckpt").touch()
    assert run_folders.locate(reference, tmp_path).run == run
    assert run_folders.create(tmp_path).version == 9, "its number is taken"


def test_discarding_a_run_removes_its_folders_and_nothing_else(tmp_path: Path) -> None:
    run_folders.discard(run_folders.create(tmp_path))
    assert list(tmp_path.iterdir()) == []
    kept = run_folders.create(tmp_path)
    run_folders.discard(run_folders.create(tmp_path))
    assert kept.logs.is_dir()
    assert run_folders.all_runs(tmp_path) == [kept]


def test_a_validation_loss_that_is_not_a_number_ranks_last(run: run_folders.Run) -> None:
    for epoch, val_loss in enumerate([float("nan"), 0.3, float("inf"), 0.2]):
        save(run, epoch, val_acc=0.9, val_loss=val_loss)
    assert epoch_of(run.best()) == 3


def test_a_checkpoint_outside_a_runs_folder_is_just_a_file(tmp_path: Path) -> None:
    DurableCheckpointIO().save_checkpoint(make_checkpoint(), tmp_path / "elsewhere" / "mine.ckpt")
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine.ckpt"]


@pytest.mark.parametrize(
    ("reference", "epoch"), [("best", 1), ("last", 2), ("version_0/best", 0), ("version_0/last", 0)]
)
def test_a_reference_finds_its_checkpoint(tmp_path: Path, reference: str, epoch: int) -> None:
    save(run_folders.create(tmp_path), 0, val_acc=0.9, val_loss=0.1)
    newer = run_folders.create(tmp_path)
    save(newer, 1, val_acc=0.9, val_loss=0.1)
    save(newer, 2, val_acc=0.8, val_loss=0.1)
    located = run_folders.locate(reference, tmp_path)
    assert epoch_of(located.path) == epoch
    assert located.run is not None
    assert located.run.version == (0 if "0" in reference else 1)


def test_a_path_finds_the_run_that_contains_it(run: run_folders.Run, tmp_path: Path) -> None:
    located = run_folders.locate(str(save(run, 0)), tmp_path)
    assert located.run == run
    outside = tmp_path / "outside.ckpt"
    outside.write_bytes(located.path.read_bytes())
    assert run_folders.locate(str(outside), tmp_path).run is None


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("best", "there is no run"),
        ("version_4/last", "there is no version_4"),
        ("nowhere.ckpt", "no such checkpoint file"),
        ("http://127.0.0.1/x.ckpt", "expected a local file"),
        ("s3://bucket/x.ckpt", "expected a local file"),
        ("registry:model", "expected a local file"),
    ],
)
def test_a_reference_to_nothing_is_refused(tmp_path: Path, reference: str, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        run_folders.locate(reference, tmp_path)


def test_files_are_flushed_to_disk_before_they_are_renamed(
    run: run_folders.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    flush, replace = os.fsync, Path.replace

    def record_flush(file: int) -> None:
        calls.append("flush")
        flush(file)

    def record_replace(self: Path, target: Path) -> Path:
        calls.append(target.name)
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(Path, "replace", record_replace)
    save(run, 0, val_acc=0.9, val_loss=0.1)
    files = ["manifest.json", "epoch=00.ckpt", "last.ckpt", "best.ckpt"]
    assert [call for call in calls if call != "flush"] == files  # the manifest lists a file before it exists
    for name in files:
        assert "flush" in calls[: calls.index(name)]
    assert calls.count("flush") == 8  # each file and, after each, its folder
