"""What composing one 1280x720 picture costs, beside other ways to do it; CPU time of one thread.

``python -m pytest bench/bench_compositor.py`` groups by the number of tiles, so that the figures in
brackets are ratios. For goals, other source sizes and the special cases see
``python -m bench.compositor_goals``.
"""

from __future__ import annotations

import itertools
import time

import cv2
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.pictures import rotation
from bench.rivals import RIVALS
from calliope.media import Frame
from calliope.mixer.layout import grid
from calliope.mixer.scene import Person

SIZE = (1280, 720)
COUNTS = (2, 3, 4, 6, 9, 12, 16, 20, 25)


@pytest.fixture(scope="module")
def cameras() -> list[list[Frame]]:
    """25 cameras of 640x360, 8 different frames each: 69 MB, more than any cache holds."""
    return [rotation(seed, 640, 360) for seed in range(25)]


@pytest.mark.parametrize("rival", RIVALS)
@pytest.mark.parametrize("tiles", COUNTS)
@pytest.mark.benchmark(timer=time.thread_time, max_time=0.3, min_rounds=8)
def test_compose(
    benchmark: BenchmarkFixture, cameras: list[list[Frame]], tiles: int, rival: str
) -> None:
    benchmark.group = f"{tiles} tiles from 640x360"
    cv2.setNumThreads(1)
    places = grid([Person(str(seat), "") for seat in range(tiles)], SIZE)
    compose = RIVALS[rival](places, SIZE)
    ticks = itertools.cycle(zip(*cameras[:tiles], strict=True))
    compose(next(ticks))
    benchmark(lambda: compose(next(ticks)))
