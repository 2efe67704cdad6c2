"""What decoding a room's cameras costs, each of the size of its tile, beside one whole canvas."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from bench.bench_encoder import FPS, RENDITIONS, ours, room_of_nine
from bench.pictures import camera
from calliope.media import Frame
from calliope.mixer.layout import grid
from calliope.mixer.scene import Layout, Person
from calliope.uplink import Uplink, size_uplinks

PEOPLE = 25
FRAMES = 90
_CANVAS = (1280, 720)


@dataclass(frozen=True, slots=True)
class Decoding:
    """CPU milliseconds of one thread for one picture of the canvas, and for one of each camera."""

    canvas_ms: float
    cameras_ms: float


def measure_decoding() -> Decoding:
    """A canvas as it is sent at its best, cameras as they are asked for (``uplink``)."""
    encode = ours(RENDITIONS[0])
    there_and_back = itertools.cycle((pictures := room_of_nine()) + pictures[-2:0:-1])
    canvas = [
        encode(picture, index * 90_000 // FPS)
        for index, picture in enumerate(itertools.islice(there_and_back, FRAMES))
    ]
    people = [Person(str(seat), f"Person {seat}") for seat in range(PEOPLE)]
    layout = Layout("grid", 1, _CANVAS, tuple(grid(people, _CANVAS)))
    uplinks = size_uplinks([layout], FPS)
    cameras = [_record(seat, uplink) for seat, uplink in enumerate(uplinks.values())]
    return Decoding(_decode_ms(canvas), sum(_decode_ms(frames) for frames in cameras))


def _record(seed: int, uplink: Uplink) -> list[bytes]:
    """A camera's coded frames, of the size and bitrate that it is asked for."""
    width, height = (side // 4 * 4 for side in (uplink.width, uplink.height))
    context = av.CodecContext.create("libvpx", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.bit_rate = uplink.kbps * 1000
    context.time_base = Fraction(1, FPS)
    context.framerate = Fraction(FPS, 1)
    context.gop_size = 3000
    context.thread_count = 1
    context.options = {"deadline": "realtime", "cpu-used": "-6", "lag-in-frames": "0"}
    shown = camera(seed, width, height, count=16)
    there_and_back = itertools.cycle([*shown, *shown[-2:0:-1]])
    coded: list[bytes] = []
    for index, frame in enumerate(itertools.islice(there_and_back, FRAMES)):
        coded += [bytes(packet) for packet in context.encode(_picture(frame, index))]
    return coded


def _picture(frame: Frame, index: int) -> av.VideoFrame:
    planes = np.concatenate([plane.ravel() for plane in (frame.y, frame.u, frame.v)])
    picture = av.VideoFrame.from_ndarray(planes.reshape(-1, frame.width), "yuv420p")
    picture.pts, picture.time_base = index, Fraction(1, FPS)
    return picture


def _decode_ms(coded: Sequence[bytes]) -> float:
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.thread_count = 1
    begun_ns = time.thread_time_ns()
    for data in coded:
        if data:
            decoder.decode(av.Packet(data))
    return (time.thread_time_ns() - begun_ns) / 1e6 / len(coded)
