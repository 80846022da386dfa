"""A page about a run that opens from a file: no script, nothing loaded from anywhere. Knows HTML, and no files."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mnist_lightning.evaluation.analysis import ScoreCard
from mnist_lightning.evaluation.charts import Points, line_chart

CURVES = {"Loss": ("Loss/train", "Loss/val"), "Accuracy": ("Accuracy/train", "Accuracy/val")}

# The browser itself is told to load nothing.
HEAD = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { margin: 2rem auto; max-width: 62rem; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; color: #222; }
h1 { font-size: 1.6rem; margin-bottom: 0; }
.summary { font-size: 1.1rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
.charts, .pair { display: flex; flex-wrap: wrap; gap: 2rem; align-items: flex-start; }
svg { flex: 1 1 26rem; max-width: 30rem; }
svg text { font-size: 12px; fill: #222; }
svg .title { font-size: 15px; }
svg .left { text-anchor: end; }
svg .middle { text-anchor: middle; }
svg .grid { stroke: #e4e4e4; }
svg .line { fill: none; stroke-width: 2; }
img { max-width: 100%; height: auto; }
table { border-collapse: collapse; }
th, td { padding: 0.15rem 1.2rem 0.15rem 0; text-align: right; font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; }
.facts td { text-align: left; overflow-wrap: anywhere; }
pre { background: #f5f5f5; padding: 1rem; overflow-x: auto; font-size: 0.85rem; }
</style>
"""


@dataclass(frozen=True)
class Report:
    """What the page says.

    Args:
        title: The run, or the checkpoint where there is none.
        summary: The result in words.
        curves: The points (epoch, value) of each scalar, by TensorBoard's tag.
        card: The numbers.
        pictures: PNG files, by the name of the figure.
        facts: What else is worth knowing of the run, by name.
        commands: What to type to do it again.
        config: The run's options, as YAML; None where they are not known.
        noun: What is classified, in the plural.
    """

    title: str
    summary: str
    curves: Mapping[str, Points]
    card: ScoreCard
    pictures: Mapping[str, bytes]
    facts: Mapping[str, str]
    commands: Sequence[str]
    config: str | None
    noun: str = "images"


def page(report: Report) -> str:
    """Return the page as HTML."""
    card = report.card
    parts = [HEAD, f"<title>{escape(report.title)}</title>\n</head>\n<body>"]
    parts.append(f'<h1>{escape(report.title)}</h1>\n<p class="summary">{escape(report.summary)}</p>')
    if charts := [line_chart(name, lines) for name, lines in _lines(report.curves).items()]:
        parts.append(f'<h2>Training</h2>\n<div class="charts">{"".join(charts)}</div>')
    classes = [(c.name, f"{c.images:,}", _percent(c.precision), _percent(c.recall)) for c in card.classes]
    parts.append("<h2>Classes</h2>\n<p>Precision: of the answers that name a class, the share that is right. Recall: ")
    parts.append(f'of the {report.noun} of a class, the share that is answered right.</p>\n<div class="pair">')
    parts.append(_table(("class", report.noun, "precision", "recall"), classes))
    parts.append(f"{_image(report, 'class errors')}</div>")
    pairs = [(pair.label, pair.prediction, f"{pair.count:,}") for pair in card.most_confused]
    parts.append(f'<h2>Confusions</h2>\n<div class="pair">{_image(report, "confusion matrix")}')
    parts.append(f"{_table(('label', 'answer', report.noun), pairs)}</div>")
    parts.append(f"<h2>Worst {report.noun}</h2>\n<p>Those with the least probability for their own class.</p>")
    if "worst images" in report.pictures:
        parts.append(_image(report, "worst images"))
    else:
        worst = [(f"{row.index:,}", row.label, row.prediction, _percent(row.probability)) for row in card.worst_images]
        parts.append(_table(("row", "label", "answer", "probability of it"), worst))
    parts.append(f"<h2>Calibration</h2>\n<p>{_calibration_text(report)}</p>")
    parts.append(_image(report, "reliability diagram"))
    parts.append(f"<h2>Run</h2>\n{_table((), report.facts.items(), 'facts')}")
    parts.append(f"<pre>{escape(chr(10).join(report.commands))}</pre>")
    if report.config is not None:
        parts.append(f"<h2>Config</h2>\n<pre>{escape(report.config)}</pre>")
    return "\n".join([*parts, "</body>\n</html>\n"])


def _lines(curves: Mapping[str, Points]) -> dict[str, dict[str, Points]]:
    """Return what each chart shows: its lines, by name."""
    charts = {
        name: {tag.split("/")[1]: curves[tag] for tag in tags if curves.get(tag)} for name, tags in CURVES.items()
    }
    return {name: lines for name, lines in charts.items() if lines}


def _calibration_text(report: Report) -> str:
    card = report.card
    score, answers = card.calibration, sum(map(sum, card.confusion))
    text = (
        f"Expected calibration error over {score.bins} bins: {_percent(score.ece)}. That is how far probabilities and "
        "shares of right answers lie apart, in the mean over all answers."
    )
    if score.temperature is None or score.calibrated_ece is None or score.sure is None:
        return f"{text} No temperature was fitted, for the checkpoint was saved without validation."
    return (
        f"{text} Dividing the logits by the temperature {score.temperature:.3f}, fitted to validation {report.noun}, "
        f"makes it {_percent(score.calibrated_ece)}. An answer counts as unsure when its probability after that is "
        f"below {score.unsure_below:.3f}: {answers - score.sure:,} answers are unsure, and of the other {score.sure:,} "
        f"{score.sure_correct:,} are right."
    )


def _image(report: Report, name: str) -> str:
    data = base64.b64encode(report.pictures[name]).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> str:
    head = f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>" if heads else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}">{head}{body}</table>'


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.2f} %"
