"""Where a picture lands in its tile, and which part of it is seen."""

from __future__ import annotations

from dataclasses import dataclass

from calliope.mixer.ratios import RATIOS
from calliope.mixer.resample import Span
from calliope.mixer.scene import Fit


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source of one size lands in a tile, and which part of it is seen.

    ``x``, ``y``, ``w``, ``h`` are even and relative to the tile; ``columns`` and ``rows`` are the
    seen part of the source in luma samples.
    """

    x: int
    y: int
    w: int
    h: int
    columns: Span
    rows: Span


def place(width: int, height: int, tile_width: int, tile_height: int, fit: Fit) -> Placement:
    """Fit a source into a tile: ``crop`` fills it and cuts evenly, ``contain`` shows all of it.

    Where cutting off another fiftieth brings the scale to 1 or to one of ``RATIOS``, that is done:
    the picture is sharper (each output covers the same shape of samples) and made sooner.
    """
    wide = width * tile_height - height * tile_width  # > 0: the source is the wider one
    if fit == "contain":
        w, h = tile_width, tile_height
        if wide > 0:
            h = _nearest_even(tile_width * height, width, tile_height)
        elif wide < 0:
            w = _nearest_even(tile_height * width, height, tile_width)
        x, y = (tile_width - w) // 4 * 2, (tile_height - h) // 4 * 2
        return Placement(x, y, w, h, Span(0, width, 1), Span(0, height, 1))
    for p, q in ((1, 1), *RATIOS):
        across, down = tile_width * p, tile_height * p  # the part seen, in q-ths of a sample
        fits = across <= width * q and down <= height * q
        if fits and (50 * across >= 49 * width * q or 50 * down >= 49 * height * q):
            columns = Span(_middle(width * q, across, q), across, q)
            rows = Span(_middle(height * q, down, q), down, q)
            return Placement(0, 0, tile_width, tile_height, columns, rows)
    columns, rows = Span(0, width, 1), Span(0, height, 1)
    if wide > 0:
        columns = Span(wide, 2 * height * tile_width, 2 * tile_height)
    elif wide < 0:
        rows = Span(-wide, 2 * width * tile_height, 2 * tile_width)
    return Placement(0, 0, tile_width, tile_height, columns, rows)


def _nearest_even(numerator: int, denominator: int, limit: int) -> int:
    return min(limit, max(2, 2 * round(numerator / (2 * denominator))))


def _middle(available: int, wanted: int, scale: int) -> int:
    """Where the middle of an axis begins, at a sample that starts a chroma sample as well."""
    return (available - wanted) // (4 * scale) * 2 * scale
