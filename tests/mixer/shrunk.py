"""What the loops for simple ratios make of some planes, as one number, on whatever CPU this is.

Run as a program it prints the number: to be compared with that of another way to compile them.
"""

from __future__ import annotations

import zlib

import numpy as np

from calliope.jit import kernel
from calliope.media import Plane
from calliope.mixer import ratios
from calliope.simd import start_of

SIZES = ((8, 4), (14, 6), (16, 2), (24, 5), (70, 9), (252, 10))


@kernel
def shrink(
    ratio: int, pixels: Plane, pitch: int, out: Plane, width: int, height: int, scratch: Plane
) -> None:
    """A part that begins in column 3, into rows with three more bytes on either side."""
    ratios.shrink(
        ratio, start_of(pixels), pixels.size, pitch, 0, 3,
        start_of(out), 3, width + 6, width, height, start_of(scratch),
    )  # fmt: skip


def checksum() -> int:
    """Of every ratio at several sizes, rows with a border that is not to be written."""
    rng = np.random.default_rng(3)
    found = 0
    for ratio, (p, q) in enumerate(ratios.RATIOS):
        for width, height in SIZES:
            pitch, rows = width * p // q + 9, -(-height * p // q) + 1
            pixels = rng.integers(0, 256, pitch * rows, np.uint8)
            out = np.full((height + 1) * (width + 6), 77, np.uint8)
            scratch = np.zeros(ratios.SCRATCH, np.uint8)
            shrink(ratio, pixels, pitch, out, width, height, scratch)
            found = zlib.crc32(out.tobytes(), found)
    return found


if __name__ == "__main__":
    print(checksum())
