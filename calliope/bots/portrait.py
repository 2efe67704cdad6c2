"""What a bot's camera sees: a person drawn by code before a soft, moving background.

Planar I420 (BT.601, limited range), drawn straight into the planes. All movement repeats after one
loop, so that its end runs into its beginning. Every seed gives another room and another person.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
import numpy.typing as npt

from calliope.media import Plane

Colour = tuple[float, float, float]  # Y, U, V in limited range
_Floats = npt.NDArray[np.float32]

_GOLDEN = 0.618034  # steps around the colour circle by which neighbours never look alike
_SKINS = (0.95, 0.8, 0.6, 0.42)
_HAIRS = (0.12, 0.3, 0.2, 0.08, 0.72)
_NOISE_LEVELS = 1.6  # of luma: what a webcam adds indoors
_NOISE_TILES = 4


def yuv(hue: float, saturation: float, value: float) -> Colour:
    """A colour of the HSV circle (each 0 to 1) in BT.601 limited range."""
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return 16 + 219 * y, 128 + 224 * (b - y) / 1.772, 128 + 224 * (r - y) / 1.402


@dataclass(frozen=True, slots=True)
class _Look:
    wall: Colour
    floor: Colour
    lamp: Colour
    skin: Colour
    hair: Colour
    shirt: Colour
    long_hair: bool
    glasses: bool
    sway: float
    phase: float


def _look(seed: int) -> _Look:
    random = np.random.default_rng(seed)
    hue = seed * _GOLDEN
    return _Look(
        wall=yuv(hue, 0.38, 0.62),
        floor=yuv(hue + 0.06, 0.55, 0.26),
        lamp=yuv(hue + 0.12, 0.25, 0.98),
        skin=yuv(0.055 + 0.02 * random.random(), 0.35 + 0.2 * random.random(), _SKINS[seed % 4]),
        hair=yuv(0.07, 0.5 * random.random(), _HAIRS[seed % 5]),
        shirt=yuv(hue + 0.45, 0.6, 0.75),
        long_hair=seed % 2 == 1,
        glasses=seed % 3 == 2,
        sway=0.02 + 0.02 * random.random(),
        phase=random.random(),
    )


class Portrait:
    """One bot's picture at one size, ``width`` x ``height`` (both even)."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        self._look = _look(seed)
        self._size = (height, width)
        self._random = np.random.default_rng(seed)
        # Heights are the unit of length, (0, 0) is the middle: shapes keep theirs at any size.
        aspect = width / height
        x = ((np.arange(width) + 0.5) / width - 0.5) * aspect
        y = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
        self._x: _Floats = x.astype(np.float32)
        self._y: _Floats = y.astype(np.float32)
        self._noise = self._random.normal(0, _NOISE_LEVELS, (_NOISE_TILES, height, width)).astype(
            np.float32
        )

    def draw(self, turn: float) -> tuple[Plane, Plane, Plane]:
        """The planes at ``turn`` of the loop (0 to 1), newly made."""
        look = self._look
        now = 2 * pi * (turn + look.phase)
        planes = self._background(now)
        lean = look.sway * sin(now)
        nod = 0.008 * sin(2 * now)
        self._draw_person(planes, lean, nod, turn)
        luma, u, v = planes
        luma += self._noise[int(turn * 997) % _NOISE_TILES]
        return _to_bytes(luma), _to_bytes(u), _to_bytes(v)

    def _background(self, now: float) -> tuple[_Floats, _Floats, _Floats]:
        look = self._look
        height, width = self._size
        fade = np.clip(self._y + 0.5, 0, 1) ** 1.5
        planes = []
        for top, bottom in zip(look.wall, look.floor, strict=True):
            planes.append(np.repeat(top + (bottom - top) * fade, width, axis=1).astype(np.float32))
        luma, u, v = planes[0], planes[1][::2, ::2].copy(), planes[2][::2, ::2].copy()
        assert luma.shape == (height, width)
        made = (luma, u, v)
        for i in range(3):  # lamps out of focus, drifting
            x = -0.62 + 0.6 * i + 0.05 * cos(now + 2 * i)
            y = -0.22 + 0.05 * i + 0.03 * sin(now * (1 + i % 2) + i)
            self._ellipse(made, look.lamp, x, y, 0.1 + 0.03 * i, 0.1 + 0.03 * i, 1.4, 0.55)
        return made

    def _draw_person(
        self, planes: tuple[_Floats, _Floats, _Floats], lean: float, nod: float, turn: float
    ) -> None:
        look = self._look
        x, y = lean, -0.06 + nod
        dark = yuv(0.6, 0.3, 0.12)
        if look.long_hair:
            self._ellipse(planes, look.hair, x, y + 0.07, 0.2, 0.29)
        self._ellipse(planes, look.skin, lean * 0.8, y + 0.21, 0.07, 0.16)
        self._ellipse(planes, look.shirt, lean * 0.5, 0.55, 0.42, 0.32)
        self._ellipse(planes, look.hair, x, y - 0.06, 0.165, 0.19)
        self._ellipse(planes, look.skin, x, y + 0.015, 0.14, 0.185)
        blink = 0.15 if (turn * 2 + look.phase) % 1 < 0.06 else 1.0
        for side in (-1, 1):
            eye = x + side * 0.052 + 0.3 * lean
            if look.glasses:
                self._ellipse(planes, dark, eye, y - 0.005, 0.043, 0.036)
                self._ellipse(planes, look.skin, eye, y - 0.005, 0.036, 0.029)
            self._ellipse(planes, dark, eye, y - 0.005, 0.013, 0.017 * blink)
        mouth = 0.008 + 0.012 * (0.5 + 0.5 * sin(2 * pi * 6 * turn))
        self._ellipse(planes, yuv(0.98, 0.55, 0.5), x + 0.3 * lean, y + 0.1, 0.038, mouth)

    def _ellipse(
        self,
        planes: tuple[_Floats, _Floats, _Floats],
        colour: Colour,
        x: float,
        y: float,
        rx: float,
        ry: float,
        softness: float = 0.0,
        strength: float = 1.0,
    ) -> None:
        """Blend an ellipse in; ``softness`` is the width of its edge in radii (0: one pixel)."""
        edge = softness or 1.5 / (self._size[0] * min(rx, ry))
        reach = 1 + edge
        left, right = np.searchsorted(self._x, (x - rx * reach, x + rx * reach))
        top, bottom = np.searchsorted(self._y[:, 0], (y - ry * reach, y + ry * reach))
        left, top = left // 2 * 2, top // 2 * 2
        right, bottom = (right + 1) // 2 * 2, (bottom + 1) // 2 * 2
        across = (self._x[left:right] - x) / rx
        down = (self._y[top:bottom] - y) / ry
        distance = np.sqrt(across * across + down * down)
        cover = np.clip((1 + edge / 2 - distance) / edge, 0, 1) * strength
        luma, u, v = planes
        part = luma[top:bottom, left:right]
        part += (colour[0] - part) * cover
        coarse = cover[::2, ::2]
        for plane, value in ((u, colour[1]), (v, colour[2])):
            part = plane[top // 2 : bottom // 2, left // 2 : right // 2]
            part += (value - part) * coarse


def _to_bytes(plane: _Floats) -> Plane:
    whole: Plane = np.clip(plane + 0.5, 16, 240).astype(np.uint8)
    return whole
