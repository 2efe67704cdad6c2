"""What the frame ring costs beside plain copies of the same planes.

Each case works through eight different pictures whose rows are padded as a decoder's are. The
copies write to as many places in turn as the ring has slots, so that all meet the same caches.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import pytest

from calliope.media import Plane
from calliope.ring import FrameRing

SIZES = [(320, 180), (640, 360), (1280, 720)]
PICTURES = 8
SLOTS = 4

Planes: TypeAlias = tuple[Plane, Plane, Plane]
Benchmark: TypeAlias = Callable[[Callable[[], object]], object]


def decoded(width: int, height: int, seed: int) -> Planes:
    """A picture as a decoder leaves it: limited to its size, rows 64 bytes longer."""
    random = np.random.default_rng(seed)

    def plane(columns: int, rows: int) -> Plane:
        return random.integers(16, 236, (rows, columns + 64), np.uint8)[:, :columns]

    chroma = (width + 1) // 2, (height + 1) // 2
    return plane(width, height), plane(*chroma), plane(*chroma)


@pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def pictures(request: pytest.FixtureRequest, benchmark: Any) -> list[Planes]:
    width, height = request.param
    benchmark.group = f"one frame of {width}x{height}"
    benchmark.extra_info["bytes"] = width * height * 3 // 2
    return [decoded(width, height, seed) for seed in range(PICTURES)]


def test_numpy_copyto(benchmark: Benchmark, pictures: list[Planes]) -> None:
    targets = [[np.zeros(plane.shape, np.uint8) for plane in pictures[0]] for _ in range(SLOTS)]
    turn = count()

    def copy() -> None:
        index = next(turn)
        for target, plane in zip(targets[index % SLOTS], pictures[index % PICTURES], strict=True):
            np.copyto(target, plane)

    benchmark(copy)


def test_ring_write(benchmark: Benchmark, pictures: list[Planes]) -> None:
    ring = FrameRing(1280 * 720, SLOTS)
    turn = count()

    def write() -> None:
        ring.write(*pictures[next(turn) % PICTURES], arrived_ns=0)

    benchmark(write)


def test_ring_write_and_latest(benchmark: Benchmark, pictures: list[Planes]) -> None:
    ring = FrameRing(1280 * 720, SLOTS)
    turn = count()

    def write_and_take() -> None:
        ring.write(*pictures[next(turn) % PICTURES], arrived_ns=0)
        ring.latest()

    benchmark(write_and_take)


@pytest.mark.benchmark(group="calls alone")
def test_latest_with_nothing_new(benchmark: Benchmark) -> None:
    ring = FrameRing(64)
    ring.write(*decoded(8, 8, 0), arrived_ns=0)
    benchmark(ring.latest)


@pytest.mark.benchmark(group="calls alone")
def test_write_of_one_pixel(benchmark: Benchmark) -> None:
    ring = FrameRing(64)
    planes = decoded(1, 1, 0)
    benchmark(lambda: ring.write(*planes, arrived_ns=0))


@pytest.mark.benchmark(group="calls alone")
def test_write_of_one_pixel_and_latest(benchmark: Benchmark) -> None:
    ring = FrameRing(64)
    planes = decoded(1, 1, 0)

    def write_and_take() -> None:
        ring.write(*planes, arrived_ns=0)
        ring.latest()

    benchmark(write_and_take)
