"""The composed picture's colours and proportions, in BT.601 limited range."""

from __future__ import annotations

from typing import NamedTuple


class Colour(NamedTuple):
    """One colour as limited-range BT.601: luma 16..235, chroma 16..240 around 128."""

    y: int
    u: int
    v: int


def from_rgb(rgb: int) -> Colour:
    """``0xRRGGBB`` to limited-range BT.601 (ITU-R BT.601-7, table 3), rounded."""
    red, green, blue = rgb >> 16 & 255, rgb >> 8 & 255, rgb & 255
    return Colour(
        round(16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255),
        round(128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255),
        round(128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255),
    )


BACKGROUND = from_rgb(0x17181C)
"""Behind and between the tiles."""
EMPTY_TILE = from_rgb(0x2A2C33)
"""A tile where no picture is: without a camera, and the bars beside one that is shown whole."""
SPEAKING = from_rgb(0x36D399)
PLATE = from_rgb(0x0C0D10)
PLATE_ALPHA = 165
INK = from_rgb(0xFFFFFF)
MUTED_INK = from_rgb(0xFF8A80)
HAND_INK = from_rgb(0xFFD166)
STALLED_INK = from_rgb(0xFFFFFF)
STALLED_LIGHT = 110
"""What is left of a stalled tile's light and colour, of 256."""

DISCS = tuple(
    map(
        from_rgb,
        (
            0x5B6B8C,
            0x4F7A6B,
            0x8A5A5A,
            0x7A6396,
            0x94703F,
            0x3F7F8C,
            0x8C5579,
            0x66753F,
            0x5560A0,
            0x9A5F45,
        ),
    )
)
"""Muted colours for the discs of people without a picture."""
