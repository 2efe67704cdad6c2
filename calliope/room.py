"""One room: its seats and sessions, chat and control messages, and the two mixers behind it.

Everything here runs on the event loop. The mixers run on threads of their own and hand their
output back through ``post``; they see the room only as immutable scenes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Protocol, TypeAlias

from calliope import control
from calliope.clock import Clock
from calliope.config import Config
from calliope.errors import Forbidden, NotFound, RoomFull
from calliope.ladder import Ladder
from calliope.mailbox import Mailbox
from calliope.media import AudioSink, EncodedAudio, Post
from calliope.member import JoinRequest, Member, Outlet
from calliope.metrics import Metrics
from calliope.mixer.lead import Lead, follow
from calliope.mixer.scene import Layout, Scene, TickOutput, ViewName
from calliope.names import clean_name
from calliope.seat import Seat
from calliope.uplink import Uplink, size_uplinks

CHAT_KEPT = 100
STATS_SPACING_NS = 2_000_000_000
UPLINK_MIN_BPS = 30_000
"""Left to a sender that is shown nowhere and has no channel: it must not think the link dead."""
MEMBERS_AT_ONCE = 50
"""So many sessions are sent to in one go: 16 us each of RTP and some control messages stay below
2 ms, and the event loop goes on with others between."""
WORK_WAITING = 8
"""Ticks of sound and picture that may wait for those before them."""
TICKS_WAITING = 16
"""Mixer ticks that may wait for an event loop that stands still: half a second of pictures."""


AudioOutput: TypeAlias = tuple[
    EncodedAudio | None, Mapping[str, EncodedAudio | None], frozenset[str]
]


class Mixing(Protocol):
    """A mixer's thread. ``stop`` returns at once, the thread ends within a tick."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def join(self) -> None: ...
    @property
    def alive(self) -> bool: ...


class VideoMixing(Mixing, Protocol):
    """What a room needs of a video mixer."""

    def show(self, scene: Scene) -> None: ...
    def request_keyframe(self, view: ViewName, rendition: str) -> None: ...


class AudioMixing(Mixing, Protocol):
    """What a room needs of an audio mixer."""

    def new_voice(self) -> AudioSink: ...
    def add(self, id: str, voice: AudioSink) -> None: ...
    def remove(self, id: str) -> None: ...
    def set_muted(self, id: str, muted: bool) -> None: ...
    def set_gain(self, listener_id: str, speaker_id: str, gain: float) -> None: ...
    def listen(self, id: str) -> None: ...
    def unlisten(self, id: str) -> None: ...


AudioDeliver: TypeAlias = Callable[
    [EncodedAudio | None, Mapping[str, EncodedAudio | None], frozenset[str]], None
]


class Mixers(Protocol):
    """Builds a room's mixers; they are not started yet."""

    def video(self, deliver: Callable[[TickOutput], None]) -> VideoMixing: ...
    def audio(self, deliver: AudioDeliver) -> AudioMixing: ...


class Room:
    """Seats, sessions and mixers of one room. Made by :class:`~calliope.rooms.Rooms`."""

    def __init__(
        self,
        name: str,
        config: Config,
        clock: Clock,
        metrics: Metrics,
        mixers: Mixers,
        post: Post,
        canvas: tuple[int, int],
    ) -> None:
        self.name = name
        self.clock = clock
        self.metrics = metrics
        self.members: set[Member] = set()
        self._config = config
        renditions = [text.partition(":") for text in config.mixer.renditions]
        self._renditions = tuple(name for name, _, _ in renditions)
        self._rungs_bps = tuple(int(kbps) * 1000 for _, _, kbps in renditions)
        self._canvas = canvas
        self._seats: dict[str, Seat] = {}
        self._next_id = 1
        self._chat: deque[dict[str, object]] = deque(maxlen=CHAT_KEPT)
        self._chat_id = 0
        self._layouts: dict[ViewName, Layout] = {}
        self._pts_90k = 0
        self._delay_ms = 0.0
        self._speaking: frozenset[str] = frozenset()
        self._speaking_since: dict[str, int] = {}
        self._lead = Lead()
        self._scene = Scene()
        self._started = False
        self._post = post
        self._work: deque[Iterator[None]] = deque()  # the first one is under way
        self._missed_layouts: set[ViewName] = set()
        pictures = Mailbox[TickOutput](
            post,
            self._deliver_video,
            merge=_skip_frames,
            merged=self._note_skipped_frames,
            limit=TICKS_WAITING,
        )
        sounds = Mailbox[AudioOutput](
            post,
            lambda output: self._deliver_audio(*output),
            merge=lambda _, newer: newer,
            merged=metrics.drops.labels(queue="room_audio", why="loop").inc,
            limit=TICKS_WAITING,
        )
        self.video_mixer = mixers.video(pictures.put)
        self.audio_mixer = mixers.audio(lambda *output: sounds.put(output))

    # -- coming and going ---------------------------------------------------------------------

    def join(self, request: JoinRequest, outlet: Outlet) -> Member:
        """Reserve a seat, or find the one ``previous`` holds. RoomFull, BadRequest."""
        seat = self._seat_of(request.previous)
        if seat is not None and request.screen:
            if seat.role == "audience":
                raise Forbidden("Who only watches cannot share a screen.")
            member = Member(self, seat, request, outlet, screen=True)
        elif seat is not None and (seat.role == "audience") == (request.role == "audience"):
            name = None if request.name is None else clean_name(request.name)
            seat.add_secret(request.secret)
            member = Member(self, seat, request, outlet, screen=False)
            member.new_name = name
        else:
            member = Member(self, self._new_seat(request), request, outlet, screen=False)
        self.members.add(member)
        return member

    def _seat_of(self, secret: str | None) -> Seat | None:
        if secret is None:
            return None
        return next((seat for seat in self._seats.values() if secret in seat.secrets), None)

    def _new_seat(self, request: JoinRequest) -> Seat:
        name = clean_name(request.name)
        audience = request.role == "audience"
        taken = sum((seat.role == "audience") == audience for seat in self._seats.values())
        limit = self._config.limits.audience if audience else self._config.limits.room
        if taken >= limit:
            raise RoomFull(f"This room is full: all of its {limit} seats are taken.")
        seat = Seat(f"{'a' if audience else 'p'}{self._next_id}", name, request.role)
        self._next_id += 1
        seat.add_secret(request.secret)
        self._seats[seat.id] = seat
        return seat

    def admit(self, member: Member) -> None:
        """A session has connected: it takes its seat, ending the session that had it."""
        seat = member.seat
        old = seat.screen if member.screen else seat.member
        news = "updated" if member.screen or seat.listed else "joined"
        if old is not None:
            old.left = True  # before it can answer: it must not give the seat away
            self._forget(old)
        if member.screen:
            seat.screen = member
            seat.uplinks.pop("screen", None)  # what the last one was told
            self.audio_mixer.set_gain(seat.id, member.voice_id, 0.0)
        else:
            seat.member, seat.lost_ns = member, None
            member.ladder = Ladder(seat.rung)  # as its last session left it
            seat.name = member.new_name or seat.name
        if seat.role != "audience":
            self.audio_mixer.add(member.voice_id, member.audio)
            self.audio_mixer.set_muted(member.voice_id, seat.muted and not member.screen)
        if member.receives_audio:
            self.audio_mixer.listen(seat.id)
        if not self._started:
            self._started = True
            self.video_mixer.start()
            self.audio_mixer.start()
        self.metrics.joins.inc()
        if old is not None:
            old.outlet.end("taken_over", "This seat was taken over by a newer session.")
        if seat.role != "audience":
            self.broadcast({"type": news, "participant": seat.describe()}, but=member)
        self.refresh()
        self._choose_streams()

    def dismiss(self, member: Member, *, lost: bool) -> None:
        """A session has ended. Called once for each, connected or not."""
        seat = member.seat
        self._forget(member)
        if member.screen:
            if seat.screen is member:
                seat.screen = None
                self.refresh(announce=seat)  # the streams follow below
        elif seat.member is member:
            self._vacate(seat, lost=lost)
        elif seat.member is None and seat.lost_ns is None and not self._expects(seat):
            self._seats.pop(seat.id, None)  # it never connected: the reservation ends
        self._choose_streams()

    def _expects(self, seat: Seat) -> bool:
        """Whether a session that has not connected yet waits for this seat."""
        return any(member.seat is seat for member in self.members)

    def _vacate(self, seat: Seat, *, lost: bool) -> None:
        was_listed = seat.listed
        seat.member = None
        if lost or self._expects(seat):  # who takes it over may still be connecting
            seat.lost_ns = self.clock.now_ns()
        else:
            del self._seats[seat.id]
        if was_listed:
            self.broadcast({"type": "left", "id": seat.id})
        self.refresh()
        if seat.screen is not None:
            screen = seat.screen
            screen.leave(lost=False)
            screen.outlet.end("owner_left", "The participant whose screen this is has left.")

    def _forget(self, member: Member) -> None:
        """Take a session off everything that media reaches."""
        self.members.discard(member)
        if not member.is_connected:
            return
        self.audio_mixer.remove(member.voice_id)
        if member.receives_audio:
            self.audio_mixer.unlisten(member.seat.id)
        member.stream = member.next_stream = None

    def sweep(self) -> None:
        """What time does to a room: stalled cameras, seats kept long enough, due statistics."""
        now_ns = self.clock.now_ns()
        kept_ns = self._config.limits.seat_s * 1_000_000_000
        for seat in list(self._seats.values()):
            if seat.lost_ns is None or now_ns - seat.lost_ns < kept_ns:
                continue
            if not self._expects(seat):
                del self._seats[seat.id]
        self._follow_lead()
        self.refresh()
        if len(self._work) < WORK_WAITING:
            self._do(self._sweep_members(now_ns))

    def _sweep_members(self, now_ns: int) -> Iterator[None]:
        moving = False
        for member in tuple(self.members):
            moving = self._adapt(member, now_ns) or moving
            if member.stats_due_ns is not None and now_ns >= member.stats_due_ns:
                member.stats_due_ns = now_ns + STATS_SPACING_NS
                self._send_stats(member)
            yield
        if moving:
            self._choose_streams()

    def _do(self, work: Iterator[None]) -> None:
        """Do work that yields after each session: at once where they are few, else behind what
        was begun before, with pauses for the event loop."""
        self._work.append(work)
        if len(self._work) == 1:
            self._go_on()

    def _go_on(self) -> None:
        for _ in range(MEMBERS_AT_ONCE):
            if not self._work:
                return
            work = self._work[0]
            try:
                next(work)
            except StopIteration:
                self._end(work)
            except Exception:
                self._end(work)
                if self._work:
                    self._post(self._go_on)
                raise
        if self._work:
            self._post(self._go_on)

    def _end(self, work: Iterator[None]) -> None:
        if self._work and self._work[0] is work:  # else the room was closed meanwhile
            self._work.popleft()

    def close(self) -> None:
        """Stop the mixers; their threads end by themselves. The room is not used after that."""
        self._work.clear()
        self.video_mixer.stop()
        self.audio_mixer.stop()

    @property
    def alive(self) -> bool:
        """Whether a mixer's thread still runs."""
        return self.video_mixer.alive or self.audio_mixer.alive

    def wait_closed(self) -> None:
        """Wait for the threads after ``close``."""
        self.video_mixer.join()
        self.audio_mixer.join()

    # -- control messages -----------------------------------------------------------------------

    def broadcast(self, message: Mapping[str, object], *, but: Member | None = None) -> None:
        """Tell everybody whose channel is open now."""
        self._do(self._tell([m for m in self.members if m is not but and m.channel_open], message))

    def _tell(self, members: Iterable[Member], message: Mapping[str, object]) -> Iterator[None]:
        for member in members:
            if not member.left:
                member.send(message)
            yield

    def welcome(self, member: Member) -> None:
        """Tell a session whose channel has opened all there is to know."""
        welcome: dict[str, object] = {
            "type": "welcome",
            "protocol": 1,
            "you": member.id,
            "room": self.name,
            "participants": [s.describe() for s in self._seats.values() if s.listed],
            "layout": self._layout_for(member),
            "chat": [],
        }
        spare = control.MESSAGE_MAX_BYTES - 64
        first = spare - len(control.dumps(welcome).encode())
        runs = control.split_chat(self._chat, first, spare)
        welcome["chat"] = list(runs[0])
        member.send(welcome)
        for run in runs[1:]:
            member.send({"type": "history", "chat": list(run)})
        if self._speaking:
            member.send({"type": "speaking", "ids": sorted(self._speaking)})
        for source, uplink in member.seat.uplinks.items():
            member.send(uplink.message(source))
        for sender in (member.seat.member, member.seat.screen):
            if sender is not None:
                sender.outlet.limit_uplink(None)  # it is told from now on

    def _layout_for(self, member: Member) -> dict[str, object] | None:
        layout = self._layouts.get(member.stream[0]) if member.stream else None
        if layout is None:
            return None
        # The newest frame's time, not that of the change: an old one would wrap around.
        return control.layout_message(layout, member.outlet.rtp_timestamp(self._pts_90k))

    def handle(self, member: Member, message: control.ClientMessage) -> None:
        """Do what one checked message asks; ClientError if that is not to be had."""
        seat = member.seat
        match message:
            case control.Chat(text):
                self._say(seat, text)
            case control.State():
                self._set_state(seat, message)
            case control.Reaction(emoji):
                self._only_participants(seat)
                self.broadcast({"type": "reaction", "id": seat.id, "emoji": emoji})
            case control.Volume(id, gain):
                self._set_volume(seat, id, gain)
            case control.View(name):
                member.view = name
                self._choose_streams()
            case control.Stats(on):
                member.stats_due_ns = self.clock.now_ns() if on else None
            case control.Bye():
                member.leave(lost=False)
                member.outlet.end("bye", "You have left the room.")

    def _only_participants(self, seat: Seat) -> None:
        if seat.role == "audience":
            raise Forbidden("Who only watches can chat, but has no state and no reactions.")

    def _say(self, seat: Seat, text: str) -> None:
        self._chat_id += 1
        entry: dict[str, object] = {
            "id": self._chat_id,
            "from": seat.id,
            "name": seat.name,
            "text": text,
            "at": self.clock.unix_ms(),
        }
        self._chat.append(entry)
        self.broadcast({"type": "chat", **entry})

    def _set_state(self, seat: Seat, state: control.State) -> None:
        self._only_participants(seat)
        before = seat.describe()
        if state.muted is not None:
            seat.muted = state.muted
            self.audio_mixer.set_muted(seat.id, state.muted)
        if state.camera is not None:
            if state.camera and seat.camera_said is False:
                seat.camera_on_ns = self.clock.now_ns()
            seat.camera_said = state.camera
        if state.hand is not None:
            seat.hand = state.hand
        if seat.describe() != before:
            self.refresh(announce=seat)

    def _set_volume(self, seat: Seat, id: str, gain: float) -> None:
        other = self._seats.get(id)
        if other is None or not other.listed:
            raise NotFound(f"There is nobody with the id '{id[:32]}' in this room.")
        self.audio_mixer.set_gain(seat.id, id, gain)

    def _send_stats(self, member: Member) -> None:
        link = member.outlet.link()
        member.send(
            {
                "type": "stats",
                "rendition": member.stream[1] if member.stream else None,
                "loss": round(link.loss, 4),
                "rtt_ms": round(link.rtt_ms, 1),
                "delay_ms": round(self._delay_ms, 1),
            }
        )

    # -- the picture ------------------------------------------------------------------------------

    def feed_changed(self, seat: Seat) -> None:
        """A camera or screen began or ended: a screen may change everybody's view."""
        self.refresh(announce=seat)
        self._choose_streams()

    def refresh(self, *, announce: Seat | None = None) -> None:
        """Show the mixer how the room is now; tell everybody of a seat that changed."""
        if announce is not None and announce.listed:
            self.broadcast({"type": "updated", "participant": announce.describe()})
        now_ns = self.clock.now_ns()
        stall_ns = self._config.media.stall_ms * 1_000_000
        scene = Scene(
            people=tuple(s.person(now_ns, stall_ns) for s in self._seats.values() if s.listed),
            watched=frozenset(
                stream
                for member in self.members
                for stream in (member.stream, member.next_stream)
                if stream is not None
            ),
        )
        if scene != self._scene:
            self._scene = scene
            self.video_mixer.show(scene)

    def _choose_streams(self) -> None:
        """Put every viewer on the stream it asked for; it moves at that stream's next keyframe."""
        shared = any(
            s.screen is not None and s.screen.feed is not None for s in self._seats.values()
        )
        for member in self.members:
            if not (member.is_connected and member.receives_video):
                continue
            auto: ViewName = "presenter" if shared else "grid"
            view = auto if member.view == "auto" else member.view
            wanted = (view, self._renditions[member.ladder.rung])
            if wanted == member.stream and not member.held:
                member.next_stream = None
            elif wanted != member.next_stream:
                member.next_stream = wanted
                self.video_mixer.request_keyframe(*wanted)
        self.refresh()

    def _adapt(self, member: Member, now_ns: int) -> bool:
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
        self.metrics.moves.labels(direction="down" if step.rung > before else "up").inc()
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
        self.metrics.drops.labels(queue="room_video", why="loop").inc(count)
        for stream in self._scene.watched:
            self.video_mixer.request_keyframe(*stream)

    def _deliver_video(self, output: TickOutput) -> None:
        """One tick's output: layouts before the frames they describe, then frames to viewers."""
        self._pts_90k = output.pts_90k
        if output.delay_ns is not None:
            self._delay_ms += (output.delay_ns / 1e6 - self._delay_ms) * 0.1
        self._layouts.update({layout.view: layout for layout in output.layouts})
        self._missed_layouts |= {layout.view for layout in output.layouts}
        if len(self._work) >= WORK_WAITING:
            self._note_skipped_frames(1)
            return
        changed, self._missed_layouts = self._missed_layouts, set()
        self._do(self._send_pictures(output, changed))

    def _send_pictures(self, output: TickOutput, changed: set[ViewName]) -> Iterator[None]:
        frames = dict(output.frames)
        moved = False
        for member in tuple(self.members):
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
            self.refresh()
        if changed or moved:
            self._size_uplinks()

    def _send_layout(self, member: Member, pts_90k: int) -> None:
        assert member.stream is not None
        layout = self._layouts.get(member.stream[0])
        if layout is not None:
            member.send(control.layout_message(layout, member.outlet.rtp_timestamp(pts_90k)))

    def _size_uplinks(self) -> None:
        """Tell every sender how large it is shown now, where that has changed."""
        watched = {view for view, _ in self._scene.watched}
        layouts = [layout for view, layout in self._layouts.items() if view in watched]
        uplinks = size_uplinks(layouts, self._config.mixer.fps)
        for seat in self._seats.values():
            if not seat.listed:
                continue
            for source, member in (("camera", seat.member), ("screen", seat.screen)):
                if member is None or (source == "screen" and member.feed is None):
                    continue  # a screen paused before its first picture would never be laid out
                uplink = uplinks.get((seat.id, source), Uplink.paused())
                if seat.uplinks.get(source) != uplink:
                    if uplink.kbps:
                        seat.resumed_ns[source] = self.clock.now_ns()
                    seat.uplinks[source] = uplink
                    if seat.member is not None and seat.member.channel_open:
                        seat.member.send(uplink.message(source))
                    else:  # it cannot be told, but every sender heeds a bandwidth estimate
                        member.outlet.limit_uplink(max(UPLINK_MIN_BPS, uplink.kbps * 1000))

    # -- the sound --------------------------------------------------------------------------------

    def _deliver_audio(
        self,
        shared: EncodedAudio | None,
        own: Mapping[str, EncodedAudio | None],
        speaking: Iterable[str],
    ) -> None:
        if len(self._work) < WORK_WAITING:
            self._do(self._send_sounds(shared, own))
        else:
            self.metrics.drops.labels(queue="room_audio", why="loop").inc()
        ids = frozenset(id for id in speaking if id in self._seats and self._seats[id].listed)
        if ids != self._speaking:
            self._set_speaking(ids)

    def _send_sounds(
        self, shared: EncodedAudio | None, own: Mapping[str, EncodedAudio | None]
    ) -> Iterator[None]:
        for member in tuple(self.members):
            if member.is_connected and member.receives_audio and not member.left:
                packet = own.get(member.seat.id, shared)
                if packet is not None:
                    member.outlet.send_audio(packet)
            yield

    def _set_speaking(self, ids: frozenset[str]) -> None:
        now_ns = self.clock.now_ns()
        for id in ids ^ self._speaking:
            if (seat := self._seats.get(id)) is not None:
                seat.speaking = id in ids
                seat.spoke_ns = now_ns
        self._speaking = ids
        self._speaking_since = {id: self._speaking_since.get(id, now_ns) for id in ids}
        self._follow_lead()
        self.broadcast({"type": "speaking", "ids": sorted(ids)})
        self.refresh()

    def _follow_lead(self) -> None:
        """Let the main speaker follow who speaks; the next scene shows it."""
        before = self._lead if self._lead.id in self._seats else Lead()
        # who left in the midst of a word speaks on until the mixer has fallen silent
        present = {id: at for id, at in self._speaking_since.items() if id in self._seats}
        self._lead = follow(before, present, self.clock.now_ns())
        if self._lead is not before and self._lead.id is not None:
            self._seats[self._lead.id].led_ns = self._lead.since_ns


def _skip_frames(older: TickOutput, newer: TickOutput) -> TickOutput:
    """One output of two: the newer frames, and of the layouts each view's newest."""
    layouts = {layout.view: layout for layout in (*older.layouts, *newer.layouts)}
    return replace(newer, layouts=tuple(layouts.values()))
