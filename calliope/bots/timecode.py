"""A frame's number as black and white blocks in its picture, readable after scaling and coding.

Twelve blocks in a row in the middle of the picture: seven bits of number, five that check them.
The middle is what is left when a picture is cut to a tile's shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calliope.media import Plane

NUMBERS = 127
"""Numbers run from 0 to one less than this: the row is never all white."""
_CELLS = 12
_CELL = 1 / 32  # of the picture's width, each way
_BLACK, _WHITE, _GREY = 24, 224, 128
_CONTRAST = 60
"""Levels between the brightest and the darkest block of a row that is really there."""
_SAMPLES = (-0.25, 0.0, 0.25)  # of a cell, from its middle: its edges are blurred


def stamp(planes: tuple[Plane, Plane, Plane], number: int) -> None:
    """Draw the code of ``number`` into I420 planes whose width is a multiple of 4."""
    luma, u, v = planes
    height, width = luma.shape
    cell = width * _CELL
    top, bottom = round(height / 2 - cell / 2), round(height / 2 + cell / 2)
    edges = [round(width / 2 + (index - _CELLS / 2) * cell) for index in range(_CELLS + 1)]
    for index, white in enumerate(_bits(number)):
        luma[top:bottom, edges[index] : edges[index + 1]] = _WHITE if white else _BLACK
    for plane in (u, v):
        plane[top // 2 : (bottom + 1) // 2, edges[0] // 2 : (edges[-1] + 1) // 2] = _GREY


def _bits(number: int) -> list[int]:
    code = number << 5 | _check(number)
    return [code >> (_CELLS - 1 - index) & 1 for index in range(_CELLS)]


def _check(number: int) -> int:
    """Five bits that no single wrong block leaves right; of 0 not all black."""
    return (number * 11 + 13 ^ number >> 2) & 31


@dataclass(frozen=True, slots=True)
class Place:
    """Where a participant's camera is shown, in pixels of the canvas; ``crop``: cut to fill it."""

    id: str
    x: int
    y: int
    w: int
    h: int
    crop: bool


class Reader:
    """Reads the codes of all cameras of one layout out of pictures of one size.

    ``scale`` is the picture's width / the layout's canvas width. The cameras have the shape
    ``source`` (width, height).
    """

    def __init__(self, places: Sequence[Place], scale: float, source: tuple[int, int]) -> None:
        rows, columns = [], []
        steps = np.array(_SAMPLES)
        cells = np.arange(_CELLS) - (_CELLS - 1) / 2
        for place in places:
            across, down = place.w / source[0], place.h / source[1]
            grown = max(across, down) if place.crop else min(across, down)
            cell = grown * source[0] * _CELL * scale
            x, y = (place.x + place.w / 2) * scale, (place.y + place.h / 2) * scale
            at_x = x + (cells[:, None] + steps[None, :]) * cell  # (cells, steps)
            at_y = y + steps * cell
            columns.append(np.repeat(at_x[:, None, :], len(steps), axis=1))
            rows.append(np.broadcast_to(at_y[None, :, None], columns[-1].shape))
        shape = (len(places), _CELLS, len(steps), len(steps))
        self._rows: npt.NDArray[np.intp] = np.reshape(rows, shape).astype(np.intp)
        self._columns: npt.NDArray[np.intp] = np.reshape(columns, shape).astype(np.intp)

    def read(self, luma: Plane) -> list[int | None]:
        """The number in each place, None where none can be read."""
        levels = luma[self._rows, self._columns].mean(axis=(2, 3))  # (places, cells)
        low, high = levels.min(axis=1), levels.max(axis=1)
        white = levels > ((low + high) / 2)[:, None]
        codes = white @ (1 << np.arange(_CELLS - 1, -1, -1))
        numbers: list[int | None] = []
        for code, contrast in zip(codes.tolist(), (high - low).tolist(), strict=True):
            number = code >> 5
            valid = contrast >= _CONTRAST and number < NUMBERS and code & 31 == _check(number)
            numbers.append(number if valid else None)
        return numbers
