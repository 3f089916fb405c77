"""Charts as SVG text: sharp in print, no library, nothing to fetch.

All charts share one square frame of 0 to 1 on both axes, unless a range is given.
"""

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from model.evaluation.report import Curve, Seen

COLOURS = ("#0b5394", "#c8590a", "#2e7d4f", "#8e44ad", "#7a6a00", "#b0174a", "#3c6e71", "#5f5f5f")
"""Told apart in print and by most eyes that confuse colours; dashes help the others."""
DASHES = ("", "7 3", "2 2.5", "9 3 2 3", "4 2", "1 2", "10 4", "6 2 2 2")
WIDTH, HEIGHT = 320, 300
LEFT, TOP, RIGHT, BOTTOM = 46, 10, 10, 42
WHISKERS = 3
Range = tuple[float, float]


class Line(NamedTuple):
    """A named line; ``style`` numbers its colour and dashes, -1 is a grey reference."""

    name: str
    curve: Curve
    style: int


class Frame:
    """Axes and a place for marks; data coordinates in, SVG out."""

    def __init__(self, x_label: str, y_label: str, x: Range = (0, 1), y: Range = (0, 1)) -> None:
        self._x, self._y = x, y
        self._parts: list[str] = []
        right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
        for value in _ticks(*x):
            at = self.across(value)
            self._parts.append(f'<line class="grid" x1="{at}" y1="{TOP}" x2="{at}" y2="{bottom}"/>')
            self._text(at, bottom + 14, f"{value:g}", "middle")
        for value in _ticks(*y):
            at = self.up(value)
            self._parts.append(f'<line class="grid" x1="{LEFT}" y1="{at}" x2="{right}" y2="{at}"/>')
            self._text(LEFT - 6, at + 3.5, f"{value:g}".replace("-", "\N{MINUS SIGN}"), "end")
        self._text((LEFT + right) / 2, HEIGHT - 8, x_label, "middle", "label")
        middle = (TOP + bottom) / 2
        self._parts.append(
            f'<text class="label" text-anchor="middle" '
            f'transform="translate(11 {middle}) rotate(-90)">{escape(y_label)}</text>'
        )

    def across(self, x: float) -> float:
        """Place a value on the horizontal axis."""
        low, high = self._x
        return round(LEFT + (x - low) / (high - low) * (WIDTH - LEFT - RIGHT), 2)

    def up(self, y: float) -> float:
        """Place a value on the vertical axis; what lies beyond the frame is drawn at its edge."""
        low, high = self._y
        part = min(1.0, max(0.0, (y - low) / (high - low)))
        return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 2)

    def line(self, line: Line) -> None:
        """Draw a line."""
        points = " ".join(
            f"{self.across(x)},{self.up(y)}"
            for x, y in zip(line.curve.x, line.curve.y, strict=True)
        )
        self._parts.append(
            f'<polyline points="{points}" {_stroke(line.style)}><title>{escape(line.name)}</title>'
            "</polyline>"
        )

    def dot(self, x: float, y: float, style: int, title: str = "", radius: float = 3.2) -> None:
        """Draw a dot."""
        self._parts.append(
            f'<circle cx="{self.across(x)}" cy="{self.up(y)}" r="{radius}" '
            f'fill="{_colour(style)}" stroke="#fff"><title>{escape(title)}</title></circle>'
        )

    def whisker(self, x: float, low: float, high: float, style: int) -> None:
        """Draw an interval upright."""
        at = self.across(x)
        self._parts.append(
            f'<line x1="{at}" y1="{self.up(low)}" x2="{at}" y2="{self.up(high)}" '
            f'stroke="{_colour(style)}" stroke-width="1"/>'
        )

    def svg(self, title: str) -> str:
        """Give the whole picture."""
        right, bottom = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        frame = f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{right}" height="{bottom}"/>'
        return (
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
            f"{''.join(self._parts)}{frame}</svg>"
        )

    def _text(self, x: float, y: float, text: str, anchor: str, kind: str = "tick") -> None:
        self._parts.append(
            f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
        )


def draw_roc(lines: Sequence[Line], dots: Sequence[tuple[float, float, int, str]] = ()) -> str:
    """Draw ROC curves; ``dots`` are operating points: place, style and name."""
    frame = Frame("1 \N{MINUS SIGN} specificity", "sensitivity")
    frame.line(Line("chance", Curve(x=(0, 1), y=(0, 1)), -1))
    for line in lines:
        frame.line(line)
    for x, y, style, name in dots:
        frame.dot(x, y, style, name)
    return frame.svg("ROC curves")


def draw_reliability(models: Sequence[tuple[str, Sequence[Seen], int]]) -> str:
    """Draw said against seen: bins of equal size, each with the 95 % interval of its share."""
    frame = Frame("probability that the model gives", "share that is abnormal")
    frame.line(Line("perfect", Curve(x=(0, 1), y=(0, 1)), -1))
    for name, bins, style in models:
        for one in bins if len(models) <= WHISKERS else ():  # more would hide one another
            frame.whisker(one.mean_probability, one.low, one.high, style)
        x = tuple(one.mean_probability for one in bins)
        frame.line(Line(name, Curve(x=x, y=tuple(one.observed for one in bins)), style))
        for one in bins:
            said = f"{name}: said {one.mean_probability:.2f}, seen {one.observed:.2f}, n {one.n}"
            frame.dot(one.mean_probability, one.observed, style, said)
    return frame.svg("Reliability diagram")


def draw_decision(lines: Sequence[Line], prevalence: float) -> str:
    """Draw net benefit against the threshold."""
    high = max(0.05, prevalence * 1.08)
    frame = Frame("threshold probability", "net benefit", y=(-0.2 * high, high))
    frame.line(Line("flag no one", Curve(x=(0, 1), y=(0, 0)), -1))
    for line in lines:
        kept = [i for i, y in enumerate(line.curve.y) if y >= -0.2 * high]  # steep below
        x, y = line.curve.x, line.curve.y
        shown = Curve(x=tuple(x[i] for i in kept), y=tuple(y[i] for i in kept))
        frame.line(line._replace(curve=shown))
    return frame.svg("Decision curves")


def swatch(style: int) -> str:
    """Draw the short line that stands for a model in a legend."""
    return (
        '<svg class="swatch" viewBox="0 0 26 8">'
        f'<polyline points="0,4 26,4" {_stroke(style)}/></svg>'
    )


def _stroke(style: int) -> str:
    if style < 0:
        return 'fill="none" stroke="#8a8a8a" stroke-width="1" stroke-dasharray="3 3"'
    dashes = DASHES[style % len(DASHES)]
    return f'fill="none" stroke="{_colour(style)}" stroke-width="1.8" stroke-dasharray="{dashes}"'


def _colour(style: int) -> str:
    return "#8a8a8a" if style < 0 else COLOURS[style % len(COLOURS)]


def _ticks(low: float, high: float) -> list[float]:
    step = next(step for step in (0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 6 or step == 0.2)
    first = round(low / step + 0.4999)
    return [round(number * step, 6) for number in range(first, first + 12) if number * step <= high]
