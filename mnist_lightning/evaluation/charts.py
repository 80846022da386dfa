"""Line charts as SVG, written by hand: what a browser draws needs no library."""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 60, 84, 34, 40  # margins; the right one holds the names of the lines
LINE_HEIGHT = 16
COLOURS = ("#0072B2", "#D55E00")  # blue and vermilion of Okabe and Ito, told apart by all kinds of eyes
DASHES = ("none", "7 4")  # and by those that see no colours

Points = Sequence[tuple[int, float]]


def line_chart(title: str, lines: Mapping[str, Points]) -> str:
    """Return an SVG element with a line or two over the epochs.

    Args:
        title: Its title.
        lines: The finite points (epoch, value) of each line, by name; at least one in each.
    """
    epochs = [epoch for points in lines.values() for epoch, _ in points]
    values = [value for points in lines.values() for _, value in points]
    ticks = round_steps(min(values), max(values))
    first, span = min(epochs), max(max(epochs) - min(epochs), 1)

    def place(epoch: float, value: float) -> tuple[float, float]:
        across, up = (epoch - first) / span, (value - ticks[0]) / (ticks[-1] - ticks[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    parts = [_text(LEFT, 18, title, "title")]
    for tick in ticks:
        _, y = place(first, tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{tick:.6g}", "left"))
    for epoch in range(first, first + span + 1, max(1, math.ceil(span / 10))):
        parts.append(_text(place(epoch, ticks[0])[0], HEIGHT - BOTTOM + 16, str(epoch), "middle"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "epoch", "middle"))
    taken = -math.inf
    # Names stand at the ends of their lines, from the top down, none upon another.
    for name in sorted(lines, key=lambda name: -lines[name][-1][1]):
        colour, dash = COLOURS[list(lines).index(name)], DASHES[list(lines).index(name)]
        corners = [place(*point) for point in lines[name]]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
        parts.append(f'<path class="line" stroke="{colour}" stroke-dasharray="{dash}" d="M{path}"/>')
        for (x, y), (epoch, value) in zip(corners, lines[name], strict=True):
            tip = f"<title>{escape(name)}, epoch {epoch}: {value:.6g}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{tip}</circle>')
        taken = max(corners[-1][1] + 4, taken + LINE_HEIGHT)
        parts.append(_text(corners[-1][0] + 8, taken, name))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'


def round_steps(low: float, high: float) -> list[float]:
    """Return three to seven values at equal steps of 1, 2 or 5 times a power of ten, which enclose a range.

    >>> round_steps(0.013, 0.21)
    [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    """
    if high - low < 1e-9:  # one point, or a flat line
        low, high = low - max(abs(low) / 3, 1e-3), high + max(abs(high) / 3, 1e-3)
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(place * step, 12) for place in range(first, last + 1)]


def _text(x: float, y: float, text: str, kind: str = "right") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
