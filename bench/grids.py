"""Every grid of 1 to 25 from sources of several sizes, beside the rivals on the same frames.

Each source shows a new, different picture in every tick, of eight in rotation. Rivals in this
process take turns, so that a busy machine disturbs all of them alike; ffmpeg and GStreamer run as
their users run them, are charged all their threads, and what reading costs them is taken off.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from bench.machine import cpu_ms
from bench.peers import programs
from bench.pictures import rotation
from bench.rivals import RIVALS, Compose, InkSource
from calliope.media import Frame
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import NumbaCompositor, TilePicture
from calliope.mixer.layout import grid
from calliope.mixer.placement import place
from calliope.mixer.scene import Fit, Person, Tile
from tests.mixer.planes import resampled

CANVAS = (1280, 720)
SOURCES = ((320, 180), (640, 360), (641, 359), (360, 640), (1280, 720))
COUNTS = tuple(range(1, 26))
TURN = 8
"""Calls of one rival before it is another's turn: once through the rotation."""
IN_PROCESS = ("calliope", "opencv-bilinear", "opencv-area", "opencv-bgr")
PROGRAMS = ("ffmpeg", "gstreamer")
PEERS = IN_PROCESS[1:] + PROGRAMS

Size: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Cell:
    """One grid from sources of one size.

    ``ms`` holds CPU milliseconds a composed picture by who made it; ``error`` is the largest
    distance from exact arithmetic in grey levels and ``psnr_db`` the least of a plane of a tile;
    ``megabytes`` is what has to be read and written at least.
    """

    source: Size
    count: int
    shrinks: bool
    ms: dict[str, float]
    error: float
    psnr_db: float
    megabytes: float

    def ratio(self, peer: str) -> float:
        """How many times as long the peer took; NaN where it was not measured."""
        return self.ms.get(peer, float("nan")) / self.ms["calliope"]

    @property
    def gb_s(self) -> float:
        """The memory traffic that our time amounts to."""
        return self.megabytes / self.ms["calliope"]


def seats(count: int, source: Size) -> tuple[Tile, ...]:
    """The grid as the server lays it out: an upright picture is shown whole."""
    fit: Fit = "contain" if source[1] > source[0] else "crop"
    return grid([Person(str(seat), "") for seat in range(count)], CANVAS, fit)


def picture_areas(tiles: Sequence[Tile], source: Size) -> list[Tile]:
    """The rectangles that pictures fill: what the rivals scale into."""
    areas = []
    for tile in tiles:
        found = place(*source, tile.w, tile.h, tile.fit)
        areas.append(replace(tile, x=tile.x + found.x, y=tile.y + found.y, w=found.w, h=found.h))
    return areas


def measure(ways: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """CPU milliseconds a call of each way: the best of their turns."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = min(best[name], cpu_ms(way, TURN))
    return best


def compare(
    tiles: Sequence[Tile],
    cameras: Sequence[Sequence[Frame]],
    rivals: Sequence[str],
    rounds: int,
) -> dict[str, float]:
    """Milliseconds a picture of each rival, a new frame in every tile each time."""
    ticks = list(zip(*cameras, strict=True))
    source = cameras[0][0].width, cameras[0][0].height
    areas = picture_areas(tiles, source)

    def turn(compose: Compose) -> Callable[[int], object]:
        return lambda index: compose(ticks[index % len(ticks)])

    return measure(
        {
            name: turn(RIVALS[name](tiles if name == "calliope" else areas, CANVAS))
            for name in rivals
        },
        rounds,
    )


def exactness(tiles: Sequence[Tile], frames: Sequence[Frame]) -> tuple[float, float]:
    """The largest error in grey levels and the least PSNR of a plane of the first and last tile."""
    canvas = Canvas(*CANVAS)
    NumbaCompositor(InkSource()).compose(
        canvas, [TilePicture(tile, frame, "") for tile, frame in zip(tiles, frames, strict=True)]
    )
    error, squares = 0.0, 0.0
    for tile, frame in ((tiles[0], frames[0]), (tiles[-1], frames[-1])):
        at = place(frame.width, frame.height, tile.w, tile.h, tile.fit)
        for plane, drawn, part in (
            (frame.y, canvas.y, 1),
            (frame.u, canvas.u, 2),
            (frame.v, canvas.v, 2),
        ):
            rows, columns = (
                (at.rows, at.columns) if part == 1 else (at.rows.halved, at.columns.halved)
            )
            x, y, w, h = (v // part for v in (tile.x + at.x, tile.y + at.y, at.w, at.h))
            off = drawn[y : y + h, x : x + w] - resampled(plane, rows, columns, h, w)
            error = max(error, float(np.abs(off).max()))
            squares = max(squares, float(np.square(off).mean()))
    return error, float(10 * np.log10(255**2 / max(squares, 1e-9)))


def measure_grids(
    source: Size,
    counts: Sequence[int],
    rounds: int,
    *,
    cameras: Sequence[Sequence[Frame]] = (),
    with_programs: bool = True,
    rivals: Sequence[str] = IN_PROCESS,
) -> list[Cell]:
    """The cells of one source size; ``cameras`` saves making them where they are at hand."""
    cameras = cameras or [rotation(seed, *source) for seed in range(max(counts))]
    cells = []
    with tempfile.TemporaryDirectory() as folder:
        runs = programs.prepare(Path(folder), cameras, CANVAS) if with_programs else {}
        for count in counts:
            tiles = seats(count, source)
            areas = picture_areas(tiles, source)
            found = compare(tiles, cameras[:count], rivals, rounds)
            for name, run in runs.items():
                found[name] = run.ms_per_frame(areas)
            first = [camera[0] for camera in cameras[:count]]
            error, psnr_db = exactness(tiles, first)
            read = 1.5 * count * source[0] * source[1]
            written = 1.5 * sum(area.w * area.h for area in areas)
            cells.append(
                Cell(
                    source,
                    count,
                    source[0] > areas[0].w and source[1] > areas[0].h,
                    found,
                    error,
                    psnr_db,
                    (read + written) / 1e6,
                )
            )
    return cells
