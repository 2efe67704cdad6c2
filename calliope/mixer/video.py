"""The video mixer: one thread a room that composes and encodes what is watched, at a fixed rate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from calliope.clock import NS_PER_S, Clock, Tick, Ticker
from calliope.media import VIDEO_CLOCK_HZ, EncodedFrame, Frame, FrameSource
from calliope.metrics import Metrics
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Compositor, TilePicture, scale_canvas
from calliope.mixer.encoder import Rendition, VideoEncoder
from calliope.mixer.scene import Layout, Person, Scene, TickOutput, Tile, ViewName

_log = logging.getLogger(__name__)

LATE_NS = 5_000_000
"""A tick that begins later than this is counted as late."""
SETTLE_TICKS = 15
"""How long an unchanged picture goes on being encoded, so that the encoder can sharpen it."""
WARNING_SPACING_NS = 10 * NS_PER_S

LayoutFunction: TypeAlias = Callable[[Sequence[Person], tuple[int, int]], tuple[Tile, ...]]


class _View:
    """One composed canvas and the encoders of its watched renditions."""

    def __init__(
        self, name: ViewName, canvas: Canvas, compositor: Compositor, arrange: LayoutFunction
    ) -> None:
        self.canvas = canvas
        self.encoders: dict[str, VideoEncoder] = {}
        self.layout = Layout(name, 0, (canvas.width, canvas.height), ())
        self._compositor = compositor
        self._arrange = arrange
        self._people: tuple[Person, ...] | None = None
        self._unchanged_ticks = 0

    def arrange(self, people: tuple[Person, ...]) -> Layout | None:
        """Lay the people out; the new layout where it differs from the last one, else None."""
        if people is self._people:
            return None
        first = self._people is None
        self._people = people
        tiles = self._arrange(people, self.layout.canvas)
        if tiles == self.layout.tiles and not first:
            return None
        self.layout = replace(self.layout, serial=self.layout.serial + 1, tiles=tiles)
        return self.layout

    def compose(self, frames: Mapping[tuple[str, str], Frame | None]) -> None:
        """Bring the canvas up to date. ``frames`` is keyed by (participant id, source kind)."""
        people = {person.id: person for person in self._people or ()}
        pictures = [
            _picture(tile, people[tile.id], frames.get((tile.id, tile.source)))
            for tile in self.layout.tiles
        ]
        touched = self._compositor.compose(self.canvas, pictures)
        self._unchanged_ticks = 0 if touched else self._unchanged_ticks + 1

    def is_due(self, fps: int) -> bool:
        """Whether this tick's canvas is worth sending: while it moves, then once a second."""
        return self._unchanged_ticks <= SETTLE_TICKS or self._unchanged_ticks % fps == 0

    def close(self) -> None:
        for encoder in self.encoders.values():
            encoder.close()
        self.encoders.clear()


def _picture(tile: Tile, person: Person, frame: Frame | None) -> TilePicture:
    stalled = person.camera_stalled if tile.source == "camera" else person.screen_stalled
    return TilePicture(
        tile=tile,
        frame=frame,
        name=person.name,
        muted=person.muted,
        stalled=stalled,
        speaking=person.speaking,
        hand=person.hand,
    )


class VideoMixer:
    """Composes and encodes one room. ``show`` and ``request_keyframe`` may be called by any thread.

    ``deliver`` is called on the mixer's own thread once a tick that made anything; it must not
    block. ``start`` and ``stop`` are called once each; after ``stop`` the thread ends by itself
    within a tick, and ``join`` waits for that.
    """

    def __init__(
        self,
        *,
        fps: int,
        canvas: tuple[int, int],
        renditions: tuple[Rendition, ...],
        layouts: Mapping[ViewName, LayoutFunction],
        build_compositor: Callable[[], Compositor],
        clock: Clock,
        metrics: Metrics,
        deliver: Callable[[TickOutput], None],
    ) -> None:
        self._fps = fps
        self._canvas = canvas
        self._renditions = {rendition.name: rendition for rendition in renditions}
        self._layouts = layouts
        self._build_compositor = build_compositor
        self._clock = clock
        self._metrics = metrics
        self._deliver = deliver
        self._scene = Scene()
        self._views: dict[ViewName, _View] = {}
        self._small: dict[tuple[ViewName, str], Canvas] = {}
        self._keyframes_wanted: set[tuple[ViewName, str]] = set()
        self._serials: dict[tuple[str, str], int] = {}
        self._warned_ns = -WARNING_SPACING_NS
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="video-mixer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        self._stop.set()

    def join(self, timeout_s: float = 5.0) -> None:
        """Wait for the thread's end; harmless if it never started."""
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def show(self, scene: Scene) -> None:
        """Replace what is shown, from the next tick on."""
        self._scene = scene  # one reference, swapped whole: the thread sees the old or the new

    def request_keyframe(self, view: ViewName, rendition: str) -> None:
        """Ask for a keyframe; requests that come together are answered by one."""
        self._keyframes_wanted.add((view, rendition))

    def _run(self) -> None:
        ticker = Ticker(self._clock, self._fps)
        ticks = self._metrics.ticks.labels(kind="video")
        late = self._metrics.late_ticks.labels(kind="video")
        skipped = self._metrics.skipped_ticks.labels(kind="video")
        while (tick := ticker.wait(self._stop)) is not None:
            ticks.inc()
            skipped.inc(tick.skipped)
            if tick.late_ns > LATE_NS:
                late.inc()
            try:
                output = self.tick(tick)
            except Exception:  # one broken tick must not end the room's picture
                self._warn()
                continue
            if output.frames or output.layouts:
                self._deliver(output)
        for view in self._views.values():
            view.close()

    def _warn(self) -> None:
        self._metrics.drops.labels(queue="tick", why="error").inc()
        now_ns = self._clock.now_ns()
        if now_ns - self._warned_ns >= WARNING_SPACING_NS:
            self._warned_ns = now_ns
            _log.exception("A tick of the video mixer failed; the next one goes on")

    def tick(self, tick: Tick) -> TickOutput:
        """Compose and encode one tick (the thread's whole work; tests call it directly)."""
        scene = self._scene
        pts_90k = tick.index * VIDEO_CLOCK_HZ // self._fps
        watched = {view for view, _ in scene.watched}
        self._close_unwatched(scene)
        layouts = []
        for name in watched:
            layout = self._view(name).arrange(scene.people)
            if layout is not None:
                layouts.append(layout)
        frames, arrivals_ns = self._latest_frames(scene.people, watched)
        encoded = []
        for name in sorted(watched):
            view = self._views[name]
            with self._metrics.compose_s.time():
                view.compose(frames)
            renditions = [r for v, r in scene.watched if v == name]
            encoded += self._encode(name, view, renditions, pts_90k)
        delay_ns = (
            self._clock.now_ns() - sum(arrivals_ns) // len(arrivals_ns) if arrivals_ns else None
        )
        return TickOutput(pts_90k, delay_ns, tuple(layouts), tuple(encoded))

    def _view(self, name: ViewName) -> _View:
        view = self._views.get(name)
        if view is None:
            view = _View(name, Canvas(*self._canvas), self._build_compositor(), self._layouts[name])
            self._views[name] = view
        return view

    def _close_unwatched(self, scene: Scene) -> None:
        """Free what nobody watches any more; it is made anew when somebody does."""
        watched = {view for view, _ in scene.watched}
        for name in [name for name in self._views if name not in watched]:
            self._views.pop(name).close()
        for name, view in self._views.items():
            for rendition in [r for r in view.encoders if (name, r) not in scene.watched]:
                view.encoders.pop(rendition).close()
        for key in [key for key in self._small if key not in scene.watched]:
            del self._small[key]

    def _latest_frames(
        self, people: Iterable[Person], watched: set[ViewName]
    ) -> tuple[dict[tuple[str, str], Frame | None], list[int]]:
        """Each shown source's newest frame, taken once a tick however many views show it.

        Beside them, when those that are new in this tick arrived.
        """
        sources: dict[tuple[str, str], FrameSource] = {}
        by_id = {person.id: person for person in people}
        for name in watched:
            for tile in self._views[name].layout.tiles:
                person = by_id[tile.id]
                source = person.camera if tile.source == "camera" else person.screen
                if source is not None:
                    sources[tile.id, tile.source] = source
        now_ns = self._clock.now_ns()
        frames = {}
        serials = {}
        arrivals_ns = []
        for key, source in sources.items():
            frame = frames[key] = source.latest()
            if frame is not None:
                serials[key] = frame.serial
                if self._serials.get(key) != frame.serial:
                    self._metrics.frame_age_s.observe((now_ns - frame.arrived_ns) / NS_PER_S)
                    arrivals_ns.append(frame.arrived_ns)
        self._serials = serials
        return frames, arrivals_ns

    def _encode(
        self, name: ViewName, view: _View, renditions: Iterable[str], pts_90k: int
    ) -> list[tuple[tuple[ViewName, str], EncodedFrame]]:
        due = view.is_due(self._fps)
        encoded = []
        for rendition_name in sorted(renditions):
            key = (name, rendition_name)
            encoder = view.encoders.get(rendition_name)
            fresh = encoder is None
            if encoder is None:
                encoder = VideoEncoder(self._renditions[rendition_name], self._fps)
                view.encoders[rendition_name] = encoder
            if key in self._keyframes_wanted:
                self._keyframes_wanted.discard(key)
                encoder.request_keyframe()
            if not (due or fresh or encoder.keyframe_pending):
                continue
            with self._metrics.encode_s.time():
                frame = encoder.encode(self._scaled(key, view.canvas), pts_90k)
            if frame is None:
                self._metrics.drops.labels(queue="encoder", why="rate").inc()
                continue
            if frame.keyframe:
                self._metrics.keyframes.inc()
            self._metrics.encoded_bytes.inc(sum(map(len, frame.payloads)))
            encoded.append((key, frame))
        return encoded

    def _scaled(self, key: tuple[ViewName, str], canvas: Canvas) -> Canvas:
        """The canvas at the rendition's size: itself where it has that size already."""
        rendition = self._renditions[key[1]]
        if (rendition.width, rendition.height) == (canvas.width, canvas.height):
            return canvas
        small = self._small.get(key)
        if small is None:
            small = self._small[key] = Canvas(rendition.width, rendition.height)
        scale_canvas(canvas, small)
        return small
