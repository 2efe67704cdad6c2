"""The marks on a tile, drawn by code: a microphone and a signal, both crossed out; a raised hand.

Drawn much larger on a 24 x 24 grid and averaged down, so that edges are soft and a mark reads at 14
pixels. A slash is cut free of what it crosses by a clear line on either side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from calliope.media import Plane

MarkKind: TypeAlias = Literal["muted", "stalled", "hand"]
Point: TypeAlias = tuple[float, float]

_GRID = 24
_OVERSAMPLING = 8
_INK, _CLEAR = 255, 0


def draw_mark(kind: MarkKind, size_px: int) -> Plane:
    """Coverage of a mark, uint8 ``(size_px, size_px)``, newly made."""
    pen = _Pen(size_px)
    _DRAWINGS[kind](pen)
    return pen.averaged()


class _Pen:
    """Round-ended strokes and shapes in grid units on an oversampled canvas."""

    def __init__(self, size_px: int) -> None:
        self._size_px = size_px
        side = size_px * _OVERSAMPLING
        self._scale = side / _GRID
        self._image = Image.new("L", (side, side))
        self._draw = ImageDraw.Draw(self._image)

    def stroke(self, points: list[Point], width: float, fill: int = _INK) -> None:
        scaled = [(x * self._scale, y * self._scale) for x, y in points]
        self._draw.line(scaled, fill, round(width * self._scale), joint="curve")
        reach = width * self._scale / 2
        for x, y in scaled:
            self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill)

    def pill(self, left: float, top: float, right: float, bottom: float, radius: float) -> None:
        box = tuple(edge * self._scale for edge in (left, top, right, bottom))
        self._draw.rounded_rectangle(box, radius * self._scale, _INK)

    def arc(self, center: Point, radius: float, start: int, end: int, width: float) -> None:
        """Clockwise from ``start`` to ``end`` degrees, 0 pointing right."""
        turns = np.radians(np.linspace(start, end, 40))
        points = [
            (center[0] + radius * float(np.cos(a)), center[1] + radius * float(np.sin(a)))
            for a in turns
        ]
        self.stroke(points, width)

    def polygon(self, points: list[Point]) -> None:
        self._draw.polygon([(x * self._scale, y * self._scale) for x, y in points], _INK)

    def averaged(self) -> Plane:
        small = self._image.resize((self._size_px, self._size_px), Image.Resampling.BOX)
        return np.array(small, dtype=np.uint8)


def _slash(pen: _Pen) -> None:
    ends: list[Point] = [(3, 3), (21, 21)]
    pen.stroke(ends, 5.2, _CLEAR)
    pen.stroke(ends, 2.4)


def _muted(pen: _Pen) -> None:
    pen.pill(7.8, 1, 16.2, 14.4, 4.2)
    pen.arc((12, 10.2), 7.2, 0, 180, 2)
    pen.stroke([(12, 17.4), (12, 21.5)], 2)
    pen.stroke([(8, 22), (16, 22)], 2)
    _slash(pen)


def _stalled(pen: _Pen) -> None:
    for left, top in ((1.5, 16), (7.5, 11), (13.5, 6), (19.5, 1)):
        pen.pill(left, top, left + 3.6, 23, 1)
    _slash(pen)


def _hand(pen: _Pen) -> None:
    for x, tip, knuckle in ((7.2, 6, 14), (11, 3, 14), (14.8, 4, 14), (18.6, 7.5, 15)):
        pen.stroke([(x, tip), (x, knuckle)], 3)
    pen.polygon([(5.7, 13), (20.1, 13), (20.1, 16.5), (17.5, 22.5), (10, 22.5), (6.6, 19)])
    pen.stroke([(2.8, 13.2), (7.4, 19)], 3)
    pen.stroke([(10.5, 21), (17, 21)], 4)


_DRAWINGS: dict[MarkKind, Callable[[_Pen], None]] = {
    "muted": _muted,
    "stalled": _stalled,
    "hand": _hand,
}
