"""What encoding a frame costs, by rendition, beside stock aiortc's settings; CPU of one thread.

The canvas is a grid of nine moving, noisy cameras. ``psnr_db`` among the extra figures says what
the bits bought: luma of the last eight decoded frames.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from pytest_benchmark.fixture import BenchmarkFixture

from bench.pictures import camera
from calliope import vp8
from calliope.metrics import Metrics
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import TilePicture, build_compositor, scale_canvas
from calliope.mixer.encoder import Rendition, VideoEncoder
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.layout import grid
from calliope.mixer.scene import Person

FPS = 30
RENDITIONS = (
    Rendition("720p", 1280, 720, 1200),
    Rendition("360p", 640, 360, 400),
    Rendition("180p", 320, 180, 120),
)

Encode = Callable[[Canvas, int], bytes]


@pytest.fixture(scope="module")
def canvases() -> list[Canvas]:
    return room_of_nine()


def room_of_nine() -> list[Canvas]:
    """Sixteen consecutive 720p pictures of a room of nine."""
    people = [Person(str(seat), f"Person {seat}") for seat in range(9)]
    tiles = grid(people, (1280, 720))
    cameras = [camera(seed, 640, 360, count=16) for seed in range(9)]
    pictures = []
    with GlyphAtlas(Metrics()) as atlas:
        for index in range(16):
            canvas = Canvas(1280, 720)
            shown = [
                TilePicture(tile, frames[index], person.name)
                for tile, frames, person in zip(tiles, cameras, people, strict=True)
            ]
            build_compositor("numba", atlas).compose(canvas, shown)
            pictures.append(canvas)
    return pictures


def ours(rendition: Rendition) -> Encode:
    """Calliope's own encoder."""
    encoder = VideoEncoder(rendition, FPS)

    def encode(canvas: Canvas, pts_90k: int) -> bytes:
        frame = encoder.encode(canvas, pts_90k)
        if frame is None:
            return b""
        return b"".join(vp8.parse_payload(payload).data for payload in frame.payloads)

    return encode


def stock(rendition: Rendition) -> Encode:
    """The settings of aiortc 1.16's encoder, on one thread."""
    context = av.CodecContext.create("libvpx", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = rendition.width, rendition.height, "yuv420p"
    context.bit_rate = rendition.kbps * 1000
    context.time_base = Fraction(1, 90_000)
    context.framerate = Fraction(FPS, 1)
    context.gop_size = 3000
    context.thread_count = 1
    bits = str(rendition.kbps * 1000)
    context.options = {
        "bufsize": bits, "cpu-used": "-6", "deadline": "realtime", "lag-in-frames": "0",
        "minrate": bits, "maxrate": bits, "noise-sensitivity": "4", "overshoot-pct": "15",
        "qmin": "2", "qmax": "56", "static-thresh": "1", "undershoot-pct": "100",
    }  # fmt: skip
    context.open()

    def encode(canvas: Canvas, pts_90k: int) -> bytes:
        frame = av.VideoFrame.from_numpy_buffer(canvas.buffer, "yuv420p")
        frame.pts, frame.time_base = pts_90k, Fraction(1, 90_000)
        if pts_90k == 0:
            frame.pict_type = PictureType.I
        return b"".join(bytes(packet) for packet in context.encode(frame))

    return encode


@pytest.mark.parametrize("settings", [ours, stock], ids=["calliope", "aiortc"])
@pytest.mark.parametrize("rendition", RENDITIONS, ids=lambda rendition: rendition.name)
@pytest.mark.benchmark(timer=time.thread_time)
def test_encode(
    benchmark: BenchmarkFixture,
    canvases: list[Canvas],
    rendition: Rendition,
    settings: Callable[[Rendition], Encode],
) -> None:
    benchmark.group = f"encode {rendition.name}"
    scaled = []
    for canvas in canvases:
        target = Canvas(rendition.width, rendition.height)
        scale_canvas(canvas, target)
        scaled.append(target)
    there_and_back = itertools.cycle([*scaled, *scaled[-2:0:-1]])
    encode = settings(rendition)
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    sizes: list[int] = []
    errors: list[float] = []
    last: list[tuple[Canvas, bytes]] = []

    def one() -> None:
        canvas = next(there_and_back)
        data = encode(canvas, len(last) * 90_000 // FPS)
        last.append((canvas, data))

    measure: Any = benchmark  # its ``pedantic`` has no types
    measure.pedantic(one, rounds=120, iterations=1, warmup_rounds=30)
    for canvas, data in last:
        sizes.append(len(data))
        for picture in decoder.decode(av.Packet(data)) if data else []:
            luma = picture.to_ndarray()[: picture.height].astype(np.float64)
            errors.append(float(np.mean((luma - canvas.y) ** 2)))
    psnr_db = 10 * np.log10(255**2 / np.mean(errors[-8:]))
    kbps = 8 * sum(sizes) * FPS / len(sizes) / 1000
    benchmark.extra_info.update(psnr_db=round(float(psnr_db), 2), kbps=round(kbps))
    print(f" {psnr_db:.2f} dB at {kbps:.0f} kbit/s")
