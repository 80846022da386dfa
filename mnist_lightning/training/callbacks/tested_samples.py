"""Which samples a test was about, and which files its result is written to."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from mnist_lightning.data.image_folder.datamodule import PictureFolderDataModule
from mnist_lightning.data.image_schema import read_schema
from mnist_lightning.data.mnist.datamodule import MNISTDataModule
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.evaluation.predictions import Predictions
from mnist_lightning.evaluation.subject import Subject, digest_of, read_entries
from mnist_lightning.runs.checkpoint_verification import sha256
from mnist_lightning.runs.run_folders import Located

PLACES = ("folder", "csv_file", "test_csv_file", "data_dir")  # options of the data that are paths
OPTIONS = (*PLACES, "dataset", "split_seed")  # that determine which samples are tested
RESULT = "test{}.json"


def subject_of(located: Located, datamodule: LightningDataModule, predictions: Predictions) -> Subject:
    """Return what a test was about."""
    if isinstance(datamodule, MNISTDataModule):
        files = {str(file): sha256(file) for file in datamodule.files[2:]}
    elif isinstance(datamodule, TabularDataModule):
        path = datamodule.samples("test").path
        files = {str(path): sha256(path)}
    elif isinstance(datamodule, PictureFolderDataModule):
        names = sorted(datamodule.image_files("test"))
        listing = "".join(f"{name}\0{sha256(datamodule.path / name)}\n" for name in names)
        files = {str(datamodule.path): hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest()}
    else:
        files = {}
    samples = digest_of(files, predictions.indices.tolist())
    return Subject(str(located.path), sha256(located.path), located.kind, files, samples)


def other_options(checkpoint: Mapping[str, Any], datamodule: LightningDataModule) -> dict[str, Any]:
    """Return the options of the data that select other test samples than those with which the run was trained."""
    before, now = checkpoint.get("datamodule_hyper_parameters"), datamodule.hparams
    if not isinstance(before, dict):
        return {}
    schema, skipped = read_schema(checkpoint), ["data_dir"] if "folder" in now else []
    if isinstance(datamodule, MNISTDataModule) and schema and schema.own_sha256 == datamodule.dataset.own_sha256:
        skipped = ["data_dir"]  # the same data set, in another folder
    names = [name for name in OPTIONS if name in now and name in before and name not in skipped]
    return {name: now[name] for name in names if _place(name, before[name]) != _place(name, now[name])}


def suffix_of(subject: Subject, located: Located, folder: Path, *, is_own_data: bool) -> str:
    """Return the end of the names of the result's files: "" for the best checkpoint on the test data of its run.

    If there is a result already, its digest decides which samples are those of the run, wherever their files lie now.
    """
    before = read_entries(folder / RESULT.format("")) or {}
    if digest := before.get("samples_sha256"):
        is_own_data = digest == subject.samples_sha256
    if located.run:
        is_best = subject.kind == "best" or (subject.kind == "last" and located.run.best_entry() is None)
    else:  # of the files in a folder, the one that is tested first
        is_best = before.get("checkpoint", subject.checkpoint) == subject.checkpoint
    suffix = "" if is_best else f"_{subject.kind}"
    return suffix if is_own_data else f"{suffix}_data_{subject.samples_sha256[:8]}"


def _place(name: str, value: Any) -> Any:
    return Path(value).absolute() if name in PLACES and isinstance(value, str) else value
