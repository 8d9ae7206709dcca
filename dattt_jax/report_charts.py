"""Charts as inline SVG for reports: lines and grouped bars, readable on a desktop and on a phone.

Positions along the width are percentages, so a chart is as wide as its place while text keeps its size.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

from matplotlib.ticker import MaxNLocator

from dattt_jax.report_template import Html, join, tag

_COLORS = 7  # `--s0` … of the page's style; as many marks
_LINE_HEIGHT = 240  # pixels, of a line chart's plot
_MARKED = 50  # longest curve with marks at its points
_BAR, _BAR_PITCH, _GROUP_LABEL, _GROUP_GAP = 11, 14, 18, 12  # pixels, of a bar chart
_SMALLEST = 0.05  # a signed chart reaches at least so far on both sides
_VALUE_ROOM = 0.16  # share of a signed chart's width for the numbers beside the bars, on each side

# One shape per series, so that colour is not the only difference.
_SHAPES = ("M-3.5,-3.5h7v7h-7z", "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z", "M0,-5L4.6,3.6H-4.6z",
           "M0,-5L5,0L0,5L-5,0z", "M0,5L4.6,-3.6H-4.6z", "M-5,-1.8h10v3.6h-10z", "M-1.8,-5h3.6v10h-3.6z")
MARKS = tag("svg", tag("defs", *(tag("path", id=f"mark{i}", d=shape) for i, shape in enumerate(_SHAPES))),
            width=0, height=0, style="position:absolute", aria_hidden="true")
"""The marks, which a page with charts must hold once."""


@dataclasses.dataclass(frozen=True)
class Series:
    """Values of one strategy.

    Attributes:
        label: its name in the legend.
        color: number of its colour and mark; 0 is the grey of a reference.
        values: one per point or group; None leaves a gap.
    """

    label: str
    color: int
    values: Sequence[float | None]

    @property
    def style(self) -> str:
        """Class of its elements."""
        return f"s{self.color % _COLORS}"

    @property
    def mark(self) -> str:
        """Reference to its mark."""
        return f"#mark{self.color % _COLORS}"


def legend(series: Sequence[Series], *, lines: bool = False) -> Html:
    """Names of the series beside their colours; `lines`: as a line chart draws them, with their marks."""
    items = []
    for each in series:
        sample = [tag("rect", width=12, height=12, class_=each.style)]
        if lines:
            sample = [tag("line", x1=0, x2=28, y1=6, y2=6, stroke_width=2, class_=each.style),
                      tag("use", href=each.mark, x=14, y=6, class_=each.style)]
        drawn = tag("svg", *sample, width=28 if lines else 12, aria_hidden="true")
        items.append(tag("li", drawn, each.label))
    return tag("ul", *items, class_="legend")


def line_chart(title: str, series: Sequence[Series], x_label: str, y_label: str) -> Html:
    """Curves over 1, 2, 3, ….

    Args:
        title: what it shows.
        series: the curves, at least one with a value.
        x_label: the horizontal axis.
        y_label: the vertical axis, with its unit; written above it.

    Returns:
        A figure.
    """
    values = [value for each in series for value in each.values if value is not None]
    ticks = _ticks_around(min(values), max(values))
    low, high = ticks[0], ticks[-1]
    count = max(len(each.values) for each in series)

    def left(index: int) -> float:
        return 50.0 if count == 1 else 100 * index / (count - 1)

    def top(value: float) -> float:
        return 100 * (high - value) / (high - low)

    grid = [_row_line(top(value), value) for value in ticks]
    numbers = range(1, count + 1)
    if count > 10:
        numbers = [n for n in _ticks_around(1, count, whole=True) if 1 <= n <= count]
    grid += [tag("text", f"{n:g}", x=_percent(left(int(n) - 1)), y="100%", dy=18, text_anchor="middle",
                 class_="tick") for n in numbers]
    curves, points = [], []
    for each in series:
        curves += [tag("polyline", points=" ".join(f"{left(i):.2f},{top(value):.2f}" for i, value in run),
                       class_=each.style) for run in _runs(each.values)]
        if count <= _MARKED:
            points += [tag("use", tag("title", f"{each.label}, {i + 1}: {value:.4g}"), href=each.mark,
                           class_=each.style, x=_percent(left(i)), y=_percent(top(value)))
                       for i, value in enumerate(each.values) if value is not None]
    # Curves are drawn in a square that is stretched to the plot; the marks, which must not be, are outside.
    stretched = tag("svg", *curves, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%",
                    height="100%")
    plot = tag("svg", tag("title", f"{title}: {y_label} over {x_label}"), *grid, stretched, *points,
               tag("text", x_label, x="50%", y="100%", dy=38, text_anchor="middle"), height=_LINE_HEIGHT,
               role="img")
    return tag("figure", tag("h3", title), legend(series, lines=True), tag("div", y_label, class_="soft"),
               tag("div", plot, class_="plot"))


def bar_chart(title: str, groups: Sequence[str], series: Sequence[Series], axis: str, *, signed: bool = False,
              slots: int | None = None) -> Html:
    """Horizontal bars, one group for each video and one bar in it for each series.

    Args:
        title: what it shows.
        groups: names of the groups, from top to bottom.
        series: the bars of each group; a value per group.
        axis: what the horizontal axis is, with its unit.
        signed: bars go left and right from 0 as far as the values need; else from 0 to 100.
        slots: bars that a group has room for, to line charts up; None: as many as there are series.

    Returns:
        A figure.
    """
    ticks, room = [0.0, 25.0, 50.0, 75.0, 100.0], 0.0
    if signed:
        values = [value for each in series for value in each.values if value is not None]
        ticks = _ticks_around(min([-_SMALLEST, *values]), max([_SMALLEST, *values]), 4)
        room = (ticks[-1] - ticks[0]) * _VALUE_ROOM / (1 - 2 * _VALUE_ROOM)
    low, high = ticks[0] - room, ticks[-1] + room

    def left(value: float) -> float:
        return 100 * (value - low) / (high - low)

    pitch = _GROUP_LABEL + _BAR_PITCH * (slots or len(series)) + _GROUP_GAP
    height = pitch * len(groups)
    parts = [_column_line(left(value), value, signed) for value in ticks]
    for row, group in enumerate(groups):
        y = row * pitch + _GROUP_LABEL
        for number, each in enumerate(series):
            if each.values[row] is not None:
                parts.append(_bar(each, group, each.values[row], left, y + number * _BAR_PITCH, signed))
        parts.append(tag("text", tag("title", group), group, x=0, y=y - 5, class_="group"))
    parts.append(tag("text", axis, x="50%", y="100%", dy=38, text_anchor="middle"))
    plot = tag("svg", tag("title", f"{title}: {axis}"), *parts, height=height, role="img")
    return tag("figure", tag("h3", title), legend(series),
               tag("div", plot, class_="plot signed" if signed else "plot bars"))


def _bar(series: Series, group: str, value: float, left: Callable[[float], float], y: float,
         signed: bool) -> Html:
    """One bar with its number at its end."""
    start, end = sorted((left(0), left(value)))
    backward = value < 0
    text = signed_number(value) if signed else f"{value:.2f}"
    return join([
        tag("rect", tag("title", f"{group}, {series.label}: {text}"), x=_percent(start), y=y,
            width=_percent(end - start), height=_BAR, class_=series.style),
        tag("text", text, x=_percent(start if backward else end), y=y + _BAR - 1, dx=-5 if backward else 5,
            text_anchor="end" if backward else "start")])


def _row_line(y: float, value: float) -> Html:
    """A grid line across the plot at y (percent), with its number on the left."""
    return join([tag("line", x1="0", x2="100%", y1=_percent(y), y2=_percent(y)),
                 tag("text", f"{value:g}", x=-8, y=_percent(y), dy=4, text_anchor="end", class_="tick")])


def _column_line(x: float, value: float, signed: bool) -> Html:
    """A grid line from top to bottom at x (percent), with its number at both ends."""
    text = f"{value:+g}" if signed and value else f"{value:g}"
    return join([tag("line", x1=_percent(x), x2=_percent(x), y1="0", y2="100%",
                     class_=None if value else "zero"),
                 *(tag("text", text, x=_percent(x), y=edge, dy=shift, text_anchor="middle", class_="tick")
                   for edge, shift in (("0", -10), ("100%", 18)))])


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def signed_number(value: float, digits: int = 2) -> str:
    """A change with its sign; what rounds to nothing is +0, never -0."""
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def _ticks_around(low: float, high: float, count: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers from the one below `low` to the one above `high`, two at least."""
    if math.isclose(low, high):
        margin = max(0.1 * abs(low), 1e-6)
        low, high = low - margin, high + margin
    values = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], integer=whole).tick_values(low, high)
    return [round(float(value), 12) + 0.0 for value in values]


def _runs(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    """The pieces of a curve between its gaps, as (index, value)."""
    runs: list[list[tuple[int, float]]] = [[]]
    for i, value in enumerate(values):
        if value is not None:
            runs[-1].append((i, value))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if len(run) > 1]
