"""Loops that draw on planes of one canvas: fill, fade, blend, ink.

All work on uint8 planes in integer arithmetic, without allocation and without the GIL, and write
into memory their caller owns. A canvas is its flat buffer (see :class:`~calliope.mixer.canvas.
Canvas`); ``at`` is the offset of a rectangle's first pixel in it and ``stride`` the bytes from one
row to the next. Nothing outside the rectangle is written.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from calliope.jit import kernel
from calliope.media import Plane
from calliope.simd import (
    Words,
    add_bytes,
    add_words,
    byte_at,
    high_product,
    load_half,
    pack_unsigned,
    put_byte,
    raise_low,
    raise_words,
    skip,
    splat_words,
    start_of,
    store_low,
    subtract_words,
    upper_bytes,
)

Boxes: TypeAlias = npt.NDArray[np.int64]

_FLAT = types.Array(types.uint8, 1, "C")
_INT = types.int64


@kernel
def fill(target: Plane, at: int, stride: int, w: int, h: int, value: int) -> None:
    """Set a rectangle to one value."""
    for _ in range(h):
        row = target[at : at + w]  # indices that begin at 0 become vectors, at + x does not
        for x in range(row.size):
            row[x] = value
        at += stride


@kernel
def fade(target: Plane, at: int, stride: int, w: int, h: int, towards: int, keep: int) -> None:
    """Move a rectangle towards one value: ``keep`` of 256 of the difference is left."""
    rest = towards * (256 - keep) + 128
    for _ in range(h):
        row = target[at : at + w]
        for x in range(row.size):
            row[x] = (np.int32(row[x]) * keep + rest) >> 8
        at += stride


@kernel(inline=True)
def divided(product: Words) -> Words:
    """Words by 255, rounded; up to 255 * 255."""
    product = add_words(product, splat_words(128))
    return upper_bytes(add_words(product, upper_bytes(product)))


@kernel
def divided_one(product: int) -> int:
    """:func:`divided` for one number."""
    return (product + 128 + ((product + 128) >> 8)) >> 8


@kernel
def blend(target: Plane, at: int, stride: int, ink: Plane, begin: int, w: int, h: int) -> None:
    """``target = target * keep / 255 + add`` over a rectangle of ``w`` x ``h``.

    ``keep`` is ``h`` rows of ``w`` bytes in the flat ``ink`` from ``begin`` on, ``add`` follows
    it. The sum stops at 255: after several layers of ink, rounding may have it reach 256.
    """
    out, keep, add = (
        start_of(target),
        skip(start_of(ink), begin),
        skip(start_of(ink), begin + w * h),
    )
    for y in range(h):
        line = y * w
        for x in range(0, w - 7, 8):
            light = raise_low(load_half(out, at + x))
            # Both stand 8 bits high, so the upper half of their product is the product.
            kept = divided(high_product(light, raise_low(load_half(keep, line + x))))
            store_low(out, at + x, add_bytes(pack_unsigned(kept, kept), load_half(add, line + x)))
        for x in range(w & ~7, w):
            kept_one = divided_one(byte_at(out, at + x) * byte_at(keep, line + x))
            put_byte(out, at + x, min(255, kept_one + byte_at(add, line + x)))
        at += stride


@kernel
def add_ink(add: Plane, coverage: Plane, top: int, left: int, alpha: int, value: int) -> None:
    """Put the light of ink over what a sprite's plane adds (Porter-Duff *over*, premultiplied).

    ``add`` and ``coverage`` are 2-D; ``coverage`` times ``alpha`` / 255 is the ink's opacity.
    What would fall outside the sprite is cut off.
    """
    first, start = max(0, -left), max(0, -top)
    rows = min(coverage.shape[0], add.shape[0] - top)
    columns = min(coverage.shape[1], add.shape[1] - left)
    below, ink = start_of(add), start_of(coverage)
    opaque, lit, full = splat_words(alpha << 8), splat_words(value << 8), splat_words(-256)
    for y in range(start, rows):
        to, at = (top + y) * add.strides[0] + left, y * coverage.strides[0]
        x = first
        while x + 8 <= columns:
            cover = raise_low(load_half(ink, at + x))
            opacity = raise_words(divided(high_product(cover, opaque)))
            under = high_product(raise_low(load_half(below, to + x)), subtract_words(full, opacity))
            words = add_words(divided(under), divided(high_product(opacity, lit)))
            store_low(below, to + x, pack_unsigned(words, words))
            x += 8
        while x < columns:
            opacity_one = divided_one(byte_at(ink, at + x) * alpha)
            under_one = divided_one(byte_at(below, to + x) * (255 - opacity_one))
            put_byte(below, to + x, under_one + divided_one(opacity_one * value))
            x += 1


@kernel
def corner(x: int, y: int, radius: int) -> int:
    """How much of a pixel lies inside a rounded corner at the top left, 0 to 255.

    Edges are smoothed by counting 8 x 8 sub-samples, which is exact to 1/64.
    """
    reach = 16 * radius  # in sixteenths of a pixel; sub-samples sit at odd sixteenths
    far_x, far_y = reach - 16 * x - 1, reach - 16 * y - 1
    if x >= radius or y >= radius or far_x * far_x + far_y * far_y <= reach * reach:
        return 255
    near_x, near_y = far_x - 14, far_y - 14
    if near_x * near_x + near_y * near_y > reach * reach:
        return 0
    inside = 0
    for down in range(near_y, far_y + 1, 2):
        for across in range(near_x, far_x + 1, 2):
            if down * down + across * across <= reach * reach:
                inside += 1
    return (inside * 255 + 32) // 64


@kernel
def rounded(coverage: Plane, radius: int) -> None:
    """Draw a filled rectangle with rounded corners over the whole of ``coverage`` (2-D).

    With a radius of half its side it is a disc.
    """
    height, width = coverage.shape
    for y in range(height):
        for x in range(width):
            coverage[y, x] = 255
    for y in range(radius):
        for x in range(radius):
            value = corner(x, y, radius)
            coverage[y, x] = value
            coverage[y, width - 1 - x] = value
            coverage[height - 1 - y, x] = value
            coverage[height - 1 - y, width - 1 - x] = value


@kernel
def halve(luma: Plane, chroma: Plane) -> None:
    """Fill ``chroma`` (2-D) with the means of ``luma``'s 2x2 blocks; luma's sides are even."""
    for y in range(chroma.shape[0]):
        for x in range(chroma.shape[1]):
            upper = np.int32(luma[2 * y, 2 * x]) + luma[2 * y, 2 * x + 1]
            lower = np.int32(luma[2 * y + 1, 2 * x]) + luma[2 * y + 1, 2 * x + 1]
            chroma[y, x] = (upper + lower + 2) >> 2


@kernel
def fill_picture(
    canvas: Plane,
    width: int,
    height: int,
    x: int,
    y: int,
    w: int,
    h: int,
    luma: int,
    u: int,
    v: int,
) -> None:
    """Set a rectangle of a flat ``width`` x ``height`` canvas to one colour; all sizes even."""
    chroma = width * height + y // 2 * (width // 2) + x // 2
    fill(canvas, y * width + x, width, w, h, luma)
    fill(canvas, chroma, width // 2, w // 2, h // 2, u)
    fill(canvas, chroma + width * height // 4, width // 2, w // 2, h // 2, v)


@kernel
def outline_picture(
    canvas: Plane,
    width: int,
    height: int,
    x: int,
    y: int,
    w: int,
    h: int,
    thick: int,
    luma: int,
    u: int,
    v: int,
) -> None:
    """Draw a border of even thickness just inside a rectangle."""
    fill_picture(canvas, width, height, x, y, w, thick, luma, u, v)
    fill_picture(canvas, width, height, x, y + h - thick, w, thick, luma, u, v)
    fill_picture(canvas, width, height, x, y + thick, thick, h - 2 * thick, luma, u, v)
    fill_picture(canvas, width, height, x + w - thick, y + thick, thick, h - 2 * thick, luma, u, v)


@kernel
def fade_picture(
    canvas: Plane, width: int, height: int, x: int, y: int, w: int, h: int, keep: int
) -> None:
    """Dim a rectangle and wash out its colours: ``keep`` of 256 is left of both."""
    chroma = width * height + y // 2 * (width // 2) + x // 2
    fade(canvas, y * width + x, width, w, h, 16, keep)
    fade(canvas, chroma, width // 2, w // 2, h // 2, 128, keep)
    fade(canvas, chroma + width * height // 4, width // 2, w // 2, h // 2, 128, keep)


@kernel(signature=types.void(_FLAT, *[_INT] * 4, _FLAT, types.Array(types.int64, 1, "C")))
def blend_sprites(
    canvas: Plane, width: int, height: int, x: int, y: int, ink: Plane, boxes: Boxes
) -> None:
    """Blend the sprites of a tile at ``x``, ``y`` onto a flat canvas.

    ``boxes`` holds x, y, w, h of each sprite, in pixels of its tile, all even. ``ink`` holds for
    each, one after another: keep and add of luma, keep and add of U, keep and add of V, row by
    row.
    """
    begin = 0
    for box in range(0, boxes.size, 4):
        left, top, w, h = x + boxes[box], y + boxes[box + 1], boxes[box + 2], boxes[box + 3]
        blend(canvas, top * width + left, width, ink, begin, w, h)
        begin += 2 * w * h
        at = width * height + top // 2 * (width // 2) + left // 2
        blend(canvas, at, width // 2, ink, begin, w // 2, h // 2)
        begin += w * h // 2
        blend(canvas, at + width * height // 4, width // 2, ink, begin, w // 2, h // 2)
        begin += w * h // 2
