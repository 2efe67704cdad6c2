"""How a stretch of source samples becomes a row of output samples: taps and their weights.

Shrinking takes the exact average over each output sample's footprint (a box filter), enlarging
interpolates linearly between sample centres, clamped at the edges. Both are a weighted sum of a
few neighbours, so the same kernels serve both.

Chroma siting: samples sit in the centre of their 2x2 luma block, as libyuv and the browsers make
them, so a rectangle of the picture is the same rectangle, halved, in the chroma planes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from calliope.media import Plane
from calliope.mixer.ratios import RATIOS

ROW_TOTAL = 32768
"""What row weights sum to where they are not whole numbers: a fraction of 2^15 each."""
PRODUCT_BITS = 21
"""Row sum times column weight is the sample times 2^21."""
COPY, ONE_GATHER, TWO_GATHERS, PAIRS, BLOCKS, SHRINK = range(6)
"""How a plane is done: copied, by :class:`Columns`, or by a simple ratio."""
LANES = 8


@dataclass(frozen=True, slots=True)
class Span:
    """Part of an axis in samples, exact: ``origin / scale`` and ``extent / scale``."""

    origin: int
    extent: int
    scale: int

    @property
    def halved(self) -> Span:
        """The same part of the picture in chroma samples."""
        return Span(self.origin, self.extent, 2 * self.scale)


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Output ``i`` is the sum over ``t`` of ``source[start[i] + t] * weight[i, t]`` / ``unit``.

    ``start`` is int64 ``(count,)``, ``weight`` int64 ``(count, taps)``; each row of weights sums
    to ``unit`` exactly, and ``start[i] + taps`` never passes the end of the source.
    """

    start: npt.NDArray[np.int64]
    weight: npt.NDArray[np.int64]
    unit: int

    @property
    def width(self) -> int:
        """Taps per output sample."""
        return int(self.weight.shape[1])

    def rounded(self, total: int) -> npt.NDArray[np.int64]:
        """The weights as whole numbers that sum to ``total`` for every output."""
        # Rounding the running sum, not each weight, keeps every total exact.
        running = (2 * self.weight.cumsum(axis=1) * total + self.unit) // (2 * self.unit)
        return np.diff(running, axis=1, prepend=0)


def taps(length: int, span: Span, count: int) -> Taps:
    """Taps for ``count`` outputs that cover ``span`` of a source of ``length`` samples.

    Raises ValueError for a span that is empty or leaves the source.
    """
    if count <= 0 or span.extent <= 0 or span.origin < 0:
        raise ValueError(f"nothing to sample: {span} into {count}")
    if span.origin + span.extent > length * span.scale:
        raise ValueError(f"{span} leaves a source of {length} samples")
    if span.extent >= count * span.scale:
        return _average(length, span, count)
    return _interpolate(length, span, count)


def _average(length: int, span: Span, count: int) -> Taps:
    # Footprints in exact units of 1 / (scale * count) of a sample.
    unit = span.scale * count
    edges = span.origin * count + span.extent * np.arange(count + 1, dtype=np.int64)
    first = edges[:-1] // unit
    width = int((-(-edges[1:] // unit) - first).max())
    first = np.minimum(first, length - width)
    bounds = (first[:, None] + np.arange(width + 1)) * unit
    covered = np.clip(bounds, edges[:-1, None], edges[1:, None])
    return Taps(first, np.diff(covered, axis=1), span.extent)


def _interpolate(length: int, span: Span, count: int) -> Taps:
    # Centres in exact units of 1 / (2 * scale * count) of a sample.
    unit = 2 * span.scale * count
    index = np.arange(count, dtype=np.int64)
    centre = 2 * span.origin * count + span.extent * (2 * index + 1) - unit // 2
    centre = np.clip(centre, 0, (length - 1) * unit)
    width = min(2, length)
    first = np.minimum(centre // unit, length - width)
    second = centre - first * unit
    return Taps(first, np.stack((unit - second, second), axis=1)[:, :width], unit)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The row pass: which source rows sum up to a line, and with what weights.

    ``start`` is int32 ``(count,)``, ``weight`` uint16 ``(count, taps)``. With ``exact`` 0 the
    weights are fractions of 2^15 and a line holds samples times 128. Otherwise there are 2, 4 or
    6 taps, and they are whole numbers that sum to ``exact`` and are in proportion without rounding,
    small enough for byte multiplication; a line holds samples times ``exact``. With ``wide`` they
    are only if samples are taken as signed bytes, which costs a little more.
    """

    start: npt.NDArray[np.int32]
    weight: npt.NDArray[np.uint16]
    exact: int
    wide: bool = False

    @property
    def gain(self) -> int:
        """By what a line's samples are multiplied."""
        return self.exact or ROW_TOTAL >> 8


def plan_rows(found: Taps, length: int) -> Rows:
    """The row pass for some taps over a source of ``length`` rows."""
    width = -(-found.width // 2) * 2
    if width <= 6 and length >= width:
        start, weight = _widened(found, length, width)
        common = int(np.gcd.reduce(weight, axis=None))
        for wide in (False, True) if width == 4 else (False,):
            factor = _byte_factor(weight // common, found.unit // common, wide)
            if factor:
                exact = (weight // common * factor).astype(np.uint16)
                return Rows(start.astype(np.int32), exact, found.unit // common * factor, wide)
    return Rows(found.start.astype(np.int32), found.rounded(ROW_TOTAL).astype(np.uint16), 0)


def _widened(
    found: Taps, length: int, width: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The same taps with weights of 0 added, still inside the source."""
    start = np.minimum(found.start, length - width)
    weight = np.zeros((start.size, width), np.int64)
    tap = (found.start - start)[:, None] + np.arange(found.width)
    inside = tap < width  # what would fall beyond has a weight of 0
    rows = np.broadcast_to(np.arange(start.size)[:, None], tap.shape)
    weight[rows[inside], tap[inside]] = found.weight[inside]
    return start, weight


def _byte_factor(weight: npt.NDArray[np.int64], unit: int, wide: bool) -> int:
    """The largest factor that byte multiplication carries; 0 if that is too little.

    Of two bytes multiplied one is signed: the weight, or with ``wide`` the sample. A pair of
    products must fit 16 bits signed and all of them 16 bits; and column weights, which make up
    for a small sum, must fit 15 bits.
    """
    pair, largest = (255, 255) if wide else (128, 127)
    largest_pair = int(weight.reshape(weight.shape[0], -1, 2).sum(axis=2).max())
    factor = min(pair // largest_pair, largest // int(weight.max()), 256 // unit)
    return factor if factor * unit > 1 << (PRODUCT_BITS - 15) else 0


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The column pass: how each output sample is gathered from a line.

    ``way`` says how, for groups of 8 outputs (the last one padded with weights of 0):

    * ``ONE_GATHER``, ``TWO_GATHERS``: a vector load at ``base`` holds two neighbours each of 4
      outputs, ``picks`` puts them in order; the second load holds their other two neighbours.
    * ``PAIRS``: a vector load holds all four neighbours each of 2 outputs.
    * ``BLOCKS``: ``loads`` vector loads for each output.

    ``base`` is int32, ``picks`` uint8 (16 a load), ``weight`` int16 (8 a load), in the order in
    which the kernel reads them. Samples ``first`` to ``last`` of a line have a weight.
    """

    way: int
    count: int
    first: int
    last: int
    loads: int
    base: npt.NDArray[np.int32]
    picks: npt.NDArray[np.uint8]
    weight: npt.NDArray[np.int16]


def plan_columns(found: Taps, gain: int) -> Columns:
    """The column pass for some taps over lines whose samples are multiplied by ``gain``."""
    total = round((1 << PRODUCT_BITS) / gain)
    count = found.start.size
    padded = -(-count // LANES) * LANES
    start = np.concatenate((found.start, np.repeat(found.start[-1:], padded - count)))
    weight = np.zeros((padded, -(-found.width // 4) * 4), np.int64)
    weight[:count, : found.width] = found.rounded(total)
    way, base, picks, ordered = _arrange(start, weight, found.width)
    return Columns(
        way,
        count,
        int(start[0]),
        int(start[-1]) + found.width,
        -(-found.width // LANES),
        base.astype(np.int32).reshape(-1),
        picks.astype(np.uint8).reshape(-1),
        ordered.astype(np.int16).reshape(-1),
    )


_Arranged: TypeAlias = tuple[
    int, npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]
]


def _arrange(start: npt.NDArray[np.int64], weight: npt.NDArray[np.int64], width: int) -> _Arranged:
    if width > 4:
        return _arrange_blocks(start, weight)
    fours = start.reshape(-1, 4)
    offset = fours - fours[:, :1]
    if offset.max() + 2 <= 8:
        loads = 1 if width <= 2 else 2
        base = fours[:, :1] + 2 * np.arange(loads)
        picks = np.repeat(_bytes_of(offset, 2)[:, None], loads, axis=1)
        ordered = weight.reshape(-1, 4, 2, 2).transpose(0, 2, 1, 3)[:, :loads]
        return (ONE_GATHER if loads == 1 else TWO_GATHERS), base, picks, ordered
    twos = start.reshape(-1, 2)
    offset = twos - twos[:, :1]
    if offset.max() + 4 <= 8:
        return PAIRS, twos[:, 0], _bytes_of(offset, 4), weight
    return _arrange_blocks(start, weight)


def _arrange_blocks(start: npt.NDArray[np.int64], weight: npt.NDArray[np.int64]) -> _Arranged:
    wide = np.zeros((start.size, -(-weight.shape[1] // 8) * 8), np.int64)
    wide[:, : weight.shape[1]] = weight
    return BLOCKS, start, np.zeros(16, np.int64), wide


def _bytes_of(offset: npt.NDArray[np.int64], samples: int) -> npt.NDArray[np.int64]:
    """Which bytes of a vector of words are ``samples`` words from each offset on."""
    words = offset[..., None] + np.arange(samples)
    places: npt.NDArray[np.int64] = 2 * words[..., None] + np.arange(2)
    return places.reshape(offset.shape[0], 16)


ALIGNMENT = 16


def plan(size: tuple[int, int], rows: Span, columns: Span, target: tuple[int, int]) -> Plane:
    """How part of a plane becomes ``target``, as one uint8 table that the kernel ``scale`` reads.

    It begins with int64: exact, way, count, first, last, loads, rows, taps, wide, and where row
    starts, row weights, bases, picks and weights begin, in bytes; then come these arrays. With
    the way ``SHRINK`` it is 0, way, count, left, 0, 0, rows, which ratio, top. Sizes are
    (height, width). Raises ValueError where a span is empty or leaves the plane.
    """
    down, across = taps(size[0], rows, target[0]), taps(size[1], columns, target[1])
    ratio = _ratio(rows, columns, target)
    if ratio is not None:
        top, left = rows.origin // rows.scale, columns.origin // columns.scale
        numbers = (0, SHRINK, target[1], left, 0, 0, target[0], ratio, top)
        return packed(numbers, [np.zeros(0, np.uint8)] * 5)
    row = plan_rows(down, size[0])
    column = plan_columns(across, row.gain)
    way, row_start = column.way, row.start
    if down.width == 1 and across.width == 1 and int(np.ptp(across.start)) == target[1] - 1:
        way, row_start = COPY, down.start.astype(np.int32)
    head = (row.exact, way, column.count, column.first, column.last, column.loads)
    return packed(
        (*head, *row.weight.shape, int(row.wide)),
        (row_start, row.weight, column.base, column.picks, column.weight),
    )


def _ratio(rows: Span, columns: Span, target: tuple[int, int]) -> int | None:
    """Which of ``RATIOS`` both axes have, from a whole sample on."""
    if rows.origin % rows.scale or columns.origin % columns.scale:
        return None
    for index, (p, q) in enumerate(RATIOS):
        if all(
            span.extent * q == span.scale * count * p
            for span, count in zip((rows, columns), target, strict=True)
        ):
            return index
    return None


def packed(numbers: Sequence[int], arrays: Sequence[npt.NDArray[Any]]) -> Plane:
    """Numbers, where each array begins, and the arrays, in one table aligned for vectors."""
    header = 8 * (len(numbers) + len(arrays))
    begins, parts, end = [], [], -(-header // ALIGNMENT) * ALIGNMENT
    for array in arrays:
        begins.append(end)
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        parts.append((end, data))
        end = -(-(end + data.size) // ALIGNMENT) * ALIGNMENT
    table: Plane = np.zeros(end, np.uint8)
    table[:header] = np.array([*numbers, *begins], np.int64).view(np.uint8)
    for begin, data in parts:
        table[begin : begin + data.size] = data
    return table
