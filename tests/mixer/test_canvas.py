"""The canvas: one buffer that encoders take as it is."""

from __future__ import annotations

import av
import numpy as np
import pytest

from calliope.mixer import theme
from calliope.mixer.canvas import Canvas


def test_a_new_canvas_is_background() -> None:
    canvas = Canvas(6, 4)
    assert canvas.buffer.shape == (6, 6)
    assert canvas.size == (6, 4)
    for plane, value in zip((canvas.y, canvas.u, canvas.v), theme.BACKGROUND, strict=True):
        assert (plane == value).all()


def test_planes_are_views_in_i420_order() -> None:
    canvas = Canvas(4, 4)
    canvas.flat[:] = np.arange(24)
    assert canvas.y.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]
    assert canvas.u.tolist() == [[16, 17], [18, 19]]
    assert canvas.v.tolist() == [[20, 21], [22, 23]]


def test_a_video_frame_shares_the_canvas() -> None:
    canvas = Canvas(64, 32)
    frame = av.VideoFrame.from_numpy_buffer(canvas.buffer, "yuv420p")
    canvas.y[5, 7], canvas.u[3, 2], canvas.v[1, 9] = 201, 202, 203
    shown = frame.to_ndarray()
    assert shown[5, 7] == 201
    assert (shown == canvas.buffer).all()


@pytest.mark.parametrize(("width", "height"), [(5, 4), (4, 5), (0, 4), (4, -2)])
def test_odd_and_empty_sizes_are_refused(width: int, height: int) -> None:
    with pytest.raises(ValueError, match="even, positive size"):
        Canvas(width, height)


def test_colours_are_limited_range() -> None:
    assert theme.from_rgb(0x000000) == (16, 128, 128)
    assert theme.from_rgb(0xFFFFFF) == (235, 128, 128)
    assert theme.from_rgb(0xFF0000) == (81, 90, 240)
    assert theme.from_rgb(0x0000FF) == (41, 240, 110)
