"""How a stretch of source samples becomes a row of output samples: taps and their weights.

Shrinking takes the exact average over each output sample's footprint (a box filter), enlarging
interpolates linearly between sample centres, clamped at the edges. Both are a weighted sum of a
few neighbours, so one kernel serves both.

Chroma siting: samples sit in the centre of their 2x2 luma block, as libyuv and the browsers make
them, so a rectangle of the picture is the same rectangle, halved, in the chroma planes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROW_TOTAL = 32768
COLUMN_TOTAL = 16384


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """Output ``i`` is the sum over ``t`` of ``source[start[i] + t] * weight[i, t]``.

    ``start`` is int32 ``(count,)``, ``weight`` uint16 ``(count, taps)``; each row of weights sums
    to the total asked for, and ``start[i] + taps`` never passes the end of the source.
    """

    start: npt.NDArray[np.int32]
    weight: npt.NDArray[np.uint16]

    @property
    def count(self) -> int:
        return int(self.weight.shape[0])

    @property
    def width(self) -> int:
        """Taps per output sample."""
        return int(self.weight.shape[1])


@dataclass(frozen=True, slots=True)
class Span:
    """Part of an axis in samples, exact: ``origin / scale`` and ``extent / scale``."""

    origin: int
    extent: int
    scale: int


def taps(length: int, span: Span, count: int, total: int) -> Taps:
    """Taps for ``count`` outputs that cover ``span`` of a source of ``length`` samples.

    Raises ValueError for a span that is empty or leaves the source.
    """
    if count <= 0 or span.extent <= 0 or span.origin < 0:
        raise ValueError(f"nothing to sample: {span} into {count}")
    if span.origin + span.extent > length * span.scale:
        raise ValueError(f"{span} leaves a source of {length} samples")
    if span.extent >= count * span.scale:
        return _average(length, span, count, total)
    return _interpolate(length, span, count, total)


def _average(length: int, span: Span, count: int, total: int) -> Taps:
    # Footprints in exact units of 1 / (scale * count) of a sample.
    unit = span.scale * count
    edges = span.origin * count + span.extent * np.arange(count + 1, dtype=np.int64)
    first = edges[:-1] // unit
    width = int((-(-edges[1:] // unit) - first).max())
    first = np.minimum(first, length - width)
    bounds = (first[:, None] + np.arange(width + 1)) * unit
    covered = np.clip(bounds, edges[:-1, None], edges[1:, None]) - edges[:-1, None]
    # Rounding the running sum, not each weight, keeps every total exact.
    running = (2 * covered * total + span.extent) // (2 * span.extent)
    return Taps(first.astype(np.int32), np.diff(running, axis=1).astype(np.uint16))


def _interpolate(length: int, span: Span, count: int, total: int) -> Taps:
    # Centres in exact units of 1 / (2 * scale * count) of a sample.
    unit = 2 * span.scale * count
    index = np.arange(count, dtype=np.int64)
    centre = 2 * span.origin * count + span.extent * (2 * index + 1) - unit // 2
    centre = np.clip(centre, 0, (length - 1) * unit)
    width = min(2, length)
    first = np.minimum(centre // unit, length - width)
    second = ((centre - first * unit) * total + unit // 2) // unit
    weight = np.stack((total - second, second), axis=1)[:, :width]
    return Taps(first.astype(np.int32), weight.astype(np.uint16))
