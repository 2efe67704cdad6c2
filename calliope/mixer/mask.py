"""Ink with soft edges: what the rasteriser makes and the compositor blends."""

from __future__ import annotations

from dataclasses import dataclass

from calliope.media import Plane


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Coverage of one label or mark, 0 (clear) to 255 (ink), for luma and for chroma.

    ``luma`` is uint8 ``(h, w)``, ``chroma`` uint8 ``((h + 1) // 2, (w + 1) // 2)``: the mean of
    each 2x2 block. Rows may be strided (views into an atlas); nobody writes to them afterwards.
    """

    luma: Plane
    chroma: Plane

    @property
    def width(self) -> int:
        return int(self.luma.shape[1])

    @property
    def height(self) -> int:
        return int(self.luma.shape[0])
