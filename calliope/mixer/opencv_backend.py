"""The compositor that scales with OpenCV, plane by plane: the second backend and the reference."""

from __future__ import annotations

import cv2

from calliope.media import Frame, Plane
from calliope.mixer import kernels, theme
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Slot, TileCompositor, TilePicture, area, decorate
from calliope.mixer.placement import place
from calliope.mixer.resample import Span


class OpenCvCompositor(TileCompositor):
    """``cv2.resize`` on the I420 planes: area when shrinking, bilinear when enlarging.

    OpenCV resizes whole samples, so the seen part of a source is rounded to them, which can
    shift a picture by up to half a source pixel against :class:`~calliope.mixer.compositor.
    NumbaCompositor`.
    """

    def paint(self, canvas: Canvas, picture: TilePicture, frame: Frame, slot: Slot) -> None:
        tile = picture.tile
        placement = place(frame.width, frame.height, tile.w, tile.h, tile.fit)
        if (placement.w, placement.h) != (tile.w, tile.h):
            kernels.fill_picture(
                canvas.flat, canvas.width, canvas.height, *area(tile), *theme.EMPTY_TILE
            )
        x, y = tile.x + placement.x, tile.y + placement.y
        planes = ((frame.y, canvas.y, 1), (frame.u, canvas.u, 2), (frame.v, canvas.v, 2))
        for source, target, part in planes:
            top, bottom = _whole(placement.rows, part, source.shape[0])
            left, right = _whole(placement.columns, part, source.shape[1])
            _resize(
                source[top:bottom, left:right],
                target[
                    y // part : (y + placement.h) // part, x // part : (x + placement.w) // part
                ],
            )
        decorate(canvas, picture, slot.overlay)


def _whole(span: Span, part: int, length: int) -> tuple[int, int]:
    """A span in luma samples as whole samples of a plane subsampled by ``part``."""
    scale = span.scale * part
    begin = round(span.origin / scale)
    end = round((span.origin + span.extent) / scale)
    return min(begin, length - 1), max(min(end, length), min(begin, length - 1) + 1)


def _resize(source: Plane, target: Plane) -> None:
    shrinks = source.shape[0] >= target.shape[0] and source.shape[1] >= target.shape[1]
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    size = (target.shape[1], target.shape[0])
    cv2.resize(source, size, dst=target, interpolation=way)
