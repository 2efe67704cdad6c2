"""One rendition's VP8 encoder: a canvas in, RTP-ready payloads out, made once for all viewers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import av
from av.video.frame import PictureType

from calliope import vp8
from calliope.media import VIDEO_CLOCK_HZ, EncodedFrame
from calliope.mixer.canvas import Canvas

KEYFRAME_SPACING_90K = VIDEO_CLOCK_HZ // 2
"""Keyframe requests closer together than this are answered by one keyframe (2 a second)."""

SMALL_PIXELS = 640 * 480
"""Up to here pictures are cheap, and more care shows: see docs/decisions.md."""

_SCREEN_OPTIONS = {
    # Scrolling through a full 1080p page of 12-pixel text at 15 fps and 2.7 Mbit/s: with a
    # quantiser of up to 56 and no drops it comes at 25 dB and takes 15 Mbit/s; with these, 30 dB
    # and 2.7 Mbit/s, in fewer pictures (docs/decisions.md).
    "screen-content-mode": "1",
    "qmax": "46",
    "drop-threshold": "30",
}


@dataclass(frozen=True, slots=True)
class Rendition:
    """One size and bitrate at which a canvas is sent, e.g. ``360p`` at 400 kbit/s."""

    name: str
    width: int
    height: int
    kbps: int


def parse_renditions(specs: tuple[str, ...], canvas: tuple[int, int]) -> tuple[Rendition, ...]:
    """``("720p:1200", ...)`` for a canvas (width, height) in pixels, in the given order.

    Widths follow the canvas's shape, rounded to even. The specs have passed the config's check.
    """
    renditions = []
    for spec in specs:
        name, _, kbps = spec.partition(":")
        height = int(name.removesuffix("p"))
        width = round(canvas[0] * height / canvas[1] / 2) * 2
        renditions.append(Rendition(name, width, height, int(kbps)))
    return tuple(renditions)


def screen_renditions(
    renditions: tuple[Rendition, ...], ordinary: tuple[int, int], canvas: tuple[int, int]
) -> tuple[Rendition, ...]:
    """The renditions of a view that shows a screen on a ``canvas`` of its own (width, height).

    The first is the canvas itself, at a bitrate that grows with its pixels beyond those of the
    ``ordinary`` canvas; the others are as much smaller as their names say, at their own bitrates,
    for these are what weak links carry.
    """
    top = renditions[0]
    share = max(1.0, canvas[0] * canvas[1] / (ordinary[0] * ordinary[1]))
    smaller = [
        Rendition(
            rendition.name,
            max(2, round(canvas[0] * rendition.height / top.height / 2) * 2),
            max(2, round(canvas[1] * rendition.height / top.height / 2) * 2),
            rendition.kbps,
        )
        for rendition in renditions[1:]
    ]
    return (Rendition(top.name, *canvas, round(top.kbps * share)), *smaller)


class VideoEncoder:
    """VP8 at a fixed bitrate. Used by one thread; ``close`` frees libvpx's memory.

    Renditions are of a fixed bitrate because an open libvpx context takes no new one: reopening
    costs a keyframe, so a viewer is moved between renditions instead.

    ``screen`` is for pictures of text: they never get coarser than what can be read; what the
    bitrate does not carry at that quality is dropped, and ``encode`` returns None.
    """

    def __init__(self, rendition: Rendition, fps: int, *, screen: bool = False) -> None:
        self.rendition = rendition
        self._wants_keyframe = True
        self._last_keyframe_90k: int | None = None
        context = av.CodecContext.create("libvpx", "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width = rendition.width
        context.height = rendition.height
        context.pix_fmt = "yuv420p"
        context.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        context.framerate = Fraction(fps, 1)
        context.bit_rate = rendition.kbps * 1000
        context.gop_size = 3600 * fps  # keyframes come when asked for
        context.thread_count = 1  # other rooms' mixers use the other cores
        bits = str(rendition.kbps * 1000)
        context.options = {
            "deadline": "realtime",
            # Fixed speed: a positive value lets libvpx choose by wall-clock time, which a busy
            # machine makes random.
            "cpu-used": "-12" if rendition.width * rendition.height > SMALL_PIXELS else "-8",
            "lag-in-frames": "0",
            "minrate": bits,
            "maxrate": bits,  # equal to minrate: constant bitrate
            "bufsize": bits,  # one second
            "qmin": "2",
            "qmax": "56",
            "undershoot-pct": "95",
            "overshoot-pct": "30",
            # A keyframe may take 15 average frames' bits: half a second's worth, no more.
            "max-intra-rate": "1500",
            "static-thresh": "1",
            # Off: costs a third of the encoding time, and cameras denoise already.
            "noise-sensitivity": "0",
        }
        if screen:
            context.options |= _SCREEN_OPTIONS
        context.open()
        self._context: av.VideoCodecContext | None = context

    def request_keyframe(self) -> None:
        """Make the next frame a keyframe, or the first that is not too soon after the last one."""
        self._wants_keyframe = True

    @property
    def keyframe_pending(self) -> bool:
        """A keyframe was asked for and not made yet."""
        return self._wants_keyframe

    def encode(self, canvas: Canvas, pts_90k: int) -> EncodedFrame | None:
        """Encode a canvas of the rendition's size; None when rate control drops the frame.

        The canvas is only read, and only during the call. ``pts_90k`` must grow.
        """
        if self._context is None:
            raise ValueError("encode() after close()")
        frame = av.VideoFrame.from_numpy_buffer(canvas.buffer, "yuv420p")
        frame.pts = pts_90k
        frame.time_base = Fraction(1, VIDEO_CLOCK_HZ)
        last = self._last_keyframe_90k
        if last is None or (self._wants_keyframe and pts_90k - last >= KEYFRAME_SPACING_90K):
            frame.pict_type = PictureType.I
        data = b"".join(bytes(packet) for packet in self._context.encode(frame))
        if not data:
            return None
        keyframe = vp8.is_keyframe(data)
        if keyframe:
            self._wants_keyframe = False
            self._last_keyframe_90k = pts_90k
        return EncodedFrame(vp8.packetise(data), keyframe, pts_90k)

    def close(self) -> None:
        """Free the encoder; harmless when repeated."""
        self._context = None
