"""What `validate` and `test` leave behind of a table: rows in place of images, and what simple classifiers score."""

from dataclasses import asdict, replace
from typing import Any

from lightning.pytorch import Trainer
from PIL import Image

from mnist_lightning.data.loader import BatchLoader
from mnist_lightning.data.table.datamodule import TabularDataModule
from mnist_lightning.evaluation.analysis import ScoreCard, describe_share, wilson_interval
from mnist_lightning.evaluation.baselines import Baseline, logistic_regression, majority
from mnist_lightning.evaluation.predictions import Predictions
from mnist_lightning.training.callbacks.result_writer import ScoreReport, draw


class TableScoreReport(ScoreReport):
    """Print what `validate` or `test` found of a table, and file a test's score card."""

    noun = "rows"

    def _card(self, trainer: Trainer, answers: Predictions) -> ScoreCard:
        """Return the card, rows counted as in the file."""
        card, numbers = super()._card(trainer, answers), _data(trainer).samples("test").numbers
        worst = [replace(row, index=int(numbers[row.index])) for row in card.worst_images]
        return replace(card, worst_images=worst)

    def _numbers(self, trainer: Trainer, card: ScoreCard) -> dict[str, Any]:
        numbers = {"csv_file": str(_data(trainer).samples("test").path), **asdict(card)}
        numbers["classes"] = [
            {"name": score["name"], "rows": score["images"]} | {key: score[key] for key in ("precision", "recall")}
            for score in numbers["classes"]
        ]
        numbers["worst_rows"] = [{"row": row.pop("index"), **row} for row in numbers.pop("worst_images")]
        baselines = self._baselines(trainer)
        for baseline in baselines:
            share = describe_share(baseline.correct, baseline.total)
            print(f"for comparison, {baseline.name}: {share}")
        numbers["baselines"] = [
            {
                **asdict(baseline),
                "accuracy": baseline.accuracy,
                "interval": wilson_interval(baseline.correct, baseline.total),
            }
            for baseline in baselines
        ]
        return numbers

    def _baselines(self, trainer: Trainer) -> list[Baseline]:
        data = _data(trainer)
        train, test = data.training_rows(), data.samples("test")
        if train is None:
            print(f"no baselines: {data.schema.origin.path} is not there any more as it was trained on")
            return []
        try:
            return [majority(train, test), logistic_regression(train, test)]
        except ImportError:
            print("no logistic regression to compare with: pip install 'mnist-lightning[tabular]'")
            return [majority(train, test)]

    def _pictures(self, card: ScoreCard, answers: Predictions, loader: BatchLoader) -> dict[str, Image.Image]:
        return draw(card, answers, self.calibration, self.noun)


def _data(trainer: Trainer) -> TabularDataModule:
    data = trainer.datamodule  # type: ignore[attr-defined]  # set by Lightning's connector
    assert isinstance(data, TabularDataModule)
    return data
