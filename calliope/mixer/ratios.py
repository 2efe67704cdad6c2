"""Planes shrunk by a simple ratio: 2, 3, 4 or 5 to 1, 3 to 2, 5 to 2 and 5 to 4.

Placements are chosen so that the usual cameras come to these (see
:func:`~calliope.mixer.placement.place`), so most of what a room shows passes here. Where ``p``
samples become ``q``, each of the ``q`` covers whole numbers of ``p``-ths of samples: the average
is a sum of products of small integers. These fit into bytes, so that 16 samples are put in order
and weighed by two instructions; rows are summed up in registers, and nothing is rounded before
the end. (Where five rows come together, two pairs of them are averaged in bytes first, rounded
up; that error is 0.2 of a grey level at most, as its mean is taken off.)

The functions named after a ratio turn ``p`` source rows into ``q`` output rows. ``rows`` says
where in ``pixels`` the source rows begin, ``to`` where in ``out`` the outputs do; what a ratio has
no need of is ignored. Eight outputs of a row are made at a time: ``count`` is rounded up to eights,
and a row is read for up to ``REACH`` samples from where the last eight begin. Meanwhile, what lies
from ``ahead`` on is called into the cache, ``pace`` bytes for every eight outputs: the sources are
new in every tick, and without that most of the time goes by in waiting for them.
"""

from __future__ import annotations

from typing import TypeAlias

from calliope.jit import kernel
from calliope.media import Plane
from calliope.simd import (
    Bytes,
    Words,
    add_words,
    average_bytes,
    constant_bytes,
    copy_bytes,
    dot_bytes,
    dot_words,
    first_halves,
    last_halves,
    load_bytes,
    pack_unsigned,
    pack_words,
    picked,
    prefetch,
    scale_words,
    splat_words,
    store_high,
    store_low,
    subtract_words,
)

Rows: TypeAlias = tuple[int, int, int, int, int]
Outputs: TypeAlias = tuple[int, int, int, int]

RATIOS = ((2, 1), (3, 1), (4, 1), (5, 1), (3, 2), (5, 2), (5, 4))
"""Samples to outputs."""
REACH = 48
SCRATCH = 5 * REACH + 32
"""Bytes of scratch memory for the ends of rows."""
CACHE_LINE = 64

# The rounded reciprocals of p * p, of 2^15; the error is below a twentieth of a grey level.
QUARTER, NINTH, SIXTEENTH, TWENTY_FIFTH = 8192, 3641, 2048, 1311
EXCESS = 5
"""What averaging pairs of bytes adds to a sum of 25 samples, in the mean."""

ones = constant_bytes(1)
three_to_one_weights = constant_bytes(*[1] * 8, *[1, 0] * 4)
five_to_one_weights = constant_bytes(1, 1, 1, 1, 1, 0, 0, 0)
five_to_one_twofold = constant_bytes(2, 2, 2, 2, 2, 0, 0, 0)
three_to_two_weights = constant_bytes(2, 1, 1, 2)
three_to_two_twofold = constant_bytes(4, 2, 2, 4)
five_to_two_weights = constant_bytes(*[2] * 8, *[1, 0] * 4)
five_to_two_fourfold = constant_bytes(*[8] * 8, *[4, 0] * 4)
five_to_four_weights = constant_bytes(4, 1, 3, 2, 2, 3, 1, 4)
five_to_four_twofold = constant_bytes(8, 2, 6, 4, 4, 6, 2, 8)
five_to_four_threefold = constant_bytes(12, 3, 9, 6, 6, 9, 3, 12)
five_to_four_fourfold = constant_bytes(16, 4, 12, 8, 8, 12, 4, 16)

# The first two of each three samples; then the third ones.
in_threes = picked(0, 1, 3, 4, 6, 7, 9, 10, 2, 2, 5, 5, 8, 8, 11, 11)
# Two times five samples, eight places apart.
in_fives = picked(0, 1, 2, 3, 4, 4, 4, 4, 5, 6, 7, 8, 9, 9, 9, 9)
# The two samples that each output covers.
three_by_two = picked(0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 9, 10, 10, 11)
five_by_four = picked(0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 7, 8, 8, 9)
# The two samples that each output covers whole; then the one in the middle, which two share.
five_by_two = picked(0, 1, 3, 4, 5, 6, 8, 9, 2, 2, 2, 2, 7, 7, 7, 7)


@kernel(inline=True)
def fetch(pixels: Plane, ahead: int, lines: int) -> None:
    """Call some cache lines early."""
    for line in range(lines):
        prefetch(pixels, ahead + line * CACHE_LINE)


@kernel(inline=True)
def joined(a: Words, b: Words) -> Words:
    """Eight sums; of each vector the first four parts belong to the last four."""
    return add_words(first_halves(a, b), last_halves(a, b))


@kernel(inline=True)
def paired(a: Words, b: Words) -> Words:
    """Eight sums of two neighbours each; they must fit 16 bits signed."""
    one = splat_words(1)
    return pack_words(dot_words(a, one), dot_words(b, one))


@kernel
def two_to_one(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    for x in range(0, count, 8):
        fetch(pixels, ahead, 1)
        ahead += pace
        a = dot_bytes(load_bytes(pixels, rows[0] + 2 * x), ones())
        b = dot_bytes(load_bytes(pixels, rows[1] + 2 * x), ones())
        words = scale_words(add_words(a, b), splat_words(QUARTER))
        store_low(out, to[0] + x, pack_unsigned(words, words))


@kernel(inline=True)
def sum_of_threes(pixels: Plane, rows: Rows, at: int) -> Words:
    """Three rows of twelve samples, in eight parts of four outputs."""
    a = dot_bytes(in_threes(load_bytes(pixels, rows[0] + at)), three_to_one_weights())
    b = dot_bytes(in_threes(load_bytes(pixels, rows[1] + at)), three_to_one_weights())
    c = dot_bytes(in_threes(load_bytes(pixels, rows[2] + at)), three_to_one_weights())
    return add_words(add_words(a, b), c)


@kernel
def three_to_one(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    for x in range(0, count, 8):
        fetch(pixels, ahead, 2)
        ahead += pace
        at = 3 * x
        a, b = sum_of_threes(pixels, rows, at), sum_of_threes(pixels, rows, at + 12)
        words = scale_words(joined(a, b), splat_words(NINTH))
        store_low(out, to[0] + x, pack_unsigned(words, words))


@kernel(inline=True)
def sum_of_fours(pixels: Plane, rows: Rows, at: int) -> Words:
    """Four rows of sixteen samples, in eight parts of four outputs, two side by side."""
    a = dot_bytes(load_bytes(pixels, rows[0] + at), ones())
    b = dot_bytes(load_bytes(pixels, rows[1] + at), ones())
    c = dot_bytes(load_bytes(pixels, rows[2] + at), ones())
    d = dot_bytes(load_bytes(pixels, rows[3] + at), ones())
    return add_words(add_words(a, b), add_words(c, d))


@kernel
def four_to_one(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    for x in range(0, count, 8):
        fetch(pixels, ahead, 2)
        ahead += pace
        at = 4 * x
        a, b = sum_of_fours(pixels, rows, at), sum_of_fours(pixels, rows, at + 16)
        words = scale_words(paired(a, b), splat_words(SIXTEENTH))
        store_low(out, to[0] + x, pack_unsigned(words, words))


@kernel(inline=True)
def mean_at(pixels: Plane, a: int, b: int) -> Bytes:
    """The mean of two rows."""
    return average_bytes(load_bytes(pixels, a), load_bytes(pixels, b))


@kernel(inline=True)
def sum_of_fives(pixels: Plane, rows: Rows, at: int) -> Words:
    """Five rows of ten samples, in eight parts of two outputs, four side by side."""
    upper = in_fives(mean_at(pixels, rows[0] + at, rows[1] + at))
    middle = in_fives(load_bytes(pixels, rows[2] + at))
    lower = in_fives(mean_at(pixels, rows[3] + at, rows[4] + at))
    outer = add_words(
        dot_bytes(upper, five_to_one_twofold()), dot_bytes(lower, five_to_one_twofold())
    )
    return add_words(outer, dot_bytes(middle, five_to_one_weights()))


@kernel
def five_to_one(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    for x in range(0, count, 8):
        fetch(pixels, ahead, 4)
        ahead += pace
        at = 5 * x
        a = paired(sum_of_fives(pixels, rows, at), sum_of_fives(pixels, rows, at + 10))
        b = paired(sum_of_fives(pixels, rows, at + 20), sum_of_fives(pixels, rows, at + 30))
        total = subtract_words(paired(a, b), splat_words(EXCESS))
        words = scale_words(total, splat_words(TWENTY_FIFTH))
        store_low(out, to[0] + x, pack_unsigned(words, words))


@kernel
def three_to_two(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    ninth = splat_words(NINTH)
    for x in range(0, count, 8):
        fetch(pixels, ahead, 1)
        ahead += pace
        at = x // 2 * 3
        a = three_by_two(load_bytes(pixels, rows[0] + at))
        b = three_by_two(load_bytes(pixels, rows[1] + at))
        c = three_by_two(load_bytes(pixels, rows[2] + at))
        shared = dot_bytes(b, three_to_two_weights())
        upper = add_words(dot_bytes(a, three_to_two_twofold()), shared)
        lower = add_words(dot_bytes(c, three_to_two_twofold()), shared)
        made = pack_unsigned(scale_words(upper, ninth), scale_words(lower, ninth))
        store_high(out, to[1] + x, made)
        store_low(out, to[0] + x, made)


@kernel(inline=True)
def outer_of_five(pixels: Plane, a: int, b: int) -> Words:
    """What two whole rows of ten samples add to four outputs, in eight parts."""
    return dot_bytes(five_by_two(mean_at(pixels, a, b)), five_to_two_fourfold())


@kernel(inline=True)
def middle_of_five(pixels: Plane, at: int) -> Words:
    """What the row that two outputs share adds to four of them, in eight parts."""
    shared = dot_bytes(five_by_two(load_bytes(pixels, at)), five_to_two_weights())
    return shared


@kernel
def five_to_two(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    part, excess = splat_words(TWENTY_FIFTH), splat_words(EXCESS)
    for x in range(0, count, 8):
        fetch(pixels, ahead, 2)
        ahead += pace
        at, then = x // 2 * 5, x // 2 * 5 + 10
        middle, next_middle = (
            middle_of_five(pixels, rows[2] + at),
            middle_of_five(pixels, rows[2] + then),
        )
        upper = joined(
            add_words(outer_of_five(pixels, rows[0] + at, rows[1] + at), middle),
            add_words(outer_of_five(pixels, rows[0] + then, rows[1] + then), next_middle),
        )
        lower = joined(
            add_words(outer_of_five(pixels, rows[3] + at, rows[4] + at), middle),
            add_words(outer_of_five(pixels, rows[3] + then, rows[4] + then), next_middle),
        )
        upper = scale_words(subtract_words(upper, excess), part)
        lower = scale_words(subtract_words(lower, excess), part)
        made = pack_unsigned(upper, lower)
        store_high(out, to[1] + x, made)
        store_low(out, to[0] + x, made)


@kernel
def five_to_four(
    pixels: Plane, rows: Rows, out: Plane, to: Outputs, count: int, ahead: int, pace: int
) -> None:
    part = splat_words(TWENTY_FIFTH)
    for x in range(0, count, 8):
        fetch(pixels, ahead, 1)
        ahead += pace
        at = x // 4 * 5
        a = five_by_four(load_bytes(pixels, rows[0] + at))
        b = five_by_four(load_bytes(pixels, rows[1] + at))
        c = five_by_four(load_bytes(pixels, rows[2] + at))
        d = five_by_four(load_bytes(pixels, rows[3] + at))
        e = five_by_four(load_bytes(pixels, rows[4] + at))
        middle = dot_bytes(c, five_to_four_twofold())
        first = add_words(
            dot_bytes(a, five_to_four_fourfold()), dot_bytes(b, five_to_four_weights())
        )
        second = add_words(dot_bytes(b, five_to_four_threefold()), middle)
        third = add_words(dot_bytes(d, five_to_four_threefold()), middle)
        fourth = add_words(
            dot_bytes(e, five_to_four_fourfold()), dot_bytes(d, five_to_four_weights())
        )
        below = pack_unsigned(scale_words(third, part), scale_words(fourth, part))
        above = pack_unsigned(scale_words(first, part), scale_words(second, part))
        store_high(out, to[3] + x, below)
        store_low(out, to[2] + x, below)
        store_high(out, to[1] + x, above)
        store_low(out, to[0] + x, above)


@kernel
def shrink_rows(
    ratio: int,
    pixels: Plane,
    rows: Rows,
    out: Plane,
    to: Outputs,
    count: int,
    ahead: int,
    pace: int,
) -> None:
    """One block of rows, by the ratio of that index in ``RATIOS``."""
    if ratio == 0:
        two_to_one(pixels, rows, out, to, count, ahead, pace)
    elif ratio == 1:
        three_to_one(pixels, rows, out, to, count, ahead, pace)
    elif ratio == 2:
        four_to_one(pixels, rows, out, to, count, ahead, pace)
    elif ratio == 3:
        five_to_one(pixels, rows, out, to, count, ahead, pace)
    elif ratio == 4:
        three_to_two(pixels, rows, out, to, count, ahead, pace)
    elif ratio == 5:
        five_to_two(pixels, rows, out, to, count, ahead, pace)
    else:
        five_to_four(pixels, rows, out, to, count, ahead, pace)


@kernel
def shrink_end(
    ratio: int,
    pixels: Plane,
    size: int,
    rows: Rows,
    out: Plane,
    to: Outputs,
    count: int,
    scratch: Plane,
) -> None:
    """Up to eight outputs of each row: nothing beyond them is written, or read beyond ``size``."""
    p, q = RATIOS[ratio]
    for row in range(p):
        inside = max(0, min(REACH, size - rows[row]))
        copy_bytes(pixels, rows[row], scratch, row * REACH, inside)
    ends = (0, REACH, 2 * REACH, 3 * REACH, 4 * REACH)
    made = 5 * REACH
    shrink_rows(ratio, scratch, ends, scratch, (made, made + 8, made + 16, made + 24), 8, made, 0)
    for row in range(q - 1, -1, -1):
        copy_bytes(scratch, made + 8 * row, out, to[row], count)


@kernel
def shrink(
    ratio: int,
    pixels: Plane,
    size: int,
    pitch: int,
    top: int,
    left: int,
    out: Plane,
    at: int,
    stride: int,
    width: int,
    height: int,
    scratch: Plane,
) -> None:
    """Shrink part of a plane to ``width`` x ``height``, by the ratio of that index in ``RATIOS``.

    The part begins at row ``top`` and column ``left``; rows lie ``pitch`` bytes apart, and
    ``size`` bytes of ``pixels`` may be read. ``out`` is written from ``at`` on, its rows lie
    ``stride`` apart. ``scratch`` has ``SCRATCH`` bytes.
    """
    p, q = RATIOS[ratio]
    last = (size - left) // pitch
    whole = width & ~7
    # The last few are done together with their neighbours where a pattern begins with these.
    overlaps = width > whole and width > 8 and (width - 8) % q == 0
    for y in range(0, height, q):
        first = top + y // q * p
        a = min(first, last) * pitch + left
        b = min(first + 1, last) * pitch + left
        c = min(first + 2, last) * pitch + left
        d = min(first + 3, last) * pitch + left
        e = min(first + 4, last) * pitch + left
        # Rows beyond the last one are stored first, and in its place.
        to = at + y * stride
        second = at + min(y + 1, height - 1) * stride
        third = at + min(y + 2, height - 1) * stride
        fourth = at + min(y + 3, height - 1) * stride
        done = 0
        if min(first + p - 1, last) * pitch + left + width * p // q + REACH <= size:
            for row in range(q):
                for line in range(0, width, CACHE_LINE):
                    prefetch(out, to + (q + row) * stride + line)
            shrink_rows(
                ratio,
                pixels,
                (a, b, c, d, e),
                out,
                (to, second, third, fourth),
                whole,
                a + p * pitch,
                p * pitch * 8 // width,
            )
            done = whole
            if overlaps:
                x = width - 8
                begin = x * p // q
                shrink_rows(
                    ratio,
                    pixels,
                    (a + begin, b + begin, c + begin, d + begin, e + begin),
                    out,
                    (to + x, second + x, third + x, fourth + x),
                    8,
                    a,
                    0,
                )
                done = width
        for x in range(done, width, 8):
            begin = x * p // q
            shrink_end(
                ratio,
                pixels,
                size,
                (a + begin, b + begin, c + begin, d + begin, e + begin),
                out,
                (to + x, second + x, third + x, fourth + x),
                min(8, width - x),
                scratch,
            )
