"""Prints the score of `validate` and `test`; writes test.json, predictions.csv, figures/ and report.html of `test`."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.data.samples import Batch, ImageDataset, RowDataset
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import Analysis, analyse
from mnist_lightning.evaluation.baselines import logistic_regression, majority
from mnist_lightning.evaluation.calibration import from_checkpoint
from mnist_lightning.evaluation.metrics import Score, describe_accuracy, wilson_interval
from mnist_lightning.evaluation.predictions import PREDICTIONS, Predictions
from mnist_lightning.evaluation.report import Report, render
from mnist_lightning.evaluation.subject import Subject, sidecar
from mnist_lightning.runs.checkpoint_verification import sha256
from mnist_lightning.runs.run_folders import Located
from mnist_lightning.training import lightning_patches
from mnist_lightning.training.callbacks.exact_resume import KEY as RESUME
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector, is_of_this_project, schema_of
from mnist_lightning.training.callbacks.tested_samples import RESULT, other_options, subject_of, suffix_of
from mnist_lightning.training.environment import device_name, environment
from mnist_lightning.training.logger import TAGS, read_curves, run_logger

FIGURES, REPORT = "figures{}", "report{}.html"
METRICS = "test_metrics.json"
PACKAGES = ("mnist-lightning", "torch", "lightning", "torchmetrics", "numpy")  # whose versions the report lists


class ResultWriter(Callback):
    """Print the score of `validate` or `test`, and write the results of `test` beside its run.

    Of a model or of data that know nothing of this project, it prints the metrics that they log, and writes those of
    `test` into `test_metrics.json`.

    Args:
        located: The checkpoint that is scored.
        checkpoint: Its content.
        folder: Where the files go; it exists.
    """

    def __init__(self, located: Located, checkpoint: Mapping[str, Any], folder: Path) -> None:
        self.located, self.path, self.run = located, located.path, located.run
        self.checkpoint, self.folder = checkpoint, folder
        self.epoch: int = checkpoint["epoch"]
        self.step: int = checkpoint["global_step"]
        self._collector = PredictionCollector()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the validation score."""
        score = getattr(pl_module, "score", None)
        known = isinstance(score, Score)
        pl_module.print(f"{self.path}: validation {score if known else as_line(_metrics(trainer))}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the user's loggers log the test at the checkpoint's step."""
        lightning_patches.set_position(trainer, self.epoch, self.step)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the predictions."""
        self._collector.add(outputs, batch)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the test score and write the results."""
        loader: Any = trainer.test_dataloaders
        score = getattr(pl_module, "score", None)
        predictions = self._collector.gather(trainer, loader) if is_of_this_project(trainer) else None
        if predictions is None or not len(predictions.labels) or not isinstance(score, Score):
            metrics = _metrics(trainer)
            pl_module.print(f"{self.path}: test {as_line(metrics)}")
            if trainer.is_global_zero:
                result = {"metrics": metrics, "checkpoint": str(self.path), "checkpoint_sha256": sha256(self.path)}
                _write_json(self.folder / METRICS, result)
            pl_module.print(f"wrote {self.folder / METRICS}")
            return
        noun = "images" if isinstance(loader.dataset, ImageDataset) else "rows"
        pl_module.print(f"{self.path}: test {score}")
        if len(predictions.labels) < len(loader.dataset):
            pl_module.print(
                f"only some of the test {noun} were scored, which is not a test result; "
                f"{self.folder / RESULT.format('')} is not written"
            )
        elif trainer.is_global_zero:
            self._write(trainer, score, predictions, noun)

    def _write(self, trainer: Trainer, score: Score, predictions: Predictions, noun: str) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's connector
        analysis = analyse(predictions, schema_of(trainer).class_names, from_checkpoint(self.checkpoint))
        subject = subject_of(self.located, data, predictions)
        others = other_options(self.checkpoint, data)
        suffix = suffix_of(subject, self.located, self.folder, is_own_data=not others)
        metrics = {name.removeprefix("test_"): value for name, value in _metrics(trainer).items()}
        result = {
            "correct": score.correct,
            "total": score.total,
            "accuracy": score.accuracy,
            "interval": wilson_interval(score.correct, score.total),
            "loss": score.loss,
            "metrics": {name: value for name, value in metrics.items() if name not in ("loss", "acc")},
            "epoch": self.epoch,
            "device": device_name(trainer.strategy.root_device),
            "precision": trainer.precision,
            "torch": torch.__version__,
            **asdict(subject),
        }
        if noun == "rows":
            rows = data.samples("test")
            worst = [replace(each, index=int(rows.numbers[each.index])) for each in analysis.worst_samples]
            analysis = replace(analysis, worst_samples=worst)  # rows are numbered as in the file
            result |= {"csv_file": str(rows.path), "baselines": _print_baselines(data)}
        # The result is written first, so that a failure to draw or to write the rest cannot lose it.
        _write_json(self.folder / RESULT.format(suffix), result | analysis.to_dict(noun))
        table, content = self.folder / PREDICTIONS.format(suffix), predictions.as_csv().encode()
        replace_file(table, content)
        replace_file(table.with_suffix(".json"), sidecar(subject, content))
        loader: Any = trainer.test_dataloaders
        figures = _draw(analysis, noun, loader.dataset)
        if tensorboard := run_logger(trainer):
            values = {TAGS["test_loss"] + suffix: score.loss, TAGS["test_acc"] + suffix: score.accuracy}
            tensorboard.log_metrics(values, step=self.step if tensorboard.by_step else self.epoch)
            for name, png in figures.items():
                tensorboard.log_figure(f"Test{suffix}/{name}", png, self.epoch)
            tensorboard.save()
        curves = read_curves(self.run.logs) if self.run else {}
        if drawn := plots.learning_curves(curves):
            figures["learning curves"] = plots.as_png(drawn)
        figures_folder = self.folder / FIGURES.format(suffix)
        figures_folder.mkdir(exist_ok=True)
        for name, png in figures.items():
            replace_file(figures_folder / f"{name.replace(' ', '_')}.png", png)
        config = self.run.logs / "config.yaml" if self.run else None
        config = config if config and config.is_file() else None
        fit = [["fit", "--config", str(config)]] if config else []
        test = ["test", "--ckpt_path", str(self.path), *(f"--data.{name}={value}" for name, value in others.items())]
        report = Report(
            title=f"{self.run.name}/{subject.kind}" if self.run else str(self.path),
            summary=f"On the test {noun}: {score}.",
            curves=curves,
            analysis=analysis,
            figures=figures,
            facts=self._facts(trainer, subject),
            commands=[shlex.join(["python", "-m", "mnist_lightning", *command]) for command in (*fit, test)],
            config=config.read_text(errors="replace") if config else None,
            noun=noun,
        )
        replace_file(self.folder / REPORT.format(suffix), render(report).encode(errors="backslashreplace"))
        written, *beside = (name.format(suffix) for name in (RESULT, PREDICTIONS, FIGURES, REPORT))
        trainer.lightning_module.print("wrote {}, and {}, {} and {} beside it".format(self.folder / written, *beside))

    def _facts(self, trainer: Trainer, subject: Subject) -> dict[str, str]:
        resume = self.checkpoint.get(RESUME)
        return {
            "checkpoint": f"{self.path}, epoch {self.epoch}",
            "SHA-256 of the checkpoint": subject.checkpoint_sha256,
            "metrics when saved": as_line(self.checkpoint.get("metrics")),
            "trained with": as_line(resume.get("environment") if isinstance(resume, dict) else None),
            "tested with": as_line(environment(trainer.strategy.root_device, str(trainer.precision))),
            "versions": as_line({package: version(package) for package in PACKAGES}),
            **{f"SHA-256 of {path}": digest for path, digest in subject.data.items()},
            "SHA-256 of the tested samples": subject.samples_sha256,
        }


def _draw(analysis: Analysis, noun: str, dataset: ImageDataset | RowDataset) -> dict[str, bytes]:
    """Return the figures of a test as PNG files, by name."""
    class_names = [each.name for each in analysis.classes]
    figures = {
        "confusion matrix": plots.confusion_matrix(analysis.confusion, class_names),
        "reliability diagram": plots.reliability_diagram(analysis.reliability, noun),
    }
    if noun == "images":
        pixels = dataset.inputs[[each.index for each in analysis.worst_samples]].cpu().numpy()
        figures["worst images"] = plots.worst_images(pixels, analysis.worst_samples)
    return {name: plots.as_png(figure) for name, figure in figures.items()}


def _metrics(trainer: Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    replace_file(path, f"{json.dumps(content, indent=1)}\n".encode())


def _print_baselines(data: TabularDataModule) -> list[dict[str, Any]]:
    """Print the accuracies of simple classifiers on the test rows; return them as `test.json` stores them."""
    train, test = data.training_rows(), data.samples("test")
    if train is None:
        print(f"no baselines: {data.schema.origin.path} was moved or changed since training")
        return []
    baselines = [majority(train, test)]
    try:
        baselines.append(logistic_regression(train, test))
    except ImportError:
        print("no logistic regression among the baselines; it needs: pip install 'mnist-lightning[tabular]'")
    for each in baselines:
        print(f"for comparison, {each.name}: {describe_accuracy(each.correct, each.total)}")
    return [
        {**asdict(each), "accuracy": each.accuracy, "interval": wilson_interval(each.correct, each.total)}
        for each in baselines
    ]


def as_line(facts: object) -> str:
    """Return facts in one line; an empty string if a checkpoint stores something other than a dictionary.

    >>> as_line({"torch": "2.14.1", "val_loss": 0.031234})
    'torch 2.14.1, val_loss 0.03123'
    """
    if not isinstance(facts, dict):
        return ""
    return ", ".join(
        f"{name} {fact:.4g}" if isinstance(fact, float) else f"{name} {fact}" for name, fact in facts.items()
    )
