"""The mixer's hot loops: scale, copy, fill and blend planes of one canvas.

All work on uint8 planes in integer arithmetic, without allocation and without the GIL, and write
into memory their caller owns. A canvas is its flat buffer (see :class:`~calliope.mixer.canvas.
Canvas`); ``at`` is the offset of a rectangle's first pixel in it and ``stride`` the bytes from one
row to the next. Nothing outside the rectangle is written. All kernels live in this one file:
numba's on-disk cache does not notice an edit of a helper in another.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from calliope.jit import kernel
from calliope.media import Plane
from calliope.mixer.simd import flat

Starts: TypeAlias = npt.NDArray[np.int32]
Weights: TypeAlias = npt.NDArray[np.uint16]
Line: TypeAlias = npt.NDArray[np.int16]

# Any 2-D uint8 array is taken as it comes (strided, read-only): one compilation for all of them.
_PLANE = types.Array(types.uint8, 2, "A", readonly=True)
_FLAT = types.Array(types.uint8, 1, "C")
_SPRITE = types.Array(types.uint8, 2, "C")
_STARTS = types.Array(types.int32, 1, "C")
_WEIGHTS = types.Array(types.uint16, 2, "C")
_LINE = types.Array(types.int16, 1, "C")
_INT = types.int64
_TAPS = (_STARTS, _WEIGHTS)

LINE_SLACK = 64
"""Samples a scratch line must have beyond the widest source."""


@kernel
def scale(
    source: Plane,
    row_start: Starts,
    row_weight: Weights,
    column_start: Starts,
    column_weight: Weights,
    target: Plane,
    at: int,
    stride: int,
    line: Line,
) -> None:
    """Resample ``source`` (2-D) by separable taps into a rectangle of the flat ``target``.

    Rows first: a weighted sum of whole source rows lands in ``line`` (int16, at least as long as
    a source row plus ``LINE_SLACK``) with 7 fractional bits; then columns, in 32 bits, rounded
    once. The error is at most 0.6 of a grey level. Taps as in
    :class:`~calliope.mixer.resample.Taps`, rows summing to 32768, columns to 16384.
    """
    pixels = flat(source)
    pitch = source.strides[0]
    first = column_start[0]
    last = column_start[-1] + column_weight.shape[1]
    for row in range(row_start.size):
        base = row_start[row] * pitch
        for x in range(first, last):
            line[x] = 0
        for tap in range(row_weight.shape[1]):
            weight = np.uint32(row_weight[row, tap])
            for x in range(first, last):
                line[x] += np.int16((np.uint32(pixels[base + x]) * weight) >> 8)
            base += pitch
        for x in range(column_start.size):
            total = np.int32(1 << 20)
            for tap in range(column_weight.shape[1]):
                total += np.int32(line[column_start[x] + tap]) * np.int32(column_weight[x, tap])
            target[at + x] = total >> 21
        at += stride


@kernel
def fill(target: Plane, at: int, stride: int, w: int, h: int, value: int) -> None:
    """Set a rectangle to one value."""
    for _ in range(h):
        for x in range(w):
            target[at + x] = value
        at += stride


@kernel
def fade(target: Plane, at: int, stride: int, w: int, h: int, towards: int, keep: int) -> None:
    """Move a rectangle towards one value: ``keep`` of 256 of the difference is left."""
    for _ in range(h):
        for x in range(w):
            target[at + x] = (np.int32(target[at + x]) * keep + towards * (256 - keep) + 128) >> 8
        at += stride


@kernel
def blend(target: Plane, at: int, stride: int, keep: Plane, add: Plane) -> None:
    """``target = target * keep / 255 + add`` over a rectangle the shape of ``keep`` and ``add``.

    Both are 2-D. Where they come from :func:`lay_ink` their sum cannot pass 255.
    """
    rows, columns = keep.shape
    for y in range(rows):
        for x in range(columns):
            light = np.int32(target[at + x]) * np.int32(keep[y, x]) + 128
            target[at + x] = min(255, ((light + (light >> 8)) >> 8) + add[y, x])
        at += stride


@kernel
def add_ink(add: Plane, coverage: Plane, top: int, left: int, alpha: int, value: int) -> None:
    """Put the light of ink over what a sprite's plane adds (Porter-Duff *over*, premultiplied).

    ``add`` and ``coverage`` are 2-D; ``coverage`` times ``alpha`` / 255 is the ink's opacity.
    What would fall outside the sprite is cut off.
    """
    rows = min(coverage.shape[0], add.shape[0] - top)
    columns = min(coverage.shape[1], add.shape[1] - left)
    for y in range(max(0, -top), rows):
        for x in range(max(0, -left), columns):
            ink = (np.int32(coverage[y, x]) * alpha + 127) // 255
            light = np.int32(add[top + y, left + x]) * (255 - ink) + ink * value
            add[top + y, left + x] = (light + 127) // 255


@kernel
def rounded(coverage: Plane, radius: int) -> None:
    """Draw a filled rectangle with rounded corners over the whole of ``coverage`` (2-D).

    Edges are smoothed by counting 8 x 8 sub-samples, which is exact to 1/64. With a radius of
    half its side it is a disc.
    """
    height, width = coverage.shape
    for y in range(height):
        for x in range(width):
            coverage[y, x] = 255
    reach = 16 * radius  # in sixteenths of a pixel; sub-samples sit at odd sixteenths
    for y in range(radius):
        for x in range(radius):
            inside = 0
            for sub_y in range(8):
                down = reach - (16 * y + 2 * sub_y + 1)
                for sub_x in range(8):
                    across = reach - (16 * x + 2 * sub_x + 1)
                    if down * down + across * across <= reach * reach:
                        inside += 1
            value = (inside * 255 + 32) // 64
            coverage[y, x] = value
            coverage[y, width - 1 - x] = value
            coverage[height - 1 - y, x] = value
            coverage[height - 1 - y, width - 1 - x] = value


@kernel(signature=types.void(*[_SPRITE] * 5, _PLANE, _PLANE, *[_INT] * 5))
def lay_ink(
    keep_y: Plane,
    add_y: Plane,
    keep_c: Plane,
    add_u: Plane,
    add_v: Plane,
    luma: Plane,
    chroma: Plane,
    x: int,
    y: int,
    alpha: int,
    value_y: int,
    value_uv: int,
) -> None:
    """Put ink of one colour over a sprite at an even place; ``value_uv`` is ``u << 8 | v``.

    ``luma`` and ``chroma`` are the ink's mask. Ink lets through what it does not cover, so what a
    sprite keeps shrinks as if black were laid over it.
    """
    add_ink(add_y, luma, y, x, alpha, value_y)
    add_ink(keep_y, luma, y, x, alpha, 0)
    add_ink(add_u, chroma, y // 2, x // 2, alpha, value_uv >> 8)
    add_ink(add_v, chroma, y // 2, x // 2, alpha, value_uv & 255)
    add_ink(keep_c, chroma, y // 2, x // 2, alpha, 0)


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


@kernel
def blend_sprite(
    canvas: Plane,
    width: int,
    height: int,
    x: int,
    y: int,
    keep_y: Plane,
    add_y: Plane,
    keep_c: Plane,
    add_u: Plane,
    add_v: Plane,
) -> None:
    """Blend a sprite onto a flat canvas at an even place; see :class:`~calliope.mixer.overlay.
    Sprite` for its planes."""
    chroma = width * height + y // 2 * (width // 2) + x // 2
    blend(canvas, y * width + x, width, keep_y, add_y)
    blend(canvas, chroma, width // 2, keep_c, add_u)
    blend(canvas, chroma + width * height // 4, width // 2, keep_c, add_v)


@kernel(signature=types.boolean(_FLAT, *[_INT] * 4, *[_PLANE] * 3, *_TAPS * 4, _LINE))
def scale_picture(
    canvas: Plane,
    width: int,
    height: int,
    x: int,
    y: int,
    luma: Plane,
    u: Plane,
    v: Plane,
    luma_row_start: Starts,
    luma_row_weight: Weights,
    luma_column_start: Starts,
    luma_column_weight: Weights,
    chroma_row_start: Starts,
    chroma_row_weight: Weights,
    chroma_column_start: Starts,
    chroma_column_weight: Weights,
    line: Line,
) -> bool:
    """Resample one I420 picture into a rectangle of a flat ``width`` x ``height`` canvas.

    ``luma`` is ``(h, w)``, ``u`` and ``v`` ``((h + 1) // 2, (w + 1) // 2)``, rows may be strided.
    The taps' counts are the rectangle's size. Returns False, with nothing written, where the
    planes' shapes do not belong together or a row's bytes are not adjacent.
    """
    half = ((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2)
    if u.shape != half or v.shape != half:
        return False
    if luma.strides[1] != 1 or u.strides[1] != 1 or v.strides[1] != 1:
        return False
    if luma.strides[0] < 0 or u.strides[0] < 0 or v.strides[0] < 0:
        return False
    at = y * width + x
    scale(
        luma,
        luma_row_start,
        luma_row_weight,
        luma_column_start,
        luma_column_weight,
        canvas,
        at,
        width,
        line,
    )
    at = width * height + y // 2 * (width // 2) + x // 2
    for plane in (u, v):
        scale(
            plane,
            chroma_row_start,
            chroma_row_weight,
            chroma_column_start,
            chroma_column_weight,
            canvas,
            at,
            width // 2,
            line,
        )
        at += width * height // 4
    return True
