"""Each kernel beside its slow twin, pixels computed by hand, and canaries around every target."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.media import Plane
from calliope.mixer import kernels, scaling
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import place, scale_canvas
from calliope.mixer.resample import Span, plan
from tests.mixer.planes import Matrix, noise, padded, resampled

CANARY = 199


def scaled(plane: Plane, rows: Span, columns: Span, height: int, width: int) -> Plane:
    """The kernel's result, cut out of a target whose surroundings must stay as they were."""
    made = plan((plane.shape[0], plane.shape[1]), rows, columns, (height, width))
    target = np.full((height + 4, width + 70), CANARY, np.uint8)
    lines = np.zeros(2 * (plane.shape[1] + scaling.LINE_SLACK), np.int16)
    scaling.scale(
        plane,
        made,
        target.reshape(-1),
        2 * target.shape[1] + 35,
        target.shape[1],
        lines,
        np.zeros(16, np.uint8),
    )
    inside = target[2:-2, 35:-35].copy()
    target[2:-2, 35:-35] = CANARY
    assert (target == CANARY).all()
    return inside


def whole(plane: Plane) -> tuple[Span, Span]:
    return Span(0, plane.shape[0], 1), Span(0, plane.shape[1], 1)


def image(*rows: list[int]) -> Plane:
    return np.array(rows, np.uint8)


def check(plane: Plane, rows: Span, columns: Span, height: int, width: int) -> None:
    exact: Matrix = resampled(plane, rows, columns, height, width)
    assert np.abs(scaled(plane, rows, columns, height, width) - exact).max() <= 1


def test_two_by_two_becomes_its_mean() -> None:
    plane = image([0, 10, 100, 100], [20, 30, 100, 101])
    assert scaled(plane, *whole(plane), 1, 2).tolist() == [[15, 100]]


def test_three_to_two_weighs_the_middle_half_and_half() -> None:
    plane = image([0, 90, 255])
    assert scaled(plane, *whole(plane), 1, 2).tolist() == [[30, 200]]


def test_five_to_two_by_hand() -> None:
    plane = image([10, 20, 30, 40, 50]).T.copy()
    assert scaled(plane, *whole(plane), 2, 1).tolist() == [[18], [42]]


def test_enlarging_by_two_interpolates() -> None:
    plane = image([0, 100])
    assert scaled(plane, *whole(plane), 1, 4).tolist() == [[0, 25, 75, 100]]


def test_one_to_one_is_a_copy() -> None:
    plane = noise(50, 20).y
    assert (scaled(plane, *whole(plane), 20, 50) == plane).all()


@pytest.mark.parametrize("value", [0, 1, 16, 127, 235, 254, 255])
def test_a_flat_picture_keeps_its_value_at_every_size(value: int) -> None:
    plane = np.full((37, 101), value, np.uint8)
    for height, width in ((1, 1), (20, 40), (37, 101), (60, 240), (19, 101), (37, 50)):
        assert (scaled(plane, *whole(plane), height, width) == value).all()


@settings(max_examples=150, deadline=None)
@given(
    data=st.data(),
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    padding=st.sampled_from([0, 1, 13]),
    contrast=st.booleans(),
)
def test_any_part_of_any_plane_at_any_size_is_within_one_grey_level(
    data: st.DataObject, width: int, height: int, padding: int, contrast: bool
) -> None:
    plane = noise(width, height).y
    if contrast:
        plane = ((plane & 1) * 255).astype(np.uint8)
    plane = padded(plane, padding)
    scale = data.draw(st.integers(1, 5), "scale")
    left = data.draw(st.integers(0, width * scale - 1), "left")
    top = data.draw(st.integers(0, height * scale - 1), "top")
    columns = Span(left, data.draw(st.integers(1, width * scale - left), "wide"), scale)
    rows = Span(top, data.draw(st.integers(1, height * scale - top), "high"), scale)
    check(
        plane,
        rows,
        columns,
        data.draw(st.integers(1, 50), "target height"),
        data.draw(st.integers(1, 150), "target width"),
    )


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((640, 360), (252, 140)),
        ((640, 360), (424, 236)),
        ((640, 360), (320, 180)),
        ((640, 360), (316, 176)),
        ((641, 359), (252, 140)),
        ((360, 640), (316, 176)),
        ((1280, 720), (252, 140)),
        ((1280, 720), (638, 358)),
        ((320, 180), (638, 358)),
        ((1280, 720), (34, 20)),
        ((1921, 3), (100, 2)),
    ],
)
def test_real_sizes_cropped_to_fill_are_within_one_grey_level(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    placement = place(*source, *target, "crop")
    plane = noise(*source).y
    check(plane, placement.rows, placement.columns, target[1], target[0])


@settings(deadline=None)
@given(data=st.data(), x=st.integers(0, 20), y=st.integers(0, 20))
def test_filling_touches_its_rectangle_only(data: st.DataObject, x: int, y: int) -> None:
    canvas = Canvas(64, 48)
    canvas.flat[:] = CANARY
    w = 2 * data.draw(st.integers(1, 12))
    h = 2 * data.draw(st.integers(1, 4))
    kernels.fill_picture(canvas.flat, 64, 48, 2 * x, 2 * y, w, h, 1, 2, 3)
    for plane, part, value in ((canvas.y, 1, 1), (canvas.u, 2, 2), (canvas.v, 2, 3)):
        expected = np.full_like(plane, CANARY)
        expected[2 * y // part :, 2 * x // part :][: h // part, : w // part] = value
        assert (plane == expected).all()


def test_fading_halves_the_way_to_grey() -> None:
    canvas = Canvas(4, 4)
    canvas.y[:], canvas.u[:], canvas.v[:] = 216, 28, 240
    kernels.fade_picture(canvas.flat, 4, 4, 2, 0, 2, 4, 128)
    assert canvas.y.tolist() == [[216, 216, 116, 116]] * 4
    assert canvas.u.tolist() == [[28, 78]] * 2
    assert canvas.v.tolist() == [[240, 184]] * 2


def test_an_outline_is_as_thick_as_asked_and_empty_inside() -> None:
    canvas = Canvas(16, 16)
    canvas.flat[:] = CANARY
    kernels.outline_picture(canvas.flat, 16, 16, 2, 4, 12, 8, 2, 50, 60, 70)
    expected = np.full((16, 16), CANARY, np.uint8)
    expected[4:12, 2:14] = 50
    expected[6:10, 4:12] = CANARY
    assert (canvas.y == expected).all()
    chroma = np.full((8, 8), CANARY, np.uint8)
    chroma[2:6, 1:7] = 60
    chroma[3:5, 2:6] = CANARY
    assert (canvas.u == chroma).all()


@settings(deadline=None)
@given(seed=st.integers(0, 1000), width=st.integers(1, 40), height=st.integers(1, 9))
def test_blending_is_the_rounded_weighted_sum(seed: int, width: int, height: int) -> None:
    rng = np.random.default_rng(seed)
    keep = rng.integers(0, 256, (height, width), dtype=np.uint8)
    add = rng.integers(0, 256, (height, width), dtype=np.uint8)
    before = rng.integers(0, 256, (height + 2, width + 6), dtype=np.uint8)
    after = before.copy()
    ink = np.concatenate((np.zeros(5, np.uint8), keep.ravel(), add.ravel()))
    stride = after.shape[1]
    kernels.blend(after.reshape(-1), stride + 3, stride, ink, 5, width, height)
    expected = before.copy()
    inner = before[1:-1, 3:-3].astype(float) * keep / 255
    expected[1:-1, 3:-3] = np.minimum(255, np.floor(inner + 0.5).astype(int) + add)
    assert (after == expected).all()


def round_255(product: int) -> int:
    """A product of two bytes by 255, rounded."""
    return (2 * product + 255) // 510


def test_ink_over_ink_adds_up_as_light_does() -> None:
    keep, add = np.full((2, 4), 255, np.uint8), np.zeros((2, 4), np.uint8)
    half = np.full((2, 2), 128, np.uint8)
    kernels.add_ink(add, half, 0, 1, 255, 200)
    kernels.add_ink(keep, half, 0, 1, 255, 0)
    assert keep[0].tolist() == [255, 127, 127, 255]
    assert add[0].tolist() == [0, 100, 100, 0]
    kernels.add_ink(add, half, 0, 0, 128, 40)
    kernels.add_ink(keep, half, 0, 0, 128, 0)
    assert keep[1].tolist() == [191, 95, 127, 255]
    assert add[1].tolist() == [10, 85, 100, 0]


@settings(deadline=None)
@given(
    top=st.integers(-5, 8),
    left=st.integers(-5, 8),
    alpha=st.integers(0, 255),
    value=st.integers(0, 255),
)
def test_ink_beyond_the_sprite_is_cut_off(top: int, left: int, alpha: int, value: int) -> None:
    guarded = np.full((10, 26), 91, np.uint8)
    sprite = guarded[2:8, 3:23]
    ink = noise(20, 4, seed=value).y
    expected = sprite.copy().astype(int)
    for y in range(4):
        for x in range(20):
            if 0 <= top + y < 6 and 0 <= left + x < 20:
                opacity = round_255(int(ink[y, x]) * alpha)
                light = round_255(91 * (255 - opacity)) + round_255(opacity * value)
                expected[top + y, left + x] = light
    kernels.add_ink(sprite, ink, top, left, alpha, value)
    assert (sprite == expected).all()
    guarded[2:8, 3:23] = 91
    assert (guarded == 91).all()


@pytest.mark.parametrize(("width", "height", "radius"), [(20, 10, 5), (16, 16, 8), (30, 12, 0)])
def test_a_rounded_rectangle_covers_its_area(width: int, height: int, radius: int) -> None:
    coverage = np.zeros((height, width), np.uint8)
    kernels.rounded(coverage, radius)
    area = width * height - (4 - np.pi) * radius * radius
    assert coverage.sum() / 255 == pytest.approx(area, rel=0.01)
    assert (coverage == coverage[::-1]).all()
    assert (coverage == coverage[:, ::-1]).all()


def test_planes_that_do_not_belong_together_are_refused_and_nothing_is_written() -> None:
    frame = noise(16, 8)
    luma = plan((8, 16), Span(0, 8, 1), Span(0, 16, 1), (8, 16))
    chroma = plan((4, 8), Span(0, 4, 1), Span(0, 8, 1), (4, 8))
    canvas = Canvas(16, 8)
    canvas.flat[:] = CANARY
    lines, spill = np.zeros(2 * (16 + scaling.LINE_SLACK), np.int16), np.zeros(16, np.uint8)
    where = np.array((0, 0, 16, 8, 0, 0, 16, 8, 256, 0, *range(6)), np.int64)
    nothing = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    wide = np.zeros((4, 16), np.uint8)
    for u, v in ((frame.u[:, 1:], frame.v), (frame.u, frame.v[1:]), (wide[:, ::2], frame.v)):
        assert not scaling.paint_tile(
            canvas.flat, 16, 8, where, frame.y, u, v, luma, chroma, *nothing, lines, spill
        )
    assert (canvas.flat == CANARY).all()


def test_a_canvas_scales_to_a_smaller_one() -> None:
    source, target = Canvas(128, 72), Canvas(64, 36)
    rng = np.random.default_rng(7)
    source.flat[:] = rng.integers(0, 256, source.flat.size)
    scale_canvas(source, target)
    for big, small in ((source.y, target.y), (source.u, target.u), (source.v, target.v)):
        exact = resampled(big, *whole(big), *small.shape)
        assert np.abs(small - exact).max() <= 1


def test_the_kernels_compute_the_same_as_plain_python() -> None:
    """The same tests pass with the JIT off: no result hangs on how numba types an expression."""
    chosen = "mean or half_and_half or by_hand or interpolates or fading or outline or over_ink"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", chosen]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout
    assert "7 passed" in result.stdout
