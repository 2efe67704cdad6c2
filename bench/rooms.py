"""Many rooms of four on this machine: how many ticks come late beyond those of an empty ticker.

``python -m bench.rooms [--seconds 60] [--rooms 8] [--rendition 360p|720p|none]``. Every room is a
real video mixer on its own thread: 1280x720 at 30 fps, four cameras of 640x360 with a new picture
each tick, one watched rendition. Without a rendition the rooms are mixed but not encoded. An empty
ticker of the same rate runs beside them: what it misses is the machine's own doing, such as other
programs.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import dataclass

from bench.pictures import camera
from calliope.clock import SystemClock, Ticker
from calliope.media import EncodedFrame, Frame
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.compositor import build_compositor, warm_up
from calliope.mixer.encoder import parse_renditions
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.scene import Person, Scene, ViewName
from calliope.mixer.video import LATE_NS, VideoMixer
from calliope.priority import go_first

PEOPLE = 4
FPS = 30
CANVAS = (1280, 720)
RENDITIONS = {"720p": "720p:1200", "360p": "360p:400"}


@dataclass(frozen=True, slots=True)
class Held:
    """What became of some rooms: shares of all ticks that were due, in percent."""

    rooms: int
    rendition: str | None
    seconds: float
    ticks: float
    late_percent: float
    empty_percent: float
    cores: float

    @property
    def beyond_percent(self) -> float:
        """Late and skipped ticks beyond the empty ticker's."""
        return self.late_percent - self.empty_percent


class Rotation:
    """A camera with a new picture at every look, of several in rotation."""

    def __init__(self, frames: list[Frame]) -> None:
        self._frames = frames
        self._looks = 0

    def latest(self) -> Frame | None:
        self._looks += 1
        frame = self._frames[self._looks % len(self._frames)]
        return Frame(frame.y, frame.u, frame.v, self._looks, time.monotonic_ns())


class MixedOnly(VideoMixer):
    """Composes what is watched and encodes nothing."""

    def _encode(self, *_: object) -> list[tuple[tuple[ViewName, str], EncodedFrame]]:
        return []


class EmptyTicker:
    """A thread that only ticks, as early as a mixer may, and counts as one does."""

    def __init__(self) -> None:
        self.ticks = self.late = self.skipped = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="empty-ticker")

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        go_first()
        ticker = Ticker(SystemClock(), FPS)
        while (tick := ticker.wait(self._stop)) is not None:
            self.ticks += 1
            self.late += tick.late_ns > LATE_NS
            self.skipped += tick.skipped

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def build_room(
    people: tuple[Person, ...], rendition: str | None, labels: GlyphAtlas, metrics: Metrics
) -> VideoMixer:
    watched = rendition or "720p"
    mixer = (VideoMixer if rendition else MixedOnly)(
        fps=FPS,
        canvas=CANVAS,
        renditions=parse_renditions((RENDITIONS[watched],), CANVAS),
        layouts={"grid": layout.grid},
        build_compositor=lambda: build_compositor("numba", labels),
        clock=SystemClock(),
        metrics=metrics,
        deliver=lambda _: None,
    )
    mixer.show(Scene(people, frozenset({("grid", watched)})))
    return mixer


def hold(rooms: int, rendition: str | None, seconds: float) -> Held:
    """Hold so many rooms for so long."""
    warm_up()
    metrics, empty = Metrics(), EmptyTicker()
    frames = [camera(seed, 640, 360) for seed in range(PEOPLE)]
    with GlyphAtlas(metrics) as labels:
        mixers = [
            build_room(
                tuple(
                    Person(f"p{i}", f"Person {i}", camera=Rotation(frames[i]))
                    for i in range(PEOPLE)
                ),
                rendition,
                labels,
                metrics,
            )
            for _ in range(rooms)
        ]
        cpu_s = time.process_time()
        for mixer in mixers:
            mixer.start()
            time.sleep(1 / FPS / rooms)  # rooms open at any time, not all in one instant
        empty.start()
        time.sleep(seconds)
        empty.stop()
        for mixer in mixers:
            mixer.stop()
        for mixer in mixers:
            mixer.join()
        cpu_s = time.process_time() - cpu_s
    late, skipped, ticks = (
        _read(metrics, f"calliope_{name}_total")
        for name in ("late_ticks", "skipped_ticks", "ticks")
    )
    return Held(
        rooms,
        rendition,
        seconds,
        ticks,
        _share(late, skipped, ticks),
        _share(empty.late, empty.skipped, empty.ticks),
        cpu_s / seconds,
    )


def _share(late: float, skipped: float, ticks: float) -> float:
    return 100 * (late + skipped) / max(ticks + skipped, 1)


def _read(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name, {"kind": "video"}) or 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rooms", type=int, default=8)
    parser.add_argument("--rendition", choices=(*RENDITIONS, "none"), default="none")
    options = parser.parse_args()
    rendition = None if options.rendition == "none" else options.rendition
    held = hold(options.rooms, rendition, options.seconds)
    print(
        f"{held.rooms} rooms of {PEOPLE}, {rendition or 'not encoded'}, {held.seconds:g} s:"
        f" {held.late_percent:.2f}% of {held.ticks:.0f} ticks late, empty ticker"
        f" {held.empty_percent:.2f}%, {held.cores:.2f} cores"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
