"""What `validate` and `test` leave behind: a line on the screen and, of a test, the score card beside its run."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image

from mnist_lightning.atomic_write import replace_file
from mnist_lightning.data.loader import Batch, BatchLoader
from mnist_lightning.evaluation import plots
from mnist_lightning.evaluation.analysis import ScoreCard, describe, score_card, wilson_interval
from mnist_lightning.evaluation.calibration import Calibration, from_checkpoint, judge, reliability
from mnist_lightning.evaluation.predictions import PREDICTIONS, Predictions
from mnist_lightning.evaluation.report import Report, page
from mnist_lightning.runs.run_folders import Located
from mnist_lightning.runs.verification import sha256
from mnist_lightning.training.callbacks.prediction_collector import PredictionCollector, schema_of
from mnist_lightning.training.classifier import Classifier
from mnist_lightning.training.environment import device_name, environment
from mnist_lightning.training.logger import read_curves, run_logger

RESULT, FIGURES, REPORT = "test.json", "figures", "report.html"
PACKAGES = ("mnist-lightning", "torch", "lightning", "torchmetrics", "numpy")  # whose versions the report names


class ScoreReport(Callback):
    """Print what `validate` or `test` found, and file a test's score card: numbers, figures and a page.

    Args:
        located: The checkpoint that is scored.
        checkpoint: Its content.
        folder: Where the files go; it exists.
    """

    noun = "images"  # what is classified

    def __init__(self, located: Located, checkpoint: Mapping[str, Any], folder: Path) -> None:
        self.path, self.run = located.path, located.run
        self.epoch: int = checkpoint["epoch"]
        self.calibration = from_checkpoint(checkpoint)
        self.metrics = as_line(checkpoint.get("metrics"))
        training = checkpoint.get("classifier")
        self.trained_with = as_line(training.get("environment")) if isinstance(training, dict) else ""
        self.folder = folder
        self._collector = PredictionCollector()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the score on the validation images."""
        assert isinstance(pl_module, Classifier)
        if pl_module.score is None:
            return
        pl_module.print(f"{self.path}: validation {describe(pl_module.score)}")

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int, *_: int
    ) -> None:
        """Collect the answers."""
        self._collector.add(outputs, batch[1])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the score on the test images and write the score card."""
        assert isinstance(pl_module, Classifier)
        assert isinstance(trainer.test_dataloaders, BatchLoader)
        score = pl_module.score
        assert score is not None
        answers = self._collector.gather(trainer, trainer.test_dataloaders)
        pl_module.print(f"{self.path}: test {describe(score)}")
        if len(answers.labels) < len(trainer.test_dataloaders.indices):
            pl_module.print(
                f"on a part of the test {self.noun} only, which is no test result: "
                f"{self.folder / RESULT} is not written"
            )
            return
        if not trainer.is_global_zero:
            return
        card = self._card(trainer, answers)
        result = {
            "correct": score.correct,
            "total": score.total,
            "accuracy": score.accuracy,
            "interval": wilson_interval(score.correct, score.total),
            "loss": score.loss,
            "checkpoint": str(self.path),
            "epoch": self.epoch,
            "device": device_name(trainer.strategy.root_device),
            "precision": trainer.precision,
            "torch": torch.__version__,
            **self._numbers(trainer, card),
        }
        # First, and by itself: nothing that goes wrong with what illustrates it costs the result.
        replace_file(self.folder / RESULT, (json.dumps(result, indent=1) + "\n").encode())
        replace_file(self.folder / PREDICTIONS, answers.as_csv().encode())
        pictures = self._pictures(card, answers, trainer.test_dataloaders)
        for logger in trainer.loggers:
            logger.log_metrics({"test_loss": score.loss, "test_acc": score.accuracy}, step=self.epoch)
        if board := run_logger(trainer):
            for name, picture in pictures.items():
                board.log_picture(f"Test/{name}", picture, self.epoch)
            board.save()
        files = {name: plots.as_png(picture) for name, picture in pictures.items()}
        (self.folder / FIGURES).mkdir(exist_ok=True)
        for name, data in files.items():
            replace_file(self.folder / FIGURES / f"{name.replace(' ', '_')}.png", data)
        report = self._report(trainer, describe(score), card, files)
        replace_file(self.folder / REPORT, page(report).encode(errors="backslashreplace"))
        pl_module.print(f"written to {self.folder / RESULT}, {FIGURES} and {REPORT} beside it")

    def _card(self, trainer: Trainer, answers: Predictions) -> ScoreCard:
        return score_card(answers, schema_of(trainer).class_names, self.calibration)

    def _numbers(self, trainer: Trainer, card: ScoreCard) -> dict[str, Any]:
        """Return what `test.json` holds of the card."""
        return asdict(card)

    def _pictures(self, card: ScoreCard, answers: Predictions, loader: BatchLoader) -> dict[str, Image.Image]:
        """Return the figures by name."""
        pixels = loader.images[[image.index for image in card.worst_images]].cpu().numpy()
        return {"worst images": plots.worst_images(pixels, card.worst_images)} | draw(
            card, answers, self.calibration, self.noun
        )

    def _report(self, trainer: Trainer, summary: str, card: ScoreCard, pictures: Mapping[str, bytes]) -> Report:
        config = self.run.logs / "config.yaml" if self.run else None
        commands = [["test", "--ckpt_path", str(self.path)]]
        if config and config.is_file():
            commands.insert(0, ["fit", "--config", str(config)])
        files: list[Path] = trainer.datamodule.files  # type: ignore[attr-defined]  # set by Lightning's connector
        facts = {
            "checkpoint": f"{self.path}, epoch {self.epoch}",
            "SHA-256 of it": sha256(self.path),
            "scores when saved": self.metrics,
            "trained with": self.trained_with,
            "tested with": as_line(environment(trainer.strategy.root_device, str(trainer.precision))),
            "versions": as_line({package: version(package) for package in PACKAGES}),
            **{f"SHA-256 of {file.name}": sha256(file) for file in files},
        }
        return Report(
            title=self.run.name if self.run else str(self.path),
            summary=f"On the test {self.noun}: {summary}.",
            curves=read_curves(self.run.logs) if self.run else {},
            card=card,
            pictures=pictures,
            facts=facts,
            commands=[shlex.join(["python", "-m", "mnist_lightning", *command]) for command in commands],
            config=config.read_text(errors="replace") if config and config.is_file() else None,
            noun=self.noun,
        )


def draw(card: ScoreCard, answers: Predictions, calibration: Calibration | None, noun: str) -> dict[str, Image.Image]:
    """Return the figures of a score card that show numbers, by name."""
    names = [score.name for score in card.classes]
    panels = [("As the network gives them", reliability(*judge(answers.logits, answers.labels)))]
    if calibration:
        judged = judge(answers.logits, answers.labels, calibration.temperature)
        panels.append((f"After the temperature {calibration.temperature:.3f}", reliability(*judged)))
    return {
        "confusion matrix": plots.confusion_matrix(card.confusion, names),
        "reliability diagram": plots.reliability_diagram(panels),
        "class errors": plots.class_errors(card.classes, noun),
    }


def as_line(facts: object) -> str:
    """Return facts in a line, and nothing for what a checkpoint holds in their place.

    >>> as_line({"torch": "2.14.1", "val_loss": 0.031234})
    'torch 2.14.1, val_loss 0.03123'
    """
    if not isinstance(facts, dict):
        return ""
    return ", ".join(
        f"{name} {fact:.4g}" if isinstance(fact, float) else f"{name} {fact}" for name, fact in facts.items()
    )
