"""One room: its seats and sessions, chat and control messages, and the two mixers behind it.

Everything here runs on the event loop. The mixers run on threads of their own and hand their
output back through ``post``; they see the room only as immutable scenes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from calliope import control
from calliope.clock import Clock
from calliope.config import Config
from calliope.errors import Forbidden, NotFound, RoomFull
from calliope.ladder import Ladder
from calliope.media import Post
from calliope.member import JoinRequest, Member, Outlet
from calliope.metrics import Metrics
from calliope.mixer.scene import Scene
from calliope.mixing import Mixers
from calliope.names import clean_name
from calliope.pictures import Pictures
from calliope.seat import Seat
from calliope.sounds import Sounds
from calliope.turns import Turns
from calliope.uplink import tell_uplinks

CHAT_KEPT = 100
STATS_SPACING_NS = 2_000_000_000


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
    ) -> None:
        self.name = name
        self.clock = clock
        self.metrics = metrics
        self.members: set[Member] = set()
        self._config = config
        self._seats: dict[str, Seat] = {}
        self._next_id = 1
        self._chat: deque[dict[str, object]] = deque(maxlen=CHAT_KEPT)
        self._chat_id = 0
        self._started = False
        self._turns = Turns(post)
        self._pictures = Pictures(
            self.members,
            self._turns,
            config.mixer,
            metrics,
            mixers,
            post,
            on_moved=self.refresh,
            on_layout=self._tell_uplinks,
        )
        self._sounds = Sounds(
            self.members,
            self._seats,
            self._turns,
            clock,
            metrics,
            mixers,
            post,
            on_speaking=self._tell_speaking,
        )
        self.video_mixer = self._pictures.mixer
        self.audio_mixer = self._sounds.mixer

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
        self._sounds.follow_lead()
        self.refresh()
        if not self._turns.full:
            self._turns.do(self._sweep_members(now_ns))

    def _sweep_members(self, now_ns: int) -> Iterator[None]:
        moving = False
        for member in tuple(self.members):
            moving = self._pictures.adapt(member, now_ns) or moving
            if member.stats_due_ns is not None and now_ns >= member.stats_due_ns:
                member.stats_due_ns = now_ns + STATS_SPACING_NS
                self._send_stats(member)
            yield
        if moving:
            self._choose_streams()

    def close(self) -> None:
        """Stop the mixers; their threads end by themselves. The room is not used after that."""
        self._turns.clear()
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
        present = [m for m in self.members if m is not but and m.channel_open]
        self._turns.do(self._tell(present, message))

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
            "layout": self._pictures.layout_for(member),
            "chat": [],
        }
        spare = control.MESSAGE_MAX_BYTES - 64
        first = spare - len(control.dumps(welcome).encode())
        runs = control.split_chat(self._chat, first, spare)
        welcome["chat"] = list(runs[0])
        member.send(welcome)
        for run in runs[1:]:
            member.send({"type": "history", "chat": list(run)})
        if self._sounds.speaking:
            member.send(self._speaking())
        for source, uplink in member.seat.uplinks.items():
            member.send(uplink.message(source))
        for sender in (member.seat.member, member.seat.screen):
            if sender is not None:
                sender.outlet.limit_uplink(None)  # it is told from now on

    def _speaking(self) -> dict[str, object]:
        return {"type": "speaking", "ids": sorted(self._sounds.speaking)}

    def _tell_speaking(self) -> None:
        """Others speak than before: everybody is told, and the picture shows it."""
        self.broadcast(self._speaking())
        self.refresh()

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
                "delay_ms": round(self._pictures.delay_ms, 1),
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
        self._pictures.show(scene)

    def _choose_streams(self) -> None:
        """Let every viewer watch what it asked for, as the room is now."""
        screens = (seat.screen for seat in self._seats.values())
        shared = any(screen is not None and screen.feed is not None for screen in screens)
        self._pictures.choose_streams(screen_shared=shared)

    def _tell_uplinks(self) -> None:
        """Tell every sender how large it is shown now, where that has changed."""
        layouts, fps = self._pictures.watched_layouts, self._config.mixer.fps
        tell_uplinks(self._seats.values(), layouts, fps, self.clock.now_ns())
