import re
from itertools import pairwise

import pytest

from mnist_lightning.evaluation.charts import COLOURS, line_chart, round_steps

TRAIN, VAL = [(0, 0.5), (1, 0.25), (2, 0.125)], [(0, 0.4), (1, 0.3), (2, 0.35)]


def circles(svg: str, colour: str) -> list[tuple[float, float]]:
    """Return the centres of a line's points."""
    found = re.findall(rf'<circle cx="([\d.]+)" cy="([\d.]+)" r="3" fill="{colour}">', svg)
    return [(float(x), float(y)) for x, y in found]


def height_of(svg: str, tick: str) -> float:
    (y,) = re.findall(rf'<text class="left" x="[\d.]+" y="([\d.]+)">{re.escape(tick)}</text>', svg)
    return float(y) - 4  # text stands below its grid line


def test_points_stand_where_the_axis_says() -> None:
    svg = line_chart("Loss", {"train": TRAIN, "val": VAL})
    zero, one = height_of(svg, "0.1"), height_of(svg, "0.5")
    for points, colour in zip((TRAIN, VAL), COLOURS, strict=True):
        drawn = circles(svg, colour)
        assert len(drawn) == 3
        for (_, value), (_, y) in zip(points, drawn, strict=True):
            assert y == pytest.approx(zero + (value - 0.1) / 0.4 * (one - zero), abs=0.15)  # coordinates have a decimal
        (first, _), (middle, _), (last, _) = drawn
        assert middle == pytest.approx((first + last) / 2, abs=0.1)


def test_lines_differ_in_more_than_colour() -> None:
    svg = line_chart("Loss", {"train": TRAIN, "val": VAL})
    assert len(set(re.findall('stroke-dasharray="([^"]+)"', svg))) == 2
    assert ">train</text>" in svg
    assert ">val</text>" in svg


@pytest.mark.parametrize("points", [[(7, 0.3)], [(0, 0.3), (1, 0.3)], [(0, 0.0)], [(3, 1e-14), (4, 2e-14)]])
def test_a_single_point_or_a_flat_line_has_an_axis(points: list[tuple[int, float]]) -> None:
    svg = line_chart("Loss", {"train": points})
    drawn = circles(svg, COLOURS[0])
    assert len(drawn) == len(points)
    assert all(34 < y < 240 for _, y in drawn)
    ticks = re.findall(r'class="left" x="[\d.]+" y="[\d.]+">([^<]+)<', svg)
    assert len(set(ticks)) == len(ticks) >= 3


def test_many_epochs_have_few_numbers() -> None:
    svg = line_chart("Loss", {"train": [(epoch, 1 / (1 + epoch)) for epoch in range(237)]})
    numbers = re.findall(r'class="middle" x="[\d.]+" y="256.0">(\d+)<', svg)
    assert 5 <= len(numbers) <= 11
    assert numbers[0] == "0"


def test_what_stands_in_a_name_is_no_markup() -> None:
    assert "<b>" not in line_chart("<b>", {"<b>": TRAIN})


@pytest.mark.parametrize("low", [0.0, -3.0, 0.97, 1e-5, 123.0])
@pytest.mark.parametrize("width", [1e-3, 0.29, 1.0, 77.0])
def test_round_steps_enclose_the_range_in_a_few_equal_steps(low: float, width: float) -> None:
    ticks = round_steps(low, low + width)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= low + width - 1e-9
    assert 3 <= len(ticks) <= 7
    steps = [after - before for before, after in pairwise(ticks)]
    assert steps == pytest.approx([steps[0]] * len(steps))
