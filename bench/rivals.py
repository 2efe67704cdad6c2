"""Ways to compose the same tiles from the same frames, as their users would write them.

Each takes the tiles and the frames of one tick and fills a canvas of its own, on one thread.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from calliope.media import Frame, Plane
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import NumbaCompositor, TilePicture
from calliope.mixer.mask import Mask
from calliope.mixer.overlay import MarkKind, rounded_mask
from calliope.mixer.scene import Tile

Compose: TypeAlias = Callable[[Sequence[Frame]], object]


class InkSource:
    """Labels of about a real name's width, rasterised beforehand as the atlas does it."""

    generation = 0

    def __init__(self) -> None:
        self._masks = functools.cache(rounded_mask)

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        return self._masks(min(height_px * len(name) // 4 * 2, max_width_px), height_px, 2)

    def initials(self, name: str, height_px: int) -> Mask | None:
        return self.label(name, height_px, height_px)

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None:
        return self.label(kind, size_px, size_px)


def calliope(tiles: Sequence[Tile], size: tuple[int, int]) -> Compose:
    """Ours, with a name on every tile, a muted mark on every third and one speaker."""
    canvas, compositor = Canvas(*size), NumbaCompositor(InkSource())

    def compose(frames: Sequence[Frame]) -> object:
        pictures = [
            TilePicture(tile, frame, "Ada Lovelace", muted=seat % 3 == 0, speaking=seat == 1)
            for seat, (tile, frame) in enumerate(zip(tiles, frames, strict=True))
        ]
        return compositor.compose(canvas, pictures)

    return compose


def opencv_planes(tiles: Sequence[Tile], size: tuple[int, int], way: int) -> Compose:
    """``cv2.resize`` of each plane into the canvas; no names."""
    canvas = Canvas(*size)

    def compose(frames: Sequence[Frame]) -> object:
        for tile, frame in zip(tiles, frames, strict=True):
            for source, target, part in (
                (frame.y, canvas.y, 1),
                (frame.u, canvas.u, 2),
                (frame.v, canvas.v, 2),
            ):
                x, y, w, h = (value // part for value in (tile.x, tile.y, tile.w, tile.h))
                cv2.resize(source, (w, h), dst=target[y : y + h, x : x + w], interpolation=way)
        return canvas

    return compose


def opencv_bilinear(tiles: Sequence[Tile], size: tuple[int, int]) -> Compose:
    return opencv_planes(tiles, size, cv2.INTER_LINEAR)


def opencv_area(tiles: Sequence[Tile], size: tuple[int, int]) -> Compose:
    return opencv_planes(tiles, size, cv2.INTER_AREA)


def opencv_bgr(tiles: Sequence[Tile], size: tuple[int, int]) -> Compose:
    """The usual way: to BGR, write the name, resize, put together, back to I420."""
    canvas: npt.NDArray[np.uint8] = np.zeros((size[1], size[0], 3), np.uint8)

    def compose(frames: Sequence[Frame]) -> object:
        for tile, frame in zip(tiles, frames, strict=True):
            picture = cv2.cvtColor(_i420(frame), cv2.COLOR_YUV2BGR_I420)
            where = (10, frame.height - 10)
            white = (255, 255, 255)
            cv2.putText(picture, "Ada Lovelace", where, cv2.FONT_HERSHEY_SIMPLEX, 1, white, 2)
            canvas[tile.y : tile.y + tile.h, tile.x : tile.x + tile.w] = cv2.resize(
                picture, (tile.w, tile.h)
            )
        return cv2.cvtColor(canvas, cv2.COLOR_BGR2YUV_I420)

    return compose


def _i420(frame: Frame) -> Plane:
    """The frame in one buffer, as OpenCV wants it; a view where it already is in one."""
    base = frame.y.base
    if isinstance(base, np.ndarray) and base.size == frame.width * frame.height * 3 // 2:
        return base.reshape(-1, frame.width)
    even = frame.height // 2 * 2, frame.width // 2 * 2
    planes = (
        frame.y[: even[0], : even[1]],
        frame.u[: even[0] // 2, : even[1] // 2],
        frame.v[: even[0] // 2, : even[1] // 2],
    )
    joined: Plane = np.concatenate([np.ascontiguousarray(plane).reshape(-1) for plane in planes])
    return joined.reshape(-1, even[1])


def plain_copy(tiles: Sequence[Tile], size: tuple[int, int]) -> Compose:
    """The floor: copy the top left of each frame into its tile, without scaling."""
    canvas = Canvas(*size)

    def compose(frames: Sequence[Frame]) -> object:
        for tile, frame in zip(tiles, frames, strict=True):
            for source, target, part in (
                (frame.y, canvas.y, 1),
                (frame.u, canvas.u, 2),
                (frame.v, canvas.v, 2),
            ):
                x, y, w, h = (value // part for value in (tile.x, tile.y, tile.w, tile.h))
                h, w = min(h, source.shape[0]), min(w, source.shape[1])
                target[y : y + h, x : x + w] = source[:h, :w]
        return canvas

    return compose


def plain_read(_tiles: Sequence[Tile], _size: tuple[int, int]) -> Compose:
    """The floor of what looks at every sample: read the frames, of even sizes, and no more."""

    def compose(frames: Sequence[Frame]) -> object:
        return [np.bitwise_or.reduce(_i420(frame).reshape(-1).view(np.uint64)) for frame in frames]

    return compose


RIVALS: dict[str, Callable[[Sequence[Tile], tuple[int, int]], Compose]] = {
    "calliope": calliope,
    "opencv-bilinear": opencv_bilinear,
    "opencv-area": opencv_area,
    "opencv-bgr": opencv_bgr,
    "plain-copy": plain_copy,
    "plain-read": plain_read,
}
