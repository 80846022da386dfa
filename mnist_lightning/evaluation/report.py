"""`report.html`, a page about a test: one file without scripts that loads nothing, rendered from a Jinja template.

`training/callbacks/result_writer.py` writes it, beside the other files of a test.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mnist_lightning.evaluation.analysis import Analysis
from mnist_lightning.evaluation.plots import CURVES, Curve

TEMPLATE = Path(__file__).with_name("report.html.jinja")


@dataclass(frozen=True)
class Report:
    """The content of the page."""

    title: str  # the run, or the checkpoint if it does not belong to a run
    summary: str  # the result in one sentence
    curves: Mapping[str, Curve]  # by TensorBoard's tag
    analysis: Analysis
    figures: Mapping[str, bytes]  # PNG files, by name
    facts: Mapping[str, str]  # further facts about the run, by name
    commands: Sequence[str]  # that reproduce the result
    config: str | None  # the run's options, as YAML; None if they are not known
    noun: str = "images"  # or "rows": what is classified


def render(report: Report) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, StrictUndefined  # only `test` needs it

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters.update(cell=_cell, fields=vars, base64=lambda data: base64.b64encode(data).decode())
    curves = {tag: dict(report.curves[tag]) for tags in CURVES.values() for tag in tags if report.curves.get(tag)}
    epochs = sorted({epoch for points in curves.values() for epoch in points})
    return environment.from_string(TEMPLATE.read_text()).render(
        vars(report), curves=curves, epochs=epochs, total=int(report.analysis.confusion.sum())
    )


def _cell(value: str | float | None) -> str:
    """Return the text of a table's cell: counts with separators, fractions in percent."""
    if isinstance(value, float):
        return f"{100 * value:.2f} %"
    return "not defined" if value is None else f"{value:,}" if isinstance(value, int) else value
