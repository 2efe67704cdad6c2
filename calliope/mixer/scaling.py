"""The mixer's hottest loops: planes of any size scaled into a rectangle of a canvas.

As in :mod:`calliope.mixer.kernels`, all is integer arithmetic, without allocation and without the
GIL, and nothing outside the rectangle is written.

There are two passes. The row pass sums up whole source rows, 16 samples at a time, into a line
of words: ``(sample - 128) * gain``, plus half a ``gain`` for rounding. The column pass gathers
each output's neighbours from the line and sums them up in 32 bits; weights are such that a sample
then stands at bit 21. Two rows are done together, so that they share the gathers' tables. The
error is at most 0.6 of a grey level. Tables come from :mod:`calliope.mixer.resample`; inner
functions take memory as :func:`~calliope.simd.start_of` gives it.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from numba import types

from calliope.jit import kernel
from calliope.media import Plane
from calliope.mixer.kernels import (
    blend_sprites,
    fade_picture,
    fill_picture,
    outline_picture,
)
from calliope.mixer.ratios import CACHE_LINE, SCRATCH, shrink
from calliope.mixer.resample import COPY, ONE_GATHER, PAIRS, SHRINK, TWO_GATHERS
from calliope.simd import (
    Bytes,
    Longs,
    Words,
    add_longs,
    add_words,
    byte_at,
    centre_bytes,
    copy_bytes,
    dot_bytes,
    dot_words,
    evens,
    gather,
    high_product,
    interleave_high,
    interleave_low,
    load_bytes,
    load_words,
    long_at,
    longs_in,
    number_at,
    numbers_in,
    odds,
    pack_bytes,
    pack_words,
    prefetch,
    put_byte,
    put_word,
    raise_high,
    raise_low,
    shift_longs,
    skip,
    splat_pairs,
    splat_words,
    start_of,
    store_high,
    store_low,
    store_words,
    unsigned_at,
    unsigned_in,
    words_in,
)

Starts: TypeAlias = npt.NDArray[np.int32]
Weights: TypeAlias = npt.NDArray[np.uint16]
Numbers: TypeAlias = npt.NDArray[np.int64]
Line: TypeAlias = npt.NDArray[np.int16]

# Any 2-D uint8 array is taken as it comes (strided, read-only): one compilation for all of them.
_PLANE = types.Array(types.uint8, 2, "A", readonly=True)
_FLAT = types.Array(types.uint8, 1, "C")
_NUMBERS = types.Array(types.int64, 1, "C")

LINE_SLACK = 64
"""Words a scratch line must have beyond the widest source; nobody cares what they hold."""
COPY_AHEAD = 4
"""Rows that a copy calls into the cache before it comes to them."""


@kernel(inline=True)
def add_two_rows(
    pixels: Plane, at: int, pitch: int, pairs: Bytes, low: Words, high: Words
) -> tuple[Words, Words]:
    """16 samples of two rows, weighted in whole numbers, added to what others came to."""
    a, b = load_bytes(pixels, at), load_bytes(pixels, at + pitch)
    return (
        add_words(low, dot_bytes(interleave_low(a, b), pairs)),
        add_words(high, dot_bytes(interleave_high(a, b), pairs)),
    )


@kernel(inline=True)
def sum_of_two(
    pixels: Plane, at: int, pitch: int, pairs: Bytes, offset: Words, line: Line, to: int
) -> None:
    """16 samples of two rows, weighted in whole numbers."""
    low, high = add_two_rows(pixels, at, pitch, pairs, offset, offset)
    store_words(line, to, low)
    store_words(line, to + 8, high)


@kernel(inline=True)
def sum_of_four(
    pixels: Plane,
    at: int,
    pitch: int,
    upper: Bytes,
    lower: Bytes,
    offset: Words,
    line: Line,
    to: int,
) -> None:
    """16 samples of four rows, weighted in whole numbers."""
    low, high = add_two_rows(pixels, at, pitch, upper, offset, offset)
    low, high = add_two_rows(pixels, at + 2 * pitch, pitch, lower, low, high)
    store_words(line, to, low)
    store_words(line, to + 8, high)


@kernel(inline=True)
def sum_of_six(
    pixels: Plane,
    at: int,
    pitch: int,
    upper: Bytes,
    middle: Bytes,
    lower: Bytes,
    offset: Words,
    line: Line,
    to: int,
) -> None:
    """16 samples of six rows, weighted in whole numbers."""
    low, high = add_two_rows(pixels, at, pitch, upper, offset, offset)
    low, high = add_two_rows(pixels, at + 2 * pitch, pitch, middle, low, high)
    low, high = add_two_rows(pixels, at + 4 * pitch, pitch, lower, low, high)
    store_words(line, to, low)
    store_words(line, to + 8, high)


@kernel(inline=True)
def sum_of_wide(
    pixels: Plane,
    at: int,
    pitch: int,
    upper: Bytes,
    lower: Bytes,
    offset: Words,
    line: Line,
    to: int,
) -> None:
    """As :func:`sum_of_four`, for weights beyond signed bytes: samples are the signed ones."""
    a, b = centre_bytes(load_bytes(pixels, at)), centre_bytes(load_bytes(pixels, at + pitch))
    c = centre_bytes(load_bytes(pixels, at + 2 * pitch))
    d = centre_bytes(load_bytes(pixels, at + 3 * pitch))
    low = add_words(dot_bytes(upper, interleave_low(a, b)), offset)
    high = add_words(dot_bytes(upper, interleave_high(a, b)), offset)
    store_words(line, to, add_words(low, dot_bytes(lower, interleave_low(c, d))))
    store_words(line, to + 8, add_words(high, dot_bytes(lower, interleave_high(c, d))))


@kernel(inline=True)
def sum_of_any(
    pixels: Plane,
    at: int,
    pitch: int,
    weight: Weights,
    taps: int,
    offset: Words,
    line: Line,
    to: int,
) -> None:
    """16 samples of any number of rows, weighted in fractions of 2^15."""
    samples, factor = load_bytes(pixels, at), splat_words(unsigned_at(weight, 0))
    low = add_words(high_product(raise_low(samples), factor), offset)
    high = add_words(high_product(raise_high(samples), factor), offset)
    for tap in range(1, taps):
        samples, factor = (
            load_bytes(pixels, at + tap * pitch),
            splat_words(unsigned_at(weight, tap)),
        )
        low = add_words(low, high_product(raise_low(samples), factor))
        high = add_words(high, high_product(raise_high(samples), factor))
    store_words(line, to, low)
    store_words(line, to + 8, high)


@kernel
def sum_few(
    pixels: Plane,
    at: int,
    pitch: int,
    weight: Weights,
    taps: int,
    exact: int,
    offset: int,
    line: Line,
    to: int,
    count: int,
) -> None:
    """Any number of samples and rows: for sources narrower than a vector."""
    for x in range(count):
        total = offset
        for tap in range(taps):
            product = byte_at(pixels, at + tap * pitch + x) * unsigned_at(weight, tap)
            total += product if exact else product >> 8
        put_word(line, to + x, total)


@kernel(inline=True)
def pair_of(weight: Weights, tap: int) -> Bytes:
    """Two weights of a byte each, repeated."""
    return splat_pairs(unsigned_at(weight, tap) | unsigned_at(weight, tap + 1) << 8)


@kernel
def sum_rows(
    pixels: Plane,
    at: int,
    pitch: int,
    weight: Weights,
    taps: int,
    exact: int,
    wide: int,
    line: Line,
    first: int,
    last: int,
) -> None:
    """The row pass for samples ``first`` to ``last`` of one line; the last 16 may be done twice."""
    gain = exact if exact else 128
    offset = gain // 2 - 128 * gain
    offsets = splat_words(offset)
    end = last - 16
    if last - first < 16:
        sum_few(pixels, at + first, pitch, weight, taps, exact, offset, line, first, last - first)
    elif exact and taps == 2 and not wide:
        pairs = pair_of(weight, 0)
        for x in range(first, end + 1, 16):
            sum_of_two(pixels, at + x, pitch, pairs, offsets, line, x)
        if (last - first) & 15:
            sum_of_two(pixels, at + end, pitch, pairs, offsets, line, end)
    elif exact and wide:
        upper = pair_of(weight, 0)
        lower = pair_of(weight, 2)
        rounding = splat_words(gain // 2)  # samples are centred as they are loaded
        for x in range(first, end + 1, 16):
            sum_of_wide(pixels, at + x, pitch, upper, lower, rounding, line, x)
        if (last - first) & 15:
            sum_of_wide(pixels, at + end, pitch, upper, lower, rounding, line, end)
    elif exact and taps == 6:
        upper, middle, lower = pair_of(weight, 0), pair_of(weight, 2), pair_of(weight, 4)
        for x in range(first, end + 1, 16):
            sum_of_six(pixels, at + x, pitch, upper, middle, lower, offsets, line, x)
        if (last - first) & 15:
            sum_of_six(pixels, at + end, pitch, upper, middle, lower, offsets, line, end)
    elif exact:
        upper = pair_of(weight, 0)
        lower = pair_of(weight, 2)
        for x in range(first, end + 1, 16):
            sum_of_four(pixels, at + x, pitch, upper, lower, offsets, line, x)
        if (last - first) & 15:
            sum_of_four(pixels, at + end, pitch, upper, lower, offsets, line, end)
    else:
        for x in range(first, end + 1, 16):
            sum_of_any(pixels, at + x, pitch, weight, taps, offsets, line, x)
        if (last - first) & 15:
            sum_of_any(pixels, at + end, pitch, weight, taps, offsets, line, end)


@kernel(inline=True)
def dot(line: Line, base: int, picks: Bytes, weight: Line, load: int) -> Longs:
    """Four sums of two neighbours each: words from ``base`` on, in the order of ``picks``."""
    return dot_words(gather(load_words(line, base), picks), load_words(weight, 8 * load))


@kernel(inline=True)
def gather_once(line: Line, base: Starts, picks: Plane, weight: Line, x: int) -> Words:
    """Eight outputs of two neighbours each."""
    load = x >> 2
    a = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    load += 1
    b = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    return pack_words(shift_longs(a), shift_longs(b))


@kernel(inline=True)
def gather_twice(line: Line, base: Starts, picks: Plane, weight: Line, x: int) -> Words:
    """Eight outputs of four neighbours each, near enough to load those of four outputs at once."""
    load = x >> 1
    order, at = load_bytes(picks, 16 * load), long_at(base, load)
    a = add_longs(dot(line, at, order, weight, load), dot(line, at + 2, order, weight, load + 1))
    load += 2
    order, at = load_bytes(picks, 16 * load), long_at(base, load)
    b = add_longs(dot(line, at, order, weight, load), dot(line, at + 2, order, weight, load + 1))
    return pack_words(shift_longs(a), shift_longs(b))


@kernel(inline=True)
def gather_pairs(line: Line, base: Starts, picks: Plane, weight: Line, x: int) -> Words:
    """Eight outputs of four neighbours each, loaded for two outputs at once."""
    load = x >> 1
    a = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    load += 1
    b = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    load += 1
    c = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    load += 1
    d = dot(line, long_at(base, load), load_bytes(picks, 16 * load), weight, load)
    ab, cd = add_longs(evens(a, b), odds(a, b)), add_longs(evens(c, d), odds(c, d))
    return pack_words(shift_longs(ab), shift_longs(cd))


@kernel(inline=True)
def block_sum(line: Line, at: int, weight: Line, load: int, loads: int) -> Longs:
    """Four partial sums of one output with many neighbours."""
    total = dot_words(load_words(line, at), load_words(weight, 8 * load))
    for more in range(1, loads):
        products = dot_words(load_words(line, at + 8 * more), load_words(weight, 8 * (load + more)))
        total = add_longs(total, products)
    return total


@kernel(inline=True)
def four_blocks(line: Line, base: Starts, weight: Line, loads: int, x: int) -> Longs:
    """Four outputs of many neighbours each."""
    a = block_sum(line, long_at(base, x), weight, loads * x, loads)
    b = block_sum(line, long_at(base, x + 1), weight, loads * (x + 1), loads)
    c = block_sum(line, long_at(base, x + 2), weight, loads * (x + 2), loads)
    d = block_sum(line, long_at(base, x + 3), weight, loads * (x + 3), loads)
    ab, cd = add_longs(evens(a, b), odds(a, b)), add_longs(evens(c, d), odds(c, d))
    return shift_longs(add_longs(evens(ab, cd), odds(ab, cd)))


@kernel
def put_few(target: Plane, at: int, below: int, count: int, made: Bytes, spill: Plane) -> None:
    """Store fewer than 8 pixels for each of two rows."""
    store_low(spill, 0, made)
    store_high(spill, 8, made)
    for lane in range(count):
        put_byte(target, at + lane, byte_at(spill, lane))
        put_byte(target, below + lane, byte_at(spill, 8 + lane))


@kernel(inline=True)
def gather_eight(way: int, line: Line, base: Starts, picks: Plane, weight: Line, x: int) -> Words:
    """Eight outputs in the way that :class:`~calliope.mixer.resample.Columns` says."""
    if way == ONE_GATHER:
        return gather_once(line, base, picks, weight, x)
    if way == TWO_GATHERS:
        return gather_twice(line, base, picks, weight, x)
    return gather_pairs(line, base, picks, weight, x)


@kernel(inline=True)
def gather_two_rows(
    way: int, upper: Line, lower: Line, base: Starts, picks: Plane, weight: Line, x: int
) -> Bytes:
    """Eight outputs of one line, then the eight below them."""
    words = gather_eight(way, upper, base, picks, weight, x)
    return centre_bytes(pack_bytes(words, gather_eight(way, lower, base, picks, weight, x)))


@kernel(inline=True)
def gather_columns(
    way: int,
    upper: Line,
    lower: Line,
    base: Starts,
    picks: Plane,
    weight: Line,
    target: Plane,
    at: int,
    below: int,
    count: int,
    spill: Plane,
    pixels: Plane,
    ahead: int,
    pace: int,
) -> None:
    """The column pass for two lines; what comes next of ``pixels`` is called into the cache."""
    for x in range(0, count - 7, 8):
        prefetch(pixels, ahead)
        prefetch(pixels, ahead + CACHE_LINE)
        ahead += pace
        made = gather_two_rows(way, upper, lower, base, picks, weight, x)
        store_low(target, at + x, made)
        store_high(target, below + x, made)
    if count & 7:
        x = count & ~7
        made = gather_two_rows(way, upper, lower, base, picks, weight, x)
        put_few(target, at + x, below + x, count & 7, made, spill)


@kernel(inline=True)
def columns_blocks(
    upper: Line,
    lower: Line,
    base: Starts,
    weight: Line,
    loads: int,
    target: Plane,
    at: int,
    below: int,
    count: int,
    spill: Plane,
    pixels: Plane,
    ahead: int,
    pace: int,
) -> None:
    """As :func:`gather_columns`, of many neighbours an output."""
    for x in range(0, count, 8):
        for cache_line in range(0, pace, CACHE_LINE):
            prefetch(pixels, ahead + cache_line)
        ahead += pace
        words = pack_words(
            four_blocks(upper, base, weight, loads, x),
            four_blocks(upper, base, weight, loads, x + 4),
        )
        under = pack_words(
            four_blocks(lower, base, weight, loads, x),
            four_blocks(lower, base, weight, loads, x + 4),
        )
        made = centre_bytes(pack_bytes(words, under))
        if x + 8 <= count:
            store_low(target, at + x, made)
            store_high(target, below + x, made)
        else:
            put_few(target, at + x, below + x, count - x, made, spill)


@kernel
def scale(source: Plane, plan: Plane, target: Plane, at: int, stride: int, scratch: Plane) -> None:
    """Resample ``source`` (2-D) into a rectangle of the flat ``target``.

    ``plan`` is a table that :func:`~calliope.mixer.resample.plan` made for its shape; ``scratch``
    has :func:`scratch_size` bytes for its width.
    """
    numbers = numbers_in(plan, 0)
    exact, way, count = number_at(numbers, 0), number_at(numbers, 1), number_at(numbers, 2)
    first, last, loads = number_at(numbers, 3), number_at(numbers, 4), number_at(numbers, 5)
    rows, taps, wide = number_at(numbers, 6), number_at(numbers, 7), number_at(numbers, 8)
    starts = longs_in(plan, number_at(numbers, 9))
    weights = unsigned_in(plan, number_at(numbers, 10))
    base = longs_in(plan, number_at(numbers, 11))
    picks = skip(plan, number_at(numbers, 12))
    weight = words_in(plan, number_at(numbers, 13))
    pixels, pitch = start_of(source), source.strides[0]
    size = (source.shape[0] - 1) * pitch + source.shape[1]
    if way == SHRINK:
        shrink(taps, pixels, size, pitch, wide, first, target, at, stride, count, rows, scratch)
        return
    if way == COPY:
        for row in range(rows):
            begin = long_at(starts, row) * pitch + first
            for line in range(0, count, CACHE_LINE):
                prefetch(pixels, begin + COPY_AHEAD * pitch + line)
            copy_bytes(pixels, begin, target, at + row * stride, count)
        return
    upper = words_in(scratch, SCRATCH)
    lower = skip(upper, source.shape[1] + LINE_SLACK)
    # How far the source moves on with every two rows, and with every 8 pixels of them.
    step = 2 * (long_at(starts, rows - 1) - long_at(starts, 0)) * pitch // max(rows - 1, 1)
    pace = step * 8 // count
    for row in range(0, rows, 2):
        other = min(row + 1, rows - 1)
        top, middle = long_at(starts, row) * pitch, long_at(starts, other) * pitch
        over, under = skip(weights, row * taps), skip(weights, other * taps)
        sum_rows(pixels, top, pitch, over, taps, exact, wide, upper, first, last)
        sum_rows(pixels, middle, pitch, under, taps, exact, wide, lower, first, last)
        ahead = middle + taps * pitch + first
        to, below = at + row * stride, at + other * stride
        # Each way is named, so that the compiler makes a loop for it without a choice inside.
        if way == ONE_GATHER:
            gather_columns(
                ONE_GATHER, upper, lower, base, picks, weight, target, to, below, count, scratch,
                pixels, ahead, pace,
            )  # fmt: skip
        elif way == TWO_GATHERS:
            gather_columns(
                TWO_GATHERS, upper, lower, base, picks, weight, target, to, below, count, scratch,
                pixels, ahead, pace,
            )  # fmt: skip
        elif way == PAIRS:
            gather_columns(
                PAIRS, upper, lower, base, picks, weight, target, to, below, count, scratch,
                pixels, ahead, pace,
            )  # fmt: skip
        elif loads == 1:
            columns_blocks(
                upper, lower, base, weight, 1, target, to, below, count, scratch,
                pixels, ahead, pace,
            )  # fmt: skip
        else:
            columns_blocks(
                upper, lower, base, weight, loads, target, to, below, count, scratch,
                pixels, ahead, pace,
            )  # fmt: skip


def scratch_size(width: int) -> int:
    """How many bytes of scratch memory sources up to that width need."""
    return SCRATCH + 2 * 2 * (width + LINE_SLACK)


@kernel(signature=types.boolean(_FLAT, _FLAT, *[_PLANE] * 3, _FLAT, _NUMBERS, _FLAT))
def paint_tile(
    canvas: Plane,
    plan: Plane,
    luma: Plane,
    u: Plane,
    v: Plane,
    ink: Plane,
    boxes: Numbers,
    scratch: Plane,
) -> bool:
    """Paint one tile of a flat canvas: picture, sprites, border.

    ``plan`` begins with int64: the canvas's width and height; the tile's x, y, w, h, then x, y,
    w, h of the picture in it, how much of it is kept of 256 (less dims it), and the border's
    thickness (0: none); Y, U, V of the bars and of the border; and where in it, in bytes, the
    plans of luma and chroma begin. All is in even pixels of the canvas.

    ``luma`` is ``(h, w)``, ``u`` and ``v`` ``((h + 1) // 2, (w + 1) // 2)``, rows may be strided.
    The plans must be for their size and the picture's; ``ink`` and ``boxes`` are as
    :func:`~calliope.mixer.kernels.blend_sprites` takes them; ``scratch`` has
    :func:`scratch_size` bytes. Returns False, with nothing written, where the planes' shapes do
    not belong together or a row's bytes are not adjacent.
    """
    half = ((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2)
    if u.shape != half or v.shape != half:
        return False
    if luma.strides[1] != 1 or u.strides[1] != 1 or v.strides[1] != 1:
        return False
    if luma.strides[0] < 0 or u.strides[0] < 0 or v.strides[0] < 0:
        return False
    table = start_of(plan)
    place = numbers_in(table, 0)
    width, height = number_at(place, 0), number_at(place, 1)
    x, y, w, h = (
        number_at(place, 2),
        number_at(place, 3),
        number_at(place, 4),
        number_at(place, 5),
    )
    left, top, keep, thick = (
        number_at(place, 6),
        number_at(place, 7),
        number_at(place, 10),
        number_at(place, 11),
    )
    if number_at(place, 8) != w or number_at(place, 9) != h:
        bars = number_at(place, 12), number_at(place, 13), number_at(place, 14)
        fill_picture(canvas, width, height, x, y, w, h, bars[0], bars[1], bars[2])
    luma_plan = skip(table, number_at(place, 18))
    chroma_plan = skip(table, number_at(place, 19))
    out, rest = start_of(canvas), start_of(scratch)
    scale(luma, luma_plan, out, top * width + left, width, rest)
    at = width * height + top // 2 * (width // 2) + left // 2
    scale(u, chroma_plan, out, at, width // 2, rest)
    scale(v, chroma_plan, out, at + width * height // 4, width // 2, rest)
    if keep < 256:
        fade_picture(canvas, width, height, x, y, w, h, keep)
    if boxes.size:
        blend_sprites(canvas, width, height, x, y, ink, boxes)
    if thick:
        border = number_at(place, 15), number_at(place, 16), number_at(place, 17)
        outline_picture(canvas, width, height, x, y, w, h, thick, border[0], border[1], border[2])
    return True
