"""Sprites: ink blended beforehand, so that drawing it over a new frame is one multiplication.

A sprite is a rectangle at an even place in its tile, of even size. For every sample it covers it
holds how much of the picture it keeps and what light it adds, however many layers it was made of:
flat uint8, keep and add of luma, each ``(h, w)``, then keep and add of U, keep and add of V, each
``(h // 2, w // 2)``. That is what ``kernels.blend_sprites`` takes; chroma's *keep* stands there
twice, so that all planes blend alike. The caller owns the buffer.
"""

from __future__ import annotations

from numba import types

from calliope.jit import kernel
from calliope.media import Plane
from calliope.mixer.kernels import add_ink, corner, divided_one

_INK = types.Array(types.uint8, 1, "C")
# A mask is taken as it comes (strided, read-only): one compilation for all of them.
_MASK = types.Array(types.uint8, 2, "A", readonly=True)
_INT = types.int64


def sprite_bytes(width: int, height: int) -> int:
    """The size of one sprite in its buffer."""
    return 3 * width * height


@kernel
def _mean_corner(x: int, y: int, width: int, height: int, radius: int) -> int:
    """The mean of a rounded rectangle's coverage over the 2x2 block at ``x``, ``y``."""
    right, below = min(x + 1, width - 2 - x), min(y + 1, height - 2 - y)
    upper = corner(x, y, radius) + corner(right, y, radius)
    return (upper + corner(x, below, radius) + corner(right, below, radius) + 2) >> 2


@kernel
def _round(
    ink: Plane,
    begin: int,
    width: int,
    height: int,
    shape: int,
    radius: int,
    part: int,
    alpha: int,
    value: int,
) -> None:
    """Keep and add of one plane; ``part``: 1 for luma, 2 for chroma; ``radius``: of luma."""
    end = begin + width * height
    keep = ink[begin:end].reshape(height, width)
    add = ink[end : end + width * height].reshape(height, width)
    kept, added = 255 - alpha, divided_one(alpha * value)
    for y in range(height):
        for x in range(shape):
            keep[y, x] = kept
        for x in range(shape):
            add[y, x] = added
        for x in range(shape, width):
            keep[y, x] = 255
        for x in range(shape, width):
            add[y, x] = 0
    for y in range((radius + part - 1) // part):
        for x in range((radius + part - 1) // part):
            if part == 1:
                coverage = corner(x, y, radius)
            else:
                coverage = _mean_corner(2 * x, 2 * y, 2 * shape, 2 * height, radius)
            if coverage == 255:
                continue
            opacity = divided_one(coverage * alpha)
            kept, added = 255 - opacity, divided_one(opacity * value)
            for down in (y, height - 1 - y):
                for across in (x, shape - 1 - x):
                    keep[down, across] = kept
                    add[down, across] = added


@kernel(signature=types.void(_INK, *[_INT] * 7))
def begin_sprite(
    ink: Plane,
    width: int,
    height: int,
    shape: int,
    radius: int,
    alpha: int,
    luma: int,
    chroma: int,
) -> None:
    """Make a sprite that holds a rectangle with rounded corners, ``shape`` wide, at its left.

    ``alpha`` of 255 is the rectangle's opacity, ``luma`` and ``chroma`` (``u << 8 | v``) its
    colour. The rest of the sprite is clear.
    """
    _round(ink, 0, width, height, shape, radius, 1, alpha, luma)
    begin = 2 * width * height
    width, height, shape = width // 2, height // 2, shape // 2
    _round(ink, begin, width, height, shape, radius, 2, alpha, chroma >> 8)
    begin += 2 * width * height
    _round(ink, begin, width, height, shape, radius, 2, alpha, chroma & 255)


@kernel(signature=types.void(_INK, *[_INT] * 2, _MASK, _MASK, *[_INT] * 4))
def lay_mask(
    ink: Plane,
    width: int,
    height: int,
    coverage: Plane,
    halved: Plane,
    x: int,
    y: int,
    luma: int,
    chroma: int,
) -> None:
    """Put a mask of one colour (``chroma`` is ``u << 8 | v``) over a sprite, at an even place.

    What would fall outside the sprite is cut off. Ink lets through what it does not cover, so
    what a sprite keeps shrinks as if black were laid over it.
    """
    size = width * height
    add_ink(ink[:size].reshape(height, width), coverage, y, x, 255, 0)
    add_ink(ink[size : 2 * size].reshape(height, width), coverage, y, x, 255, luma)
    begin = 2 * size
    size //= 4
    for value in (0, chroma >> 8, 0, chroma & 255):
        plane = ink[begin : begin + size].reshape(height // 2, width // 2)
        add_ink(plane, halved, y // 2, x // 2, 255, value)
        begin += size
