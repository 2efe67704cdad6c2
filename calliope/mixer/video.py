"""The video mixer: one thread a room that composes and encodes what is watched, at a fixed rate."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from calliope.clock import NS_PER_S, Clock, Tick, Ticker
from calliope.media import VIDEO_CLOCK_HZ, EncodedFrame, Frame
from calliope.metrics import Metrics
from calliope.mixer.compositor import Compositor
from calliope.mixer.encoder import Rendition
from calliope.mixer.scene import Layout, Person, Scene, SourceKind, TickOutput, ViewName
from calliope.mixer.view import LayoutFunction, View
from calliope.priority import go_first

_log = logging.getLogger(__name__)

LATE_NS = 5_000_000
"""A tick that begins later than this is counted as late."""
IDLE_NS = 5 * NS_PER_S
"""An encoder and a view that nobody watches are kept for so long."""
WARNING_SPACING_NS = 10 * NS_PER_S


class _Frames:
    """Each source's newest frame, taken once a tick however many views show it.

    ``arrivals_ns`` tells when those that are new in this tick arrived. A frame that is no whole
    I420 picture counts as none, so it costs its own tile alone.
    """

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._age_s = metrics.frame_age_s
        self._malformed = metrics.drops.labels(queue="frame", why="malformed")
        self._clock = clock
        self._people: tuple[Person, ...] = ()
        # Both by the identity of a source, which the people who are shown keep alive.
        self._taken: dict[int, Frame | None] = {}
        self._serials: dict[int, int] = {}
        self._refused: set[int] = set()
        self.arrivals_ns: list[int] = []

    def begin(self, people: tuple[Person, ...]) -> None:
        """A new tick: ask every source again."""
        self._taken.clear()
        self.arrivals_ns.clear()
        if people is not self._people:
            self._people = people
            present = {id(source) for person in people for source in (person.camera, person.screen)}
            self._serials = {k: serial for k, serial in self._serials.items() if k in present}
            self._refused &= present

    def latest(self, person: Person, kind: SourceKind) -> Frame | None:
        """This tick's frame of a camera or screen, None while it has none."""
        source = person.camera if kind == "camera" else person.screen
        if source is None:
            return None
        key = id(source)
        if key in self._taken:
            return self._taken[key]
        frame = source.latest()
        if frame is not None:
            if self._serials.get(key) != frame.serial:
                self._serials[key] = frame.serial
                self._meet(key, frame)
            if key in self._refused:
                frame = None
        self._taken[key] = frame
        return frame

    def _meet(self, key: int, frame: Frame) -> None:
        """Note when a new frame arrived, or that it cannot be used."""
        if is_whole(frame):
            self._refused.discard(key)
            self._age_s.observe((self._clock.now_ns() - frame.arrived_ns) / NS_PER_S)
            self.arrivals_ns.append(frame.arrived_ns)
        else:
            self._refused.add(key)
            self._malformed.inc()


def is_whole(frame: Frame) -> bool:
    """Whether a frame's planes are those of one I420 picture, as the compositors take them."""
    y, u, v = frame.y, frame.u, frame.v
    if y.ndim != 2 or y.size == 0:
        return False
    height, width = y.shape
    half = (height + 1) // 2, (width + 1) // 2
    return (
        u.shape == half
        and v.shape == half
        and y.strides[1] == u.strides[1] == v.strides[1] == 1
        and y.dtype == u.dtype == v.dtype == np.uint8
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
        self._renditions = renditions
        self._layouts = layouts
        self._build_compositor = build_compositor
        self._clock = clock
        self._metrics = metrics
        self._deliver = deliver
        self._scene = Scene()
        self._watched: frozenset[tuple[ViewName, str]] = frozenset()
        self._views: dict[ViewName, View] = {}
        self._idle_ns: dict[tuple[ViewName, str], int] = {}  # since when nobody watches it
        self._frames = _Frames(metrics, clock)
        self._untold: dict[ViewName, Layout] = {}  # a broken tick's layout goes out with the next
        self._keyframes_wanted: set[tuple[ViewName, str]] = set()
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
        go_first()
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
        self._close_unwatched(scene)
        self._frames.begin(scene.people)
        encoded = []
        layouts = []
        for name in sorted({view for view, _ in scene.watched}):
            renditions = sorted(r for v, r in scene.watched if v == name)
            try:
                frames = self._make(name, scene, tick.index, renditions, pts_90k)
            except Exception:  # one view's fault costs neither its next tick nor the other views
                self._warn()
                # what was encoded and is lost now, the next frames would build on
                self._keyframes_wanted.update((name, rendition) for rendition in renditions)
                continue
            encoded += frames
            if name in self._untold:
                layouts.append(self._untold.pop(name))
        arrivals_ns = self._frames.arrivals_ns
        delay_ns = (
            self._clock.now_ns() - sum(arrivals_ns) // len(arrivals_ns) if arrivals_ns else None
        )
        return TickOutput(pts_90k, delay_ns, tuple(layouts), tuple(encoded))

    def _make(
        self, name: ViewName, scene: Scene, index: int, renditions: Iterable[str], pts_90k: int
    ) -> list[tuple[tuple[ViewName, str], EncodedFrame]]:
        """One view's share of a tick: lay out, compose, encode; a new layout becomes untold."""
        view = self._view(name)
        if not view.takes_turn(index):
            return []
        layout = view.arrange(scene.people, self._frames.latest)
        if layout is not None:
            self._untold[name] = layout
        with self._metrics.compose_s.time():
            view.compose()
        return self._encode(name, view, renditions, pts_90k)

    def _view(self, name: ViewName) -> View:
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = View(
                name,
                fps=self._fps,
                canvas=self._canvas,
                renditions=self._renditions,
                arrange=self._layouts[name],
                compositor=self._build_compositor(),
            )
        return view

    def _close_unwatched(self, scene: Scene) -> None:
        """Free what nobody watched for a while; it is made anew when somebody does.

        Who goes to and fro between views or renditions must not cost an encoder each time.
        """
        now_ns = self._clock.now_ns()
        if scene.watched is not self._watched:
            self._idle_ns.update(dict.fromkeys(self._watched - scene.watched, now_ns))
            for stream in scene.watched & self._idle_ns.keys():
                del self._idle_ns[stream]
                self._keyframes_wanted.add(stream)  # who comes back cannot use less
            self._watched = scene.watched
        expired = [s for s, since_ns in self._idle_ns.items() if now_ns - since_ns >= IDLE_NS]
        for stream in expired:
            del self._idle_ns[stream]
        for name in {name for name, _ in expired} & self._views.keys():
            renditions = {r for v, r in (*scene.watched, *self._idle_ns) if v == name}
            self._views[name].keep_only(renditions)
            if not renditions:
                del self._views[name]
                self._untold.pop(name, None)

    def _encode(
        self, name: ViewName, view: View, renditions: Iterable[str], pts_90k: int
    ) -> list[tuple[tuple[ViewName, str], EncodedFrame]]:
        encoded = []
        for rendition in renditions:
            key = name, rendition
            encoder = view.encoder(rendition)
            if key in self._keyframes_wanted:
                self._keyframes_wanted.discard(key)
                encoder.request_keyframe()
            if not view.is_worth_encoding(encoder):
                continue
            with self._metrics.encode_s.time():
                frame = encoder.encode(view.picture(rendition), pts_90k)
            if frame is None:
                self._metrics.drops.labels(queue="encoder", why="rate").inc()
                view.unsettle()
                continue
            if frame.keyframe:
                self._metrics.keyframes.inc()
            self._metrics.encoded_bytes.inc(sum(map(len, frame.payloads)))
            encoded.append((key, frame))
        return encoded
