"""What the encoder's settings cost in picture: ours beside stock aiortc's on the same canvases."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass

import av
import numpy as np

from bench.bench_encoder import FPS, RENDITIONS, ours, room_of_nine, stock

FRAMES = 150
WARM_UP = 30


@dataclass(frozen=True, slots=True)
class Quality:
    """Luma PSNR of all frames but the first second's, CPU of one thread a frame, the bitrate."""

    psnr_db: float
    ms: float
    kbps: float


def measure_quality() -> dict[str, Quality]:
    """By who has the settings: ``calliope`` and ``aiortc``; 720p at the first rendition's rate."""
    canvases = room_of_nine()
    found = {}
    for name, build in (("calliope", ours), ("aiortc", stock)):
        encode = build(RENDITIONS[0])
        decoder = av.CodecContext.create("vp8", "r")
        assert isinstance(decoder, av.VideoCodecContext)
        errors: list[float] = []
        size, spent_ns = 0, 0
        there_and_back = itertools.cycle([*canvases, *canvases[-2:0:-1]])
        for index, canvas in enumerate(itertools.islice(there_and_back, FRAMES)):
            begun_ns = time.thread_time_ns()
            data = encode(canvas, index * 90_000 // FPS)
            if index >= WARM_UP:
                spent_ns += time.thread_time_ns() - begun_ns
                size += len(data)
            for picture in decoder.decode(av.Packet(data)) if data else []:
                if index >= WARM_UP:
                    luma = picture.to_ndarray()[: picture.height].astype(np.float64)
                    errors.append(float(np.mean((luma - canvas.y) ** 2)))
        counted = FRAMES - WARM_UP
        found[name] = Quality(
            psnr_db=float(10 * np.log10(255**2 / np.mean(errors))),
            ms=spent_ns / counted / 1e6,
            kbps=8 * size * FPS / counted / 1000,
        )
    return found
