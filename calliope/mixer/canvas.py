"""The picture a view is composed into and encoded from."""

from __future__ import annotations

import numpy as np

from calliope.media import Plane
from calliope.mixer import theme


class Canvas:
    """One I420 picture in one contiguous buffer, as encoders like to take it.

    ``buffer`` is C-contiguous uint8 ``(height * 3 // 2, width)``: luma, then U, then V, without
    padding, so that ``av.VideoFrame.from_numpy_buffer(canvas.buffer, "yuv420p")`` shares its
    memory. ``y`` ``(height, width)``, ``u`` and ``v`` ``(height // 2, width // 2)`` are views into
    it, ``flat`` all of it as one row. Whoever made the canvas owns it; it starts as background.

    Raises ValueError unless width and height are even and positive.
    """

    __slots__ = ("__weakref__", "buffer", "flat", "height", "u", "v", "width", "y")

    def __init__(self, width: int, height: int) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"a canvas needs an even, positive size, not {width}x{height}")
        self.width = width
        self.height = height
        self.buffer: Plane = np.empty((height * 3 // 2, width), np.uint8)
        self.flat: Plane = self.buffer.reshape(-1)
        luma, chroma = width * height, width * height // 4
        self.y: Plane = self.flat[:luma].reshape(height, width)
        self.u: Plane = self.flat[luma : luma + chroma].reshape(height // 2, width // 2)
        self.v: Plane = self.flat[luma + chroma :].reshape(height // 2, width // 2)
        self.clear()

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in luma pixels."""
        return self.width, self.height

    def clear(self) -> None:
        """Paint all of it with the background."""
        self.y[:], self.u[:], self.v[:] = theme.BACKGROUND
