"""Each kernel beside its slow twin, pixels computed by hand, and canaries around every target."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.jit import kernel
from calliope.media import Plane
from calliope.mixer import kernels, scaling
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import scale_canvas
from calliope.mixer.placement import place
from calliope.mixer.ratios import RATIOS
from calliope.mixer.resample import SHRINK, Span, packed, plan
from calliope.simd import start_of
from tests.mixer import shrunk
from tests.mixer.planes import Matrix, noise, padded, resampled

CANARY = 199


@kernel
def scale_plane(
    source: Plane, made: Plane, target: Plane, at: int, stride: int, scratch: Plane
) -> None:
    scaling.scale(source, start_of(made), start_of(target), at, stride, start_of(scratch))


def scaled(plane: Plane, rows: Span, columns: Span, height: int, width: int) -> Plane:
    """The kernel's result, cut out of a target whose surroundings must stay as they were."""
    made = plan((plane.shape[0], plane.shape[1]), rows, columns, (height, width))
    target = np.full((height + 4, width + 70), CANARY, np.uint8)
    needed = scaling.scratch_size(plane.shape[1])
    scratch = np.full(needed + 64, CANARY, np.uint8)
    at = 2 * target.shape[1] + 35
    scale_plane(plane, made, target.reshape(-1), at, target.shape[1], scratch)
    inside = target[2:-2, 35:-35].copy()
    target[2:-2, 35:-35] = CANARY
    assert (target == CANARY).all()
    assert (scratch[needed:] == CANARY).all()
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


@pytest.mark.parametrize(("height", "taps"), [(140, 6), (176, 6), (238, 4)])
def test_an_upright_phone_shown_whole_is_within_one_grey_level(height: int, taps: int) -> None:
    """Rows of white next to rows of black sum to the most and the least that a line must hold."""
    width = height * 9 // 16 // 2 * 2
    plane = np.repeat((noise(1, 640).y & 1) * np.uint8(255), 360, axis=1)
    plane[:, 100:] = (noise(260, 640).y & 1) * np.uint8(255)
    made = plan(plane.shape, Span(0, 640, 1), Span(0, 360, 1), (height, width))
    assert number_of(made, 7) == taps
    check(plane, Span(0, 640, 1), Span(0, 360, 1), height, width)


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


def number_of(found: Plane, index: int) -> int:
    return int(found[: 8 * (index + 1)].view(np.int64)[index])


@pytest.mark.parametrize(("p", "q"), RATIOS)
@pytest.mark.parametrize(
    "size", [(1, 1), (2, 3), (8, 4), (9, 5), (15, 6), (24, 7), (126, 70), (319, 2)]
)
def test_simple_ratios_are_exact_but_for_a_last_rounding(
    p: int, q: int, size: tuple[int, int]
) -> None:
    """Black and white noise is the hardest; what is cut off has the other colour."""
    width, height = size
    shape = -(-height * p // q) + 3, -(-width * p // q) + 5
    plane = padded(((noise(shape[1], shape[0]).y & 1) * 255).astype(np.uint8), 3)
    rows, columns = Span(2 * q, height * p, q), Span(4 * q, width * p, q)
    assert number_of(plan(shape, rows, columns, (height, width)), 1) == SHRINK
    exact = resampled(plane, rows, columns, height, width)
    assert np.abs(scaled(plane, rows, columns, height, width) - exact).max() <= 0.75


def test_a_ratio_by_hand() -> None:
    """Five by five samples to two by two: whole, shared by two, shared by four."""
    plane = np.zeros((5, 5), np.uint8)
    plane[0, 0], plane[2, 2], plane[4, 4], plane[2, 4] = 100, 200, 250, 150
    # 4 * 100 + 200, 200; 200 + 2 * 150 above and below, 4 * 250: of 25
    assert scaled(plane, *whole(plane), 2, 2).tolist() == [[24, 20], [8, 60]]


@pytest.mark.parametrize(("p", "q"), [(1, 1), *RATIOS, (7, 3), (7, 5), (1, 2), (3, 4), (9, 1)])
def test_nothing_is_read_beyond_the_end_of_a_plane(p: int, q: int) -> None:
    """The byte after it is in a page that may not be read: to try ends the process."""
    width, height = 52, 6
    for more in range(9):
        shape = -(-height * p // q), -(-(width + more) * p // q)
        with before_a_forbidden_page(shape[0] * shape[1]) as memory:
            plane = memory.reshape(shape)
            plane[:] = 77
            rows, columns = Span(0, height * p, q), Span(0, (width + more) * p, q)
            made = plan(shape, rows, columns, (height, width + more))
            target = np.zeros(height * (width + more), np.uint8)
            scratch = np.zeros(scaling.scratch_size(shape[1]), np.uint8)
            scale_plane(plane, made, target, 0, width + more, scratch)
            assert (target == 77).all()


@contextlib.contextmanager
def before_a_forbidden_page(size: int) -> Iterator[Plane]:
    page = mmap.PAGESIZE
    length = -(-size // page) * page
    memory = mmap.mmap(-1, length + page)
    whole_memory = np.frombuffer(memory, np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    end = ctypes.c_void_p(whole_memory.ctypes.data + length)
    assert libc.mprotect(end, ctypes.c_size_t(page), 0) == 0
    yield whole_memory[length - size : length]
    assert libc.mprotect(end, ctypes.c_size_t(page), mmap.PROT_READ | mmap.PROT_WRITE) == 0


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
    numbers = (16, 8, 0, 0, 16, 8, 0, 0, 16, 8, 256, 0, *range(6))
    where, scratch = packed(numbers, (luma, chroma)), np.zeros(scaling.scratch_size(16), np.uint8)
    nothing = np.zeros(0, np.uint8), np.zeros(0, np.int64)
    wide = np.zeros((4, 16), np.uint8)
    for u, v in ((frame.u[:, 1:], frame.v), (frame.u, frame.v[1:]), (wide[:, ::2], frame.v)):
        assert not scaling.paint_tile(canvas.flat, where, frame.y, u, v, *nothing, scratch)
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
    chosen = (
        "mean or half_and_half or by_hand or interpolates or fading or outline or over_ink "
        "or (simple_ratios and size3)"
    )
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", chosen]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout
    assert "15 passed" in result.stdout


@pytest.mark.parametrize(
    "cpu",
    [
        {"NUMBA_CPU_NAME": "generic"},
        {"NUMBA_DISABLE_JIT": "1"},
    ],
    ids=["portable", "plain Python"],
)
def test_every_cpu_shrinks_alike_to_the_bit(cpu: dict[str, str]) -> None:
    command = [sys.executable, "-m", "tests.mixer.shrunk"]
    result = subprocess.run(
        command, env={**os.environ, **cpu}, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.stdout.strip() == str(shrunk.checksum()), result.stderr
