"""`report.html`, a page about a test: one file without scripts that loads nothing, rendered from a Jinja template."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_lightning.evaluation.analysis import Analysis
from mnist_lightning.evaluation.plots import CURVES, Curve

TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Report:
    """The content of the page.

    Args:
        title: The run, or the checkpoint if it does not belong to a run.
        summary: The result in one sentence.
        curves: The points (epoch, value) of each scalar, by TensorBoard's tag.
        analysis: The numbers.
        figures: PNG files, by name.
        facts: Further facts about the run, by name.
        commands: The commands that reproduce the result.
        config: The run's options, as YAML; None if they are not known.
        noun: What is classified: "images" or "rows".
    """

    title: str
    summary: str
    curves: Mapping[str, Curve]
    analysis: Analysis
    figures: Mapping[str, bytes]
    facts: Mapping[str, str]
    commands: Sequence[str]
    config: str | None
    noun: str = "images"


def render(report: Report) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined  # only `test` needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"percent": _percent, "base64": lambda data: base64.b64encode(data).decode()}
    analysis = report.analysis
    return environment.from_string(TEMPLATE.read_text()).render(
        vars(report),
        curves=_curve_table(report.curves),
        classes=[
            (each.name, f"{each.support:,}", _percent(each.precision), _percent(each.recall))
            for each in analysis.classes
        ],
        most_confused=[(pair.label, pair.prediction, f"{pair.count:,}") for pair in analysis.most_confused],
        worst=[
            (f"{each.index:,}", each.label, each.prediction, _percent(each.probability))
            for each in analysis.worst_samples
        ],
        calibration=analysis.calibration,
        total=int(analysis.confusion.sum()),
    )


def _curve_table(curves: Mapping[str, Curve]) -> dict[str, list[object]]:
    """Return the learning curves as a table with a row per epoch."""
    values = {tag: dict(curves[tag]) for tags in CURVES.values() for tag in tags if curves.get(tag)}
    epochs = sorted({epoch for points in values.values() for epoch in points})
    rows = [[f"{points[epoch]:.5g}" if epoch in points else "" for points in values.values()] for epoch in epochs]
    return {"names": list(values), "rows": [[epoch, *row] for epoch, row in zip(epochs, rows, strict=True)]}


def _percent(fraction: float | None) -> str:
    return "not defined" if fraction is None else f"{100 * fraction:.2f} %"
