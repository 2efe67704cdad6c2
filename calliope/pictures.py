"""What each viewer of a room sees: its stream, when it moves to another, its layouts and frames."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from calliope import control
from calliope.config import MixerConfig
from calliope.mailbox import Mailbox
from calliope.media import Post
from calliope.member import Member
from calliope.metrics import Metrics
from calliope.mixer.scene import Layout, Scene, TickOutput, ViewName
from calliope.mixing import TICKS_WAITING, Mixers
from calliope.turns import Turns


class Pictures:
    """Takes the video mixer's ticks to the viewers among ``members``.

    ``on_moved`` is called when viewers watch other streams than before, ``on_layout`` when tiles
    may have other sizes than before. Lives on the event loop.
    """

    def __init__(
        self,
        members: Collection[Member],
        turns: Turns,
        config: MixerConfig,
        metrics: Metrics,
        mixers: Mixers,
        post: Post,
        *,
        on_moved: Callable[[], None],
        on_layout: Callable[[], None],
    ) -> None:
        self._members = members
        self._turns = turns
        self._metrics = metrics
        self._on_moved = on_moved
        self._on_layout = on_layout
        renditions = [text.partition(":") for text in config.renditions]
        self._renditions = tuple(name for name, _, _ in renditions)
        self._rungs_bps = tuple(int(kbps) * 1000 for _, _, kbps in renditions)
        self._canvas = config.width, config.height
        self._layouts: dict[ViewName, Layout] = {}
        self._missed_layouts: set[ViewName] = set()
        self._pts_90k = 0
        self._scene = Scene()
        self.delay_ms = 0.0
        """How old cameras' frames are when they are sent on, smoothed."""
        box = Mailbox[TickOutput](
            post,
            self._deliver,
            merge=_skip_frames,
            merged=self._note_skipped_frames,
            limit=TICKS_WAITING,
        )
        self.mixer = mixers.video(box.put)

    def show(self, scene: Scene) -> None:
        """Let the mixer show this from its next tick on."""
        if scene != self._scene:
            self._scene = scene
            self.mixer.show(scene)

    @property
    def watched_layouts(self) -> list[Layout]:
        """How the views that somebody watches are laid out."""
        watched = {view for view, _ in self._scene.watched}
        return [layout for view, layout in self._layouts.items() if view in watched]

    def layout_for(self, member: Member) -> dict[str, object] | None:
        """The ``layout`` message for who joins now; None before anything was composed for it."""
        layout = self._layouts.get(member.stream[0]) if member.stream else None
        if layout is None:
            return None
        # The newest frame's time, not that of the change: an old one would wrap around.
        return control.layout_message(layout, member.outlet.rtp_timestamp(self._pts_90k))

    def choose_streams(self, *, screen_shared: bool) -> None:
        """Put every viewer on the stream it asked for; it moves at that stream's next keyframe."""
        for member in self._members:
            if not (member.is_connected and member.receives_video):
                continue
            auto: ViewName = "presenter" if screen_shared else "grid"
            view = auto if member.view == "auto" else member.view
            wanted = (view, self._renditions[member.ladder.rung])
            if wanted == member.stream and not member.held:
                member.next_stream = None
            elif wanted != member.next_stream:
                member.next_stream = wanted
                self.mixer.request_keyframe(*wanted)
        self._on_moved()

    def adapt(self, member: Member, now_ns: int) -> bool:
        """Let a viewer's rendition follow its link; True when it is to move."""
        if member.stream is None:
            return False
        ladder, before = member.ladder, member.ladder.rung
        step = ladder.decide(now_ns, member.outlet.link(), self._needs_bps(member.stream[0]))
        if step != member.step:
            member.step = step
            member.outlet.shape(step.pace_bps, step.padding_bps)
        if step.rung == before:
            return False
        member.seat.rung = step.rung
        self._metrics.moves.labels(direction="down" if step.rung > before else "up").inc()
        if step.rung > before:
            member.held = True  # more of it would only hold up the keyframe of the smaller one
            member.outlet.clear_video()
        return True

    def _needs_bps(self, view: ViewName) -> tuple[int, ...]:
        """The bitrates of a view's renditions: the first one's grows with the canvas."""
        layout = self._layouts.get(view)
        if layout is None or layout.canvas == self._canvas:
            return self._rungs_bps
        share = layout.canvas[0] * layout.canvas[1] / (self._canvas[0] * self._canvas[1])
        return (round(self._rungs_bps[0] * max(1.0, share)), *self._rungs_bps[1:])

    def _note_skipped_frames(self, count: int) -> None:
        """The event loop stood still for too long: viewers lack frames, so they begin anew."""
        self._metrics.drops.labels(queue="room_video", why="loop").inc(count)
        for stream in self._scene.watched:
            self.mixer.request_keyframe(*stream)

    def _deliver(self, output: TickOutput) -> None:
        """One tick's output: layouts before the frames they describe, then frames to viewers."""
        self._pts_90k = output.pts_90k
        if output.delay_ns is not None:
            self.delay_ms += (output.delay_ns / 1e6 - self.delay_ms) * 0.1
        self._layouts.update({layout.view: layout for layout in output.layouts})
        self._missed_layouts |= {layout.view for layout in output.layouts}
        if self._turns.full:
            self._note_skipped_frames(1)
            return
        changed, self._missed_layouts = self._missed_layouts, set()
        self._turns.do(self._send(output, changed))

    def _send(self, output: TickOutput, changed: set[ViewName]) -> Iterator[None]:
        frames = dict(output.frames)
        moved = False
        for member in tuple(self._members):
            yield
            view_before = member.stream[0] if member.stream else None
            waiting = frames.get(member.next_stream) if member.next_stream else None
            if waiting is not None and waiting.keyframe:
                member.stream, member.next_stream = member.next_stream, None
                member.held = False
                moved = True
            if member.stream is None:
                continue
            if member.stream[0] in changed or member.stream[0] != view_before:
                self._send_layout(member, output.pts_90k)
            frame = frames.get(member.stream)
            if frame is not None and not member.held:
                member.outlet.send_video(frame)
        if moved:
            self._on_moved()
        if changed or moved:
            self._on_layout()

    def _send_layout(self, member: Member, pts_90k: int) -> None:
        assert member.stream is not None
        layout = self._layouts.get(member.stream[0])
        if layout is not None:
            member.send(control.layout_message(layout, member.outlet.rtp_timestamp(pts_90k)))


def _skip_frames(older: TickOutput, newer: TickOutput) -> TickOutput:
    """One output of two: the newer frames, and of the layouts each view's newest."""
    layouts = {layout.view: layout for layout in (*older.layouts, *newer.layouts)}
    return replace(newer, layouts=tuple(layouts.values()))
