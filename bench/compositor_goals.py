"""The compositor's goals, measured beside its rivals on the same frames in the same run.

``python -m bench.compositor_goals [--quick] [--json FILE]``. Times are CPU milliseconds of one
thread per composed 1280x720 picture, the best of several rounds in which the rivals take turns, so
that a busy machine disturbs all of them alike.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.peers import programs as peers
from bench.pictures import rotation
from bench.rivals import RIVALS, Compose, InkSource
from calliope.media import Frame
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import NumbaCompositor, TilePicture
from calliope.mixer.layout import grid
from calliope.mixer.scene import Person, Tile

SIZE = (1280, 720)
SOURCES = ((640, 360), (320, 180), (1280, 720), (641, 359), (360, 640))
COUNTS = (2, 3, 4, 6, 9, 12, 16, 20, 25)
TURN = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One measured case: what it is, the figure, the goal in words, and whether it is met."""

    case: str
    figure: str
    goal: str
    met: bool


def measure(ways: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """CPU milliseconds a call of each way; they take turns of ``TURN`` calls."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.thread_time_ns()
            for index in range(TURN):
                way(index)
            spent_ms = (time.thread_time_ns() - begin) / TURN / 1e6
            best[name] = min(best[name], spent_ms)
    return best


def compare(
    tiles: Sequence[Tile], cameras: Sequence[Sequence[Frame]], rivals: Sequence[str], rounds: int
) -> dict[str, float]:
    """Milliseconds a picture of each rival, a new frame in every tile each time."""
    ticks = list(zip(*cameras, strict=True))

    def turn(compose: Compose) -> Callable[[int], object]:
        return lambda index: compose(ticks[index % len(ticks)])

    return measure({name: turn(RIVALS[name](tiles, SIZE)) for name in rivals}, rounds)


def places(count: int) -> tuple[Tile, ...]:
    return grid([Person(str(seat), "") for seat in range(count)], SIZE)


def headline(cameras: Sequence[Sequence[Frame]], rounds: int) -> list[Row]:
    """25 sources of 640x360, a new frame each tick."""
    found = compare(places(25), cameras, tuple(RIVALS), rounds)
    ours = found["calliope"]
    rows = [Row("25 of 640x360", f"{ours:.2f} ms", "at most 1.0 ms", ours <= 1.0)]
    for rival, goal in (("opencv-bgr", 14.0), ("opencv-bilinear", 2.0), ("opencv-area", 1.0)):
        ratio = found[rival] / ours
        case = f"  beside {rival} ({found[rival]:.2f} ms)"
        rows.append(Row(case, f"{ratio:.1f}x", f"at least {goal:g}x", ratio >= goal))
    return rows + programs(cameras, (640, 360), ours)


def programs(
    cameras: Sequence[Sequence[Frame]], size: tuple[int, int], ours_ms: float
) -> list[Row]:
    """ffmpeg and GStreamer on the same frames, where they are installed."""
    tiles, rows = places(len(cameras)), []
    with tempfile.TemporaryDirectory() as folder:
        paths = peers.write_cameras(Path(folder), cameras)
        for program, name, goal, commands in (
            ("ffmpeg", "ffmpeg scale+xstack", 8, peers.ffmpeg(paths, tiles, size)),
            (
                "gst-launch-1.0",
                "GStreamer compositor",
                12,
                peers.gstreamer(paths, tiles, size, SIZE),
            ),
        ):
            if not peers.installed(program):
                rows.append(Row(f"  beside {name}", f"{program} is not installed", "", False))
                continue
            theirs = peers.ms_per_frame(*commands, frames=len(cameras[0]))
            ratio = theirs / ours_ms
            case = f"  beside {name} ({theirs:.2f} ms)"
            rows.append(Row(case, f"{ratio:.1f}x", f"at least {goal}x", ratio >= goal))
    return rows


def grids(size: tuple[int, int], counts: Sequence[int], rounds: int) -> list[Row]:
    """Every grid from sources of one size, beside the ways that average or convert."""
    cameras = [rotation(seed, *size) for seed in range(max(counts))]
    rivals = ("calliope", "opencv-bilinear", "opencv-area", "opencv-bgr")
    rows = []
    for count in counts:
        tiles = places(count)
        found = compare(tiles, cameras[:count], rivals, rounds)
        ours = found["calliope"]
        area, bgr = found["opencv-area"] / ours, found["opencv-bgr"] / ours
        bilinear = found["opencv-bilinear"] / ours
        shrinks = size[0] <= 640 and size[0] > tiles[0].w and size[1] > tiles[0].h
        figure = f"{ours:.2f} ms, area {area:.1f}x, bgr {bgr:.1f}x, bilinear {bilinear:.1f}x"
        goal = "faster than area, bgr" + (" and bilinear" if shrinks else "")
        met = area > 1 and bgr > 1 and (bilinear > 1 or not shrinks)
        rows.append(Row(f"{count} of {size[0]}x{size[1]}", figure, goal, met))
    return rows


def special(cameras: Sequence[Sequence[Frame]], rounds: int) -> list[Row]:
    """Nothing to scale, nothing new, one new frame, all names new."""
    tiles = places(25)
    fitting = [rotation(seed, tiles[0].w, tiles[0].h) for seed in range(25)]
    found = compare(tiles, fitting, ("calliope", "plain-copy"), rounds)
    canvas, other = Canvas(*SIZE), Canvas(*SIZE)
    copy_ms = measure({"copy": lambda _: np.copyto(canvas.flat, other.flat)}, rounds)["copy"]
    ratio = found["calliope"] / copy_ms
    rows = [
        Row(
            "tile-sized sources",
            f"{found['calliope']:.2f} ms, {ratio:.1f}x a canvas copy",
            "at most 4x",
            ratio <= 4,
        )
    ]

    compositor = NumbaCompositor(InkSource())
    still = [
        TilePicture(tile, camera[0], "Ada Lovelace")
        for tile, camera in zip(tiles, cameras, strict=True)
    ]
    one_new = [[TilePicture(tiles[0], frame, "Ada Lovelace"), *still[1:]] for frame in cameras[0]]
    all_new = [
        [
            TilePicture(tile, camera[index], "Ada")
            for tile, camera in zip(tiles, cameras, strict=True)
        ]
        for index in range(TURN)
    ]
    renamed = [
        [TilePicture(shown.tile, shown.frame, f"Ada {index}") for shown in still]
        for index in range(TURN)
    ]
    compositor.compose(canvas, still)
    nothing_us = 1000 * measure({"": lambda _: compositor.compose(canvas, still)}, rounds)[""]
    rows.append(Row("nothing new", f"{nothing_us:.1f} us", "at most 5 us", nothing_us <= 5))
    found = measure(
        {
            "one": lambda index: compositor.compose(canvas, one_new[index]),
            "all": lambda index: compositor.compose(canvas, all_new[index]),
        },
        rounds,
    )
    share = found["one"] / found["all"]
    rows.append(Row("one new frame of 25", f"{share:.3f} of all", "at most 0.1", share <= 0.1))
    named = measure(
        {
            "same": lambda index: compositor.compose(canvas, all_new[index]),
            "new": lambda index: compositor.compose(canvas, renamed[index]),
        },
        rounds,
    )
    extra = named["new"] - named["same"]
    rows.append(Row("25 new names at once", f"{extra:.2f} ms more", "at most 1 ms", extra <= 1))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| case | measured | goal | met |", "|---|---|---|---|"]
    lines += [f"| {r.case} | {r.figure} | {r.goal} | {'yes' if r.met else 'no'} |" for r in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the main cases only")
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rounds = 8 if options.quick else 16
    cameras = [rotation(seed, 640, 360) for seed in range(25)]
    rows = headline(cameras, rounds) + special(cameras, rounds)
    if not options.quick:
        for size in SOURCES:
            rows += grids(size, COUNTS, 3)
    print(f"{platform.machine()}, {platform.system()}, OpenCV {cv2.__version__}\n")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
