"""A camera whose picture takes all the bits that an encoder has."""

from __future__ import annotations

import asyncio
import fractions
import time

import av
import numpy as np
from aiortc import MediaStreamTrack

FPS = 10
_SIZE = (320, 180)
_FRAMES = 30


class NoiseCamera(MediaStreamTrack):
    """Blocks that wander, with grain on them, 10 pictures a second; seeded."""

    kind = "video"

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        self._frames = [_picture(seed, index) for index in range(_FRAMES)]
        self._start_s = time.monotonic()
        self._index = -1
        self.sent = 0

    async def recv(self) -> av.VideoFrame:
        passed_s = time.monotonic() - self._start_s
        index = self._index = max(self._index + 1, int(passed_s * FPS))  # no catching up
        await asyncio.sleep(max(0.0, index / FPS - passed_s))
        self.sent += 1
        frame = self._frames[index % _FRAMES]
        frame.pts = index * 90_000 // FPS
        frame.time_base = fractions.Fraction(1, 90_000)
        return frame


def _picture(seed: int, index: int) -> av.VideoFrame:
    width, height = _SIZE
    blocks = np.random.default_rng(seed).integers(40, 210, (height // 9, width // 8))
    luma = np.roll(blocks.repeat(9, 0).repeat(8, 1), (6 * index, 8 * index), (0, 1))
    luma = luma + np.random.default_rng([seed, index]).integers(-12, 12, luma.shape)
    frame = av.VideoFrame(width, height, "yuv420p")
    for plane, content in zip(
        frame.planes,
        (luma, np.full((height // 2, width // 2), 110), np.full((height // 2, width // 2), 150)),
        strict=True,
    ):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        rows[:, : content.shape[1]] = content
        plane.update(rows.tobytes())
    return frame
