import base64
from html.parser import HTMLParser

import pytest
import torch

from mnist_lightning.evaluation.analysis import Analysis, CalibrationMetrics, ClassMetrics, ConfusedPair, WorstSample
from mnist_lightning.evaluation.calibration import BINS
from mnist_lightning.evaluation.report import Report, render

SCRIPT = "<script>alert(1)</script>"
FIGURES = ["confusion matrix", "learning curves", "reliability diagram", "worst images"]
TAGS = {"html", "head", "meta", "style", "title", "body", "h1", "h2", "p", "div", "pre", "img", "details", "summary"}
TAGS |= {"table", "tr", "th", "td"}


class Reader(HTMLParser):
    """Collect what a browser would find in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def images(self) -> list[bytes]:
        """The images within the page."""
        sources = [value for name, value in self.attributes if name == "src"]
        assert all(source.startswith("data:image/png;base64,") for source in sources)
        return [base64.b64decode(source.partition(",")[2], validate=True) for source in sources]


def assert_inert(text: str) -> Reader:
    """Check that a page runs nothing and loads nothing, even if a browser did not obey its policy."""
    reader = Reader(text)
    assert set(reader.tags) <= TAGS
    assert not [name for name, _ in reader.attributes if name.startswith("on") or name in ("href", "srcdoc", "style")]
    assert all(len(image) > 100 for image in reader.images)
    assert "url(" not in text
    assert "@import" not in text
    policy = dict(reader.attributes)["content"], [v for name, v in reader.attributes if name == "http-equiv"]
    assert policy[1] == ["Content-Security-Policy"]
    assert "default-src 'none'" in text
    return reader


def report(name: str = "a", *, calibration: CalibrationMetrics | None = None, noun: str = "images") -> Report:
    analysis = Analysis(
        [ClassMetrics(name, 1, None, None)],
        torch.tensor([[1]]),
        [ConfusedPair(name, name, 1)],
        [WorstSample(0, name, name, 0.5)],
        calibration or CalibrationMetrics(BINS, 0.1),
        {},
    )
    figures = FIGURES if noun == "images" else FIGURES[:-1]
    return Report(
        title=name,
        summary=name,
        curves={"Loss/train": [(0, 1.0), (1, 0.25)], "Loss/val": [(1, 0.5)]},
        analysis=analysis,
        figures=dict.fromkeys(figures, b"png" * 100),
        facts={name: name},
        commands=[name],
        config=name,
        noun=noun,
    )


def test_names_chosen_by_people_do_not_become_markup() -> None:
    reader = assert_inert(render(report(SCRIPT)))
    assert "".join(reader.words).count(SCRIPT) == 10, "all are there to be read"
    assert len(reader.images) == len(FIGURES)


def test_the_values_of_the_learning_curves_are_listed_by_epoch() -> None:
    words = " ".join("".join(Reader(render(report())).words).split())
    assert "epochLoss/trainLoss/val 01 10.250.5" in words


def test_rows_are_listed_where_images_are_shown() -> None:
    assert_inert(render(report(noun="rows")))
    words = "".join(Reader(render(report(noun="rows"))).words)
    assert "rowlabelpredictionprobability" in words
    assert "50.00 %" in words


@pytest.mark.parametrize(
    ("calibration", "sentence"),
    [
        (None, "no temperature was fitted"),
        (CalibrationMetrics(BINS, 0.1, 1.5, 0.02, 0.9, 1, 1), "the temperature 1.500 fitted to validation images"),
    ],
)
def test_the_page_explains_the_calibration(calibration: CalibrationMetrics | None, sentence: str) -> None:
    words = " ".join("".join(Reader(render(report(calibration=calibration))).words).split())
    assert f"over {BINS} bins: 10.00 %" in words
    assert sentence in words
