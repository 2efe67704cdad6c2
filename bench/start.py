"""How long a server takes to start, and whether a first tick still compiles.

``python -m bench.start``. Each start is a process of its own; its time runs from the process's
start to the line that says where to open the page. Cold has an empty folder for kernels, warm the
one that the cold start filled.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

WARM_STARTS = 5
TIMEOUT_S = 300

_FIRST_TICK = """
import time
from numba.core import event
from bench.grids import CANVAS, seats
from bench.pictures import camera
from calliope.metrics import Metrics
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import NumbaCompositor, TilePicture, warm_up
from calliope.mixer.glyphs import GlyphAtlas
warm_up()
sizes = [(320, 180), (641, 359), (360, 640), (1280, 720), (640, 360)]
frames = [camera(seed, *size, count=1)[0] for seed, size in enumerate(sizes)]
canvas = Canvas(*CANVAS)
with GlyphAtlas(Metrics()) as atlas, event.install_recorder("numba:compile") as compiled:
    compositor = NumbaCompositor(atlas)
    pictures = [
        TilePicture(tile, frame, f"Person {seat}", seat % 2 == 0, seat == 2, seat == 3, seat == 4)
        for seat, (tile, frame) in enumerate(zip(seats(5, (640, 360)), frames))
    ]
    begin = time.perf_counter()
    compositor.compose(canvas, pictures)
    first_ms = 1000 * (time.perf_counter() - begin)
print(first_ms, len(compiled.buffer))
"""


@dataclass(frozen=True, slots=True)
class Starts:
    """``first_tick_ms`` is the wall time of the first composition after the kernels were loaded,
    ``compiled`` how many functions were compiled in it."""

    cold_s: float | None
    warm_s: float
    first_tick_ms: float
    compiled: int


def measure(warm_starts: int = WARM_STARTS, *, cold: bool = True) -> Starts:
    """One cold start, the best of some warm ones, and a first tick.

    Without ``cold``, which takes a minute, the kernels of earlier runs are used.
    """
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CALLIOPE_CACHE_DIR": folder} if cold else dict(os.environ)
        cold_s = _start_s(environment) if cold else None
        warm_s = min(_start_s(environment) for _ in range(warm_starts))
        tick = subprocess.run(
            [sys.executable, "-c", _FIRST_TICK],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    first_ms, compiled = tick.stdout.split()
    return Starts(cold_s, warm_s, float(first_ms), int(compiled))


def _start_s(environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", "calliope", "serve"]
    command += ["--server-host", "127.0.0.1", "--server-port", "0"]
    begin = time.perf_counter()
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if "ready" in line:
                return time.perf_counter() - begin
        raise RuntimeError(f"the server ended with status {server.wait()} before it was ready")
    finally:
        server.terminate()
        server.wait(timeout=60)


def main() -> int:
    found = measure()
    print(
        f"cold {found.cold_s or 0:.1f} s, warm {found.warm_s:.2f} s, first tick"
        f" {found.first_tick_ms:.1f} ms with {found.compiled} functions compiled in it"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
