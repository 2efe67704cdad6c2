"""The cases beside the grids: nothing to scale, nothing new, one new frame, all names new."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.grids import CANVAS, TURN, compare, measure, seats
from bench.machine import cpu_ms
from bench.pictures import rotation
from bench.rivals import InkSource
from bench.rooms import MixedOnly, Rotation
from calliope.clock import SystemClock, Tick
from calliope.media import Frame
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import NumbaCompositor, TilePicture
from calliope.mixer.encoder import parse_renditions
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.scene import Person, Scene, Tile
from calliope.mixer.video import VideoMixer

SEATS = 25
HD = (640, 360)
FPS = 30
NAMES = (
    "Ada Lovelace", "Андрей Белов", "Ελένη Ωρίων", "ليلى حسن", "נועה לוי", "अदिति शर्मा",
    "山田さくら", "김민수", "สุชาดา", "Nguyễn Thị Ánh",
)  # fmt: skip
NAMES_CHANGES = 9
NAMES_TICKS = 20
NAMES_CHANGING = 6
"""Ticks in which new names are asked for and come; in the others nothing is left to do."""


@dataclass(frozen=True, slots=True)
class Names:
    """What 25 new names cost beyond ordinary ticks, in CPU milliseconds of the mixer's thread.

    ``changing_ms`` is all they cost until they stand, ``worst_tick_ms`` the most in one tick of
    that, ``after_ms`` what is left in a tick afterwards; medians over several changes.
    """

    changing_ms: float
    worst_tick_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True)
class Special:
    """CPU milliseconds a picture (``_us``: microseconds) in each case."""

    fitting_ms: float
    canvas_copy_ms: float
    nothing_us: float
    nothing_tick_us: float
    encoded_when_still: int
    one_ms: float
    all_ms: float
    names: Names


def measure_special(cameras: Sequence[Sequence[Frame]], rounds: int) -> Special:
    """All of them, from 25 cameras of 640x360."""
    tiles = seats(SEATS, HD)
    fitting = [rotation(seed, tiles[0].w, tiles[0].h) for seed in range(SEATS)]
    canvas = Canvas(*CANVAS)
    others = [Canvas(*CANVAS) for _ in range(TURN)]  # a new one each time, as the frames are new
    copies: dict[str, Callable[[int], object]] = {
        "copy": lambda index: np.copyto(canvas.flat, others[index].flat)
    }
    copy = measure(copies, rounds)["copy"]
    compositor = NumbaCompositor(InkSource())
    still = shown(tiles, [camera[0] for camera in cameras], ["Ada Lovelace"] * SEATS)
    one = [[TilePicture(tiles[0], frame, "Ada Lovelace"), *still[1:]] for frame in cameras[0]]
    every = [
        shown(tiles, [camera[index] for camera in cameras], ["Ada Lovelace"] * SEATS)
        for index in range(TURN)
    ]
    compositor.compose(canvas, still)
    found = measure(
        {
            "one": lambda index: compositor.compose(canvas, one[index]),
            "all": lambda index: compositor.compose(canvas, every[index]),
        },
        rounds,
    )
    compositor.compose(canvas, still)
    nothing = min(cpu_ms(lambda _: compositor.compose(canvas, still), 1000) for _ in range(rounds))
    tick_ms, encoded = still_room([camera[0] for camera in cameras])
    return Special(
        compare(tiles, fitting, ("calliope",), rounds)["calliope"],
        copy,
        1000 * nothing,
        1000 * tick_ms,
        encoded,
        found["one"],
        found["all"],
        measure_names(tiles, cameras),
    )


def shown(
    tiles: Sequence[Tile], frames: Sequence[Frame], names: Sequence[str]
) -> list[TilePicture]:
    """What tiles show, with every third muted and one who speaks."""
    return [
        TilePicture(tile, frame, name, muted=seat % 3 == 0, speaking=seat == 1)
        for seat, (tile, frame, name) in enumerate(zip(tiles, frames, names, strict=True))
    ]


def still_room(frames: Sequence[Frame]) -> tuple[float, int]:
    """A whole tick of a room in which nothing moves, in CPU ms, without the encoder; and how many
    of a second's pictures the encoder is given once the room has settled."""
    people = tuple(
        Person(f"p{seat}", f"Person {seat}", camera=Still(frame))
        for seat, frame in enumerate(frames)
    )
    unencoded, real = build_mixer(people, MixedOnly), build_mixer(people, VideoMixer)
    for index in range(2 * FPS):
        unencoded.tick(Tick(index, 0, 0))
        real.tick(Tick(index, 0, 0))
    tick_ms = float("inf")
    for begin in range(2 * FPS, 2 * FPS + 500, 100):
        ticks = [Tick(begin + index, 0, 0) for index in range(100)]
        tick_ms = min(tick_ms, cpu_ms(lambda index: unencoded.tick(ticks[index]), len(ticks)))  # noqa: B023
    encoded = sum(len(real.tick(Tick(2 * FPS + index, 0, 0)).frames) for index in range(FPS))
    return tick_ms, encoded


class Still:
    """A camera that shows one picture for ever."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def latest(self) -> Frame | None:
        return self._frame


def build_mixer(people: tuple[Person, ...], kind: type[VideoMixer]) -> VideoMixer:
    """A mixer for a bench that ticks it by hand; its 720p picture is watched."""
    mixer = kind(
        fps=FPS,
        canvas=CANVAS,
        renditions=parse_renditions(("720p:1200",), CANVAS),
        layouts={"grid": layout.grid},
        build_compositor=lambda: NumbaCompositor(InkSource()),
        clock=SystemClock(),
        metrics=Metrics(),
        deliver=lambda _: None,
    )
    mixer.show(Scene(people, frozenset({("grid", "720p")})))
    return mixer


def measure_names(tiles: Sequence[Tile], cameras: Sequence[Sequence[Frame]]) -> Names:
    """Change all names at once, several times, at the pace of a room and with the real atlas.

    A second compositor shows the same frames under names that stay: what the first one takes
    longer is what the names cost. They take turns in going first.
    """
    changing, worst, after = [], [], []
    with GlyphAtlas(Metrics()) as atlas:
        pair = [(NumbaCompositor(atlas), Canvas(*CANVAS)) for _ in range(2)]
        lasting = [f"{NAMES[seat % len(NAMES)]} {seat}" for seat in range(SEATS)]
        for change in range(NAMES_CHANGES):
            names = [f"{NAMES[seat % len(NAMES)]} {change}{seat}" for seat in range(SEATS)]
            extra = []
            for index in range(NAMES_TICKS):
                frames = [camera[index % TURN] for camera in cameras]
                tick = [shown(tiles, frames, names), shown(tiles, frames, lasting)]
                spent = [0.0, 0.0]
                for which in (index % 2, 1 - index % 2):
                    compositor, canvas = pair[which]
                    begin = time.thread_time_ns()
                    compositor.compose(canvas, tick[which])
                    spent[which] = (time.thread_time_ns() - begin) / 1e6
                extra.append(spent[0] - spent[1])
                time.sleep(1 / FPS)
            if change:  # the first names also load fonts and plans
                changing.append(sum(extra[:NAMES_CHANGING]))
                worst.append(max(extra[:NAMES_CHANGING]))
                after.append(statistics.median(extra[NAMES_CHANGING:]))
    return Names(*map(statistics.median, (changing, worst, after)))


def frame_times(rounds: int) -> dict[str, list[float]]:
    """Wall milliseconds of many ticks of one room of 25, composed only and encoded as well."""
    cameras = [Rotation(rotation(seed, *HD)) for seed in range(SEATS)]
    people = tuple(
        Person(f"p{seat}", f"Person {seat}", camera=camera) for seat, camera in enumerate(cameras)
    )
    kinds: dict[str, type[VideoMixer]] = {
        "composed": MixedOnly,
        "composed and encoded at 720p": VideoMixer,
    }
    return {name: _tick_times(build_mixer(people, kind), rounds) for name, kind in kinds.items()}


def _tick_times(mixer: VideoMixer, rounds: int) -> list[float]:
    times = []
    for index in range(rounds + FPS):
        begin = time.perf_counter_ns()
        mixer.tick(Tick(index, 0, 0))
        times.append((time.perf_counter_ns() - begin) / 1e6)
    return times[FPS:]
