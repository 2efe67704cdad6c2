"""Slow, plain twins of what the mixer does to planes, and planes to do it to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from calliope.media import Frame, Plane
from calliope.mixer.mask import Mask
from calliope.mixer.overlay import MarkKind
from calliope.mixer.resample import Span

Matrix = npt.NDArray[np.float64]


def matrix(length: int, span: Span, count: int) -> Matrix:
    """The exact resampling of one axis as a ``(count, length)`` matrix: area or bilinear."""
    step = span.extent / (span.scale * count)
    index, sample = np.arange(count)[:, None], np.arange(length)[None, :]
    if span.extent >= span.scale * count:
        begin = span.origin / span.scale + step * index
        covered = np.minimum(begin + step, sample + 1) - np.maximum(begin, sample)
        area: Matrix = np.clip(covered, 0, None) / step
        return area
    centre = np.clip(span.origin / span.scale + step * (index + 0.5) - 0.5, 0, length - 1)
    tent: Matrix = np.clip(1 - np.abs(sample - centre), 0, None)
    return tent


def resampled(plane: Plane, rows: Span, columns: Span, height: int, width: int) -> Matrix:
    """The exact picture, not rounded, of part of a plane at another size."""
    down = matrix(plane.shape[0], rows, height)
    across = matrix(plane.shape[1], columns, width)
    exact: Matrix = down @ plane.astype(np.float64) @ across.T
    return exact


def padded(plane: Plane, padding: int) -> Plane:
    """The same samples in rows that lie ``padding`` bytes apart."""
    wide = np.full((plane.shape[0], plane.shape[1] + padding), 77, np.uint8)
    wide[:, : plane.shape[1]] = plane
    return wide[:, : plane.shape[1]]


def noise(width: int, height: int, seed: int = 0, serial: int = 1, padding: int = 0) -> Frame:
    """A frame of random samples."""
    rng = np.random.default_rng((seed, width, height, serial))
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = (
        padded(rng.integers(0, 256, shape, dtype=np.uint8), padding)
        for shape in ((height, width), half, half)
    )
    return Frame(y, u, v, serial, serial * 1000)


def flat(width: int, height: int, y: int, u: int, v: int, serial: int = 1) -> Frame:
    """A frame of one colour."""
    half = ((height + 1) // 2, (width + 1) // 2)
    return Frame(
        np.full((height, width), y, np.uint8),
        np.full(half, u, np.uint8),
        np.full(half, v, np.uint8),
        serial,
        serial * 1000,
    )


def block(width: int, height: int) -> Mask:
    """Solid ink."""
    return Mask(
        np.full((height, width), 255, np.uint8),
        np.full(((height + 1) // 2, (width + 1) // 2), 255, np.uint8),
    )


class Blocks:
    """A label source of solid blocks, which holds them back until told otherwise."""

    def __init__(self, ready: bool = True) -> None:
        self.ready = ready
        self.generation = 0
        self.asked = 0

    def arrive(self) -> None:
        """Now the masks are there."""
        self.ready = True
        self.generation += 1

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        self.asked += 1
        return block(min(8 * len(name), max_width_px), height_px) if self.ready else None

    def initials(self, name: str, height_px: int) -> Mask | None:
        self.asked += 1
        return block(height_px, height_px) if self.ready else None

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None:
        self.asked += 1
        return block(size_px, size_px) if self.ready else None
