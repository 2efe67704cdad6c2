"""The thread that decodes one camera, straight into its ring.

Coded frames come in through a queue of a few: a decoder that cannot keep up drops to the next
keyframe instead of falling behind. A keyframe's size is read from its header and refused before
anything is allocated for it. Whatever a stranger sends, an error asks for a keyframe and is
counted; it never ends the thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import av
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace

from calliope import h264, vp8
from calliope.errors import MediaError
from calliope.media import Plane, Post
from calliope.metrics import Metrics
from calliope.ring import FrameRing

logger = logging.getLogger(__name__)

QUEUE_FRAMES = 8
_CODECS = {"VP8": "vp8", "H264": "h264"}


@dataclass(frozen=True, slots=True, eq=False)
class CodedFrame:
    """One whole coded picture. ``codec`` is "VP8" or "H264" (Annex B)."""

    codec: str
    data: bytes
    keyframe: bool
    arrived_ns: int


class Decoder:
    """Decodes into ``ring`` on a thread of its own, from :meth:`start` until :meth:`close`.

    ``on_first`` and ``on_broken`` are posted to the event loop: the first picture is there; a
    picture could not be decoded and a keyframe is needed.
    """

    def __init__(
        self,
        ring: FrameRing,
        max_pixels: int,
        metrics: Metrics,
        post: Post,
        on_first: Callable[[], None],
        on_broken: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self._ring = ring
        self._max_pixels = max_pixels
        self._drops = metrics.drops
        self._post = post
        self._on_first = on_first
        self._on_broken = on_broken
        self._on_end = on_end
        self._queue: deque[CodedFrame] = deque()
        self._ready = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoder", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, frame: CodedFrame) -> bool:
        """Queue a frame; False when the queue was full and a keyframe is needed now.

        Never blocks. A keyframe makes what waits before it needless.
        """
        with self._ready:
            if len(self._queue) < QUEUE_FRAMES:
                self._queue.append(frame)
                self._ready.notify()
                return True
            dropped = len(self._queue) + (0 if frame.keyframe else 1)
            self._queue.clear()
            if frame.keyframe:
                self._queue.append(frame)
                self._ready.notify()
        self._drops.labels(queue="decoder", why="overflow").inc(dropped)
        return frame.keyframe

    def close(self) -> None:
        """Tell the thread to end after the frame it is at; ``on_end`` is posted as its last act."""
        with self._ready:
            self._closing = True
            self._queue.clear()
            self._ready.notify()

    def join(self) -> None:
        """Wait for the thread, which must have been told to end: not on the event loop before
        ``on_end`` came."""
        self._thread.join()

    def _next(self) -> CodedFrame | None:
        with self._ready:
            while not self._queue and not self._closing:
                self._ready.wait()
            return None if self._closing else self._queue.popleft()

    def _run(self) -> None:
        try:
            self._decode_all()
        finally:
            self._post(self._on_end)  # whoever closes waits for it

    def _decode_all(self) -> None:
        context: VideoCodecContext | None = None
        codec = ""
        seen = False
        while (frame := self._next()) is not None:
            try:
                if context is None or frame.codec != codec:
                    codec = frame.codec
                    context = _open(codec, self._max_pixels)
                check_size(frame, self._max_pixels)
                for picture in context.decode(av.Packet(frame.data)):
                    # For VP8 the decoder takes "no clamping needed" (RFC 6386 section 9.2) for
                    # full range, which VP8 does not have: its pictures are always what is wanted.
                    wanted = picture if codec == "VP8" else to_i420(picture)
                    y, u, v = read_planes(wanted)
                    self._ring.write(y, u, v, frame.arrived_ns)
                    if not seen:
                        seen = True
                        self._post(self._on_first)
            except Exception as error:
                if not isinstance(error, MediaError | av.FFmpegError | ValueError):
                    logger.exception("A decoder met what it should not have")
                self._drops.labels(queue="decoder", why="broken").inc()
                self._post(self._on_broken)


def check_size(frame: CodedFrame, max_pixels: int) -> None:
    """MediaError for a frame that announces more pixels than allowed, before it is decoded.

    ``keyframe`` is also set for an H264 frame that holds nothing but parameter sets.
    """
    if frame.codec == "VP8":
        size = vp8.read_keyframe_size(frame.data)
        if size is not None and size[0] * size[1] > max_pixels:
            raise MediaError(f"a picture of {size[0]}x{size[1]} pixels is over the limit")
    else:
        sps = h264.read_sps(frame.data) if frame.keyframe else None
        # Whole macroblocks are coded, so 1080 lines are 1088: up to 15 lines and columns more.
        if sps is not None and (sps.coded_width - 15) * (sps.coded_height - 15) > max_pixels:
            raise MediaError(
                f"a picture of {sps.coded_width}x{sps.coded_height} pixels is over the limit"
            )


def to_i420(picture: VideoFrame) -> VideoFrame:
    """The picture as limited-range BT.601 I420; the very same where it is that already.

    H264 says in its headers where it is not (OBS, Safari: BT.709; some phones: full range); swscale
    converts then, for about 4 ms a 720p picture.
    """
    full_range = picture.color_range == ColorRange.JPEG
    bt709 = picture.colorspace == Colorspace.ITU709
    if not full_range and not bt709 and picture.format.name == "yuv420p":
        return picture
    return picture.reformat(
        format="yuv420p",
        dst_color_range=ColorRange.MPEG,
        dst_colorspace=Colorspace.ITU601 if bt709 else None,
    )


def read_planes(picture: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """The planes of an I420 picture, in its own memory."""
    y, u, v = picture.planes  # each look at it makes them anew
    return _plane(y), _plane(u), _plane(v)


def _plane(plane: VideoPlane) -> Plane:
    pitch = plane.line_size
    rows: Plane = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, pitch)
    return rows[: plane.height, : plane.width]


def _open(codec: str, max_pixels: int) -> VideoCodecContext:
    context = cast(VideoCodecContext, VideoCodecContext.create(_CODECS[codec], "r"))
    context.thread_count = 1  # PyAV starts one per core by default: a camera needs one
    context.flags |= Flags.low_delay
    # The codec's own guard counts alignment and borders too: ours, with room for those.
    context.options = {"max_pixels": str(max_pixels * 2)}
    return context
