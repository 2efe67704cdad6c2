"""Sprites beside their slow twin: rounded rectangles, ink on them, nothing written outside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.media import Plane
from calliope.mixer import kernels, overlay
from calliope.mixer.canvas import Canvas
from calliope.mixer.sprites import begin_sprite, lay_mask, sprite_bytes
from tests.mixer.planes import noise

Sides = st.integers(1, 20).map(lambda half: 2 * half)
CANARY = 77


def guarded(width: int, height: int) -> tuple[Plane, Plane]:
    """A sprite's buffer, and the larger one around it."""
    around = np.full(sprite_bytes(width, height) + 64, CANARY, np.uint8)
    return around[32:-32], around


def split(ink: Plane, width: int, height: int) -> list[tuple[Plane, Plane]]:
    """Keep and add of the three planes."""
    planes, begin = [], 0
    for w, h in ((width, height), (width // 2, height // 2), (width // 2, height // 2)):
        keep, add = ink[begin : begin + 2 * w * h].reshape(2, h, w)
        planes.append((keep, add))
        begin += 2 * w * h
    assert begin == ink.size
    return planes


def over(
    planes: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]],
    coverage: list[npt.NDArray[np.float64]],
    colour: tuple[int, int, int],
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Porter-Duff *over* in floats: what is kept, and what is added."""
    return [
        (keep * (1 - opacity), add * (1 - opacity) + value * opacity)
        for (keep, add), opacity, value in zip(planes, coverage, colour, strict=True)
    ]


@settings(deadline=None)
@given(
    width=Sides,
    height=Sides,
    cut=st.integers(0, 10),
    radius=st.integers(0, 20),
    alpha=st.integers(0, 255),
    at=st.tuples(st.integers(-6, 10), st.integers(-6, 10)),
)
def test_a_sprite_is_a_rounded_rectangle_with_ink_over_it(
    width: int, height: int, cut: int, radius: int, alpha: int, at: tuple[int, int]
) -> None:
    shape = max(2, width - 2 * cut)
    radius = min(radius, shape // 2, height // 2)
    x, y = 2 * at[0], 2 * at[1]
    ink, around = guarded(width, height)
    begin_sprite(ink, width, height, shape, radius, alpha, 200, 90 << 8 | 180)
    mask = noise(16, 12, seed=radius)
    lay_mask(ink, width, height, mask.y, mask.u, x, y, 235, 100 << 8 | 50)

    rectangle = overlay.rounded_mask(shape, height, radius)
    plate, letters = [], []
    for part, corner, text in (
        (1, rectangle.luma, mask.y),
        (2, rectangle.chroma, mask.u),
        (2, rectangle.chroma, mask.u),
    ):
        plate.append(np.zeros((height // part, width // part)))
        plate[-1][:, : shape // part] = corner / 255 * alpha / 255
        wide = np.zeros((height // part + 80, width // part + 80))
        top, left = y // part + 30, x // part + 30
        wide[top : top + text.shape[0], left : left + text.shape[1]] = text / 255
        letters.append(wide[30 : 30 + height // part, 30 : 30 + width // part])
    exact = [(np.full(p.shape, 255.0), np.zeros(p.shape)) for p in plate]
    exact = over(over(exact, plate, (200, 90, 180)), letters, (235, 100, 50))
    for found, wanted in zip(split(ink, width, height), exact, strict=True):
        for one, other in zip(found, wanted, strict=True):
            assert np.abs(one - other).max() <= 2.5  # each of up to four roundings is half a step
    around[32:-32] = CANARY
    assert (around == CANARY).all()


def test_ink_of_another_shape_than_the_sprite_is_cut_at_each_of_its_edges() -> None:
    ink, around = guarded(8, 4)
    solid = overlay.rounded_mask(20, 20, 0)
    begin_sprite(ink, 8, 4, 8, 0, 0, 16, 128 << 8 | 128)
    lay_mask(ink, 8, 4, solid.luma, solid.chroma, -6, -8, 235, 128 << 8 | 128)
    (keep, add), *_ = split(ink, 8, 4)
    assert (keep == 0).all()
    assert (add == 235).all()
    around[32:-32] = CANARY
    assert (around == CANARY).all()


def test_a_sprite_blends_onto_a_canvas_as_its_layers_would() -> None:
    canvas = Canvas(32, 16)
    canvas.flat[:] = 100
    ink = np.empty(sprite_bytes(16, 8), np.uint8)
    begin_sprite(ink, 16, 8, 16, 0, 128, 20, 60 << 8 | 220)
    boxes = np.array((4, 2, 16, 8), np.int64)
    kernels.blend_sprites(canvas.flat, 32, 16, 2, 2, ink, boxes)
    for plane, value, part in ((canvas.y, 20, 1), (canvas.u, 60, 2), (canvas.v, 220, 2)):
        inside = plane[4 // part : 12 // part, 6 // part : 22 // part].copy()
        assert np.abs(inside - (100 * 127 + value * 128) / 255).max() <= 1
        plane[4 // part : 12 // part, 6 // part : 22 // part] = 100
        assert (plane == 100).all()
