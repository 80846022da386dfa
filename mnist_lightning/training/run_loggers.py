"""The user's loggers: in the folder and under the number of the run, and continued when it resumes or is tested."""

import csv
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.runs.run_folders import Run
from mnist_lightning.training.logger import RunLogger

IDS = "loggers.json"  # in a run's log folder: the ids that services gave to it
ID_ARGUMENTS = ("run_id", "experiment_key", "id")  # of MLFlowLogger, CometLogger and WandbLogger
STOCK_CSV = ("lightning.pytorch.loggers.CSVLogger", "lightning.pytorch.loggers.csv_logs.CSVLogger")


class RunCSVLogger(CSVLogger):
    """Lightning's CSVLogger, which would delete the file of a run that is resumed or tested, and here appends to it.

    Args:
        *args: As for CSVLogger.
        resume_step: Step from which the run is resumed; rows of later ones are removed. None keeps all rows.
        **kwargs: As for CSVLogger.
    """

    def __init__(self, *args: Any, resume_step: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.resume_step = resume_step

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Lightning's writer, with the rows of the run so far."""
        if self._experiment is None:
            rows = list(self._rows(Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE))
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
                writer = super().experiment
            writer.metrics = rows
            writer.save()
        return self._experiment

    def _rows(self, path: Path) -> Iterator[dict[str, Any]]:
        if not path.is_file():
            return
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                filled = {name: value for name, value in row.items() if value}
                step, is_evaluation = int(row["step"]), any(name.startswith(("val", "test")) for name in filled)
                if self.resume_step is None or step < self.resume_step + is_evaluation or "test_loss" in filled:
                    yield filled


@contextmanager
def in_run(options: Namespace, run: Run | None, resume_step: int | None) -> Iterator[None]:
    """Give the loggers in the Trainer's options the folder, number and id of a run, while they are created.

    Afterwards the options are as before, so that the saved config fits any run.
    """
    given = options.logger
    if run is not None:
        ids = _read_ids(run.logs)
        placed = [_placed(each, run, ids, resume_step) for each in (given if isinstance(given, list) else [given])]
        options.logger = placed if isinstance(given, list) else placed[0]
    try:
        yield
    finally:
        options.logger = given


def save_ids(run: Run, loggers: list[Logger]) -> None:
    """Keep the ids that services such as W&B gave to the run, so that `test` and a resumed run log there, too."""
    ids = {type(each).__name__: each.version for each in loggers if not isinstance(each, RunLogger | CSVLogger)}
    if ids := {name: version for name, version in ids.items() if isinstance(version, str)}:
        replace_file(run.logs / IDS, json.dumps(ids).encode())


def _placed(logger: Any, run: Run, ids: dict[str, str], resume_step: int | None) -> Any:
    if not isinstance(logger, Namespace):  # true, false or null
        return logger
    logger = logger.clone()
    arguments, name = logger.init_args, logger.class_path.rpartition(".")[2]
    identity = next((each for each in ID_ARGUMENTS if each in arguments), None)
    if identity and arguments[identity] is None:
        arguments[identity] = ids.get(name)
    for argument, default, value in (
        ("tracking_uri", None, f"sqlite:///{run.root / 'mlflow.db'}"),  # MLflow's own default since version 3
        ("save_dir", ".", str(run.logs)),
        ("run_name", None, run.name),
        ("name", None, run.name),
    ):
        if identity and argument in arguments and arguments[argument] == default:
            arguments[argument] = value
    if not identity and "version" in arguments and arguments.version is None:
        arguments.version = run.version
        if logger.class_path in STOCK_CSV:
            logger.class_path = f"{__name__}.{RunCSVLogger.__name__}"
            arguments.resume_step = resume_step
        if arguments.get("save_dir") == "":
            is_csv = "resume_step" in arguments  # files of events would mix with the run's own
            arguments.save_dir, arguments.name = str(run.logs.parent if is_csv else run.logs), ""
            arguments.version = run.version if is_csv else name
    return logger


def _read_ids(folder: Path) -> dict[str, str]:
    path = folder / IDS
    content = json.loads(path.read_text()) if path.is_file() else {}
    return {name: value for name, value in content.items() if isinstance(value, str)}
