"""A video mixer ticked by hand, and what it is shown and hands back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import av
import numpy as np

from calliope import vp8
from calliope.clock import FakeClock, Tick
from calliope.media import EncodedFrame, Frame
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Compositor, TilePicture, build_compositor
from calliope.mixer.encoder import parse_renditions
from calliope.mixer.mask import Mask
from calliope.mixer.scene import TickOutput, ViewName
from calliope.mixer.video import VideoMixer

Stream: TypeAlias = tuple[ViewName, str]

CANVAS = (320, 180)
FPS = 30
TOP: Stream = ("grid", "180p")


class NoLabels:
    """A label source without a single glyph."""

    generation = 0

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        return None

    def initials(self, name: str, height_px: int) -> Mask | None:
        return None

    def mark(self, kind: str, size_px: int) -> Mask | None:
        return None


class Camera:
    """A flat grey picture that changes whenever ``paint`` is called."""

    def __init__(self, grey: int, size: tuple[int, int] = (160, 90)) -> None:
        self._serial = 0
        self.paint(grey, size)

    def paint(self, grey: int, size: tuple[int, int] = (160, 90)) -> None:
        self._serial += 1
        width, height = size
        chroma = np.full((height // 2, width // 2), 128, np.uint8)
        luma = np.full((height, width), grey, np.uint8)
        self._frame = Frame(luma, chroma, chroma, self._serial, 0)

    def show(self, frame: Frame) -> None:
        self._frame = frame

    def latest(self) -> Frame | None:
        return self._frame


class CountingCompositor:
    """The real one, which also notes on the desk what it composed."""

    def __init__(self, desk: Desk) -> None:
        self._compositor = build_compositor("numba", NoLabels())
        self._desk = desk

    def compose(self, canvas: Canvas, pictures: Sequence[TilePicture]) -> int:
        self._desk.composed.append(canvas.size)
        self._desk.pictures.append(list(pictures))
        self._desk.touched.append(self._compositor.compose(canvas, pictures))
        return self._desk.touched[-1]


class Desk:
    """A mixer ticked by hand."""

    def __init__(
        self,
        renditions: Sequence[str] = ("180p:300",),
        canvas: tuple[int, int] = CANVAS,
        clock: FakeClock | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.metrics = Metrics()
        self.outputs: list[TickOutput] = []
        self.composed: list[tuple[int, int]] = []
        """The size of the canvas of every composition."""
        self.pictures: list[list[TilePicture]] = []
        """What its tiles were to show."""
        self.touched: list[int] = []
        """How many of them it touched."""
        self.mixer = VideoMixer(
            fps=FPS,
            canvas=canvas,
            renditions=parse_renditions(tuple(renditions), canvas),
            layouts={
                "grid": partial(layout.grid),
                "speaker": partial(layout.speaker),
                "presenter": partial(layout.presenter),
            },
            build_compositor=self._build_compositor,
            clock=self.clock,
            metrics=self.metrics,
            deliver=self.outputs.append,
        )
        self._index = 0

    def _build_compositor(self) -> Compositor:
        return CountingCompositor(self)

    def tick(self, count: int = 1) -> TickOutput:
        for _ in range(count):
            output = self.mixer.tick(Tick(self._index, 0, 0))
            self._index += 1
        return output


def decode(frames: Sequence[EncodedFrame]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    pictures = []
    for frame in frames:
        data = b"".join(vp8.parse_payload(payload).data for payload in frame.payloads)
        pictures += decoder.decode(av.Packet(data))
    return pictures


def sample(metrics: Metrics, name: str, labels: dict[str, str] | None = None) -> float:
    """The value of one sample of ``/metrics``; 0 while there is none."""
    return metrics.registry.get_sample_value(name, labels) or 0.0
