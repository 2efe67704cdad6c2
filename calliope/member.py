"""One session in a room: what the transport holds of the room, and the room of the transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from calliope import control
from calliope.errors import ClientError, TooMany
from calliope.ladder import Ladder, Link, Step
from calliope.media import AudioSink, EncodedAudio, EncodedFrame, VideoFeed
from calliope.mixer.scene import ViewName
from calliope.seat import Role, Seat
from calliope.throttle import TokenBucket

if TYPE_CHECKING:
    from calliope.room import Room

Stream: TypeAlias = tuple[ViewName, str]
"""A view and the name of one of its renditions: what one viewer receives."""


class Outlet(Protocol):
    """One session's way out, made by the transport. Called on the event loop; never blocks, and
    only ``end`` calls back into the room."""

    def send_message(self, message: Mapping[str, object]) -> None:
        """Send a control message; dropped while no channel is open."""

    def send_video(self, frame: EncodedFrame) -> None: ...

    def send_audio(self, packet: EncodedAudio) -> None: ...

    def rtp_timestamp(self, pts_90k: int) -> int:
        """The receiver's own RTP timestamp (uint32) of a mixer's ``pts_90k``."""

    def link(self) -> Link: ...

    def shape(self, pace_bps: int | None, padding_bps: int) -> None:
        """Send pictures no faster than ``pace_bps`` (None: as fast as can be), and so much padding
        beside them."""

    def clear_video(self) -> None:
        """Drop pictures that wait to be sent: those of another rendition follow."""

    def limit_uplink(self, bps: int | None) -> None:
        """Ask the client's video sender for at most so much, by its bandwidth estimate."""

    def end(self, code: str, reason: str) -> None:
        """End this session: the seat was taken over, its owner left, the server stops."""


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """What a POST asks for. ``previous`` is the secret of an earlier session, if one was sent."""

    room: str
    name: str | None
    role: Role
    secret: str
    previous: str | None = None
    screen: bool = False
    receives_video: bool = True
    receives_audio: bool = True


class Member:
    """One session in a room: made by :meth:`Room.join`, used by the transport until ``leave``."""

    def __init__(
        self, room: Room, seat: Seat, request: JoinRequest, outlet: Outlet, *, screen: bool
    ) -> None:
        self.outlet = outlet
        self.seat = seat
        self.screen = screen
        self.feed: VideoFeed | None = None
        self.receives_video = request.receives_video and not screen
        self.receives_audio = request.receives_audio and not screen
        self.view: control.ViewChoice = "auto"
        self.stream: Stream | None = None
        self.next_stream: Stream | None = None
        self.held = False
        """What it has is too much for its link: nothing, until the next stream's keyframe."""
        self.ladder = Ladder(seat.rung)
        self.step: Step | None = None
        self.channel_open = False
        self.stats_due_ns: int | None = None
        self.audio: AudioSink = room.audio_mixer.new_voice()
        self._room = room
        self._chat_bucket = TokenBucket(room.clock, rate_hz=2, burst=10)
        self._state_bucket = TokenBucket(room.clock, rate_hz=10, burst=30)
        self._error_bucket = TokenBucket(room.clock, rate_hz=2, burst=10)
        self.new_name: str | None = None
        self._keyframe_bucket = TokenBucket(room.clock, rate_hz=0.5, burst=4)
        self.left = False
        self.is_connected = False

    @property
    def id(self) -> str:
        """The public participant id; a screen has its owner's."""
        return self.seat.id

    @property
    def voice_id(self) -> str:
        return f"{self.seat.id}/screen" if self.screen else self.seat.id

    def connected(self) -> None:
        """ICE and DTLS are up: others see this session, and media flows."""
        if not self.left and not self.is_connected:
            self.is_connected = True
            self._room.admit(self)

    def set_video(self, feed: VideoFeed | None) -> None:
        """This session's pictures come from ``feed`` from now on (None: from nowhere)."""
        self.feed = feed
        if not self.left:
            self._room.feed_changed(self.seat)

    def channel_opened(self) -> None:
        """The control channel is open: ``welcome`` goes out."""
        if not self.left and not self.channel_open:
            self.channel_open = True
            self._room.welcome(self)

    def channel_closed(self) -> None:
        self.channel_open = False

    def receive(self, text: str | bytes) -> None:
        """One message from the control channel; a bad one is answered and changes nothing."""
        if self.left:
            return
        try:
            message = control.parse(text)
            if message is not None:
                self._throttle(message)
                self._room.handle(self, message)
        except ClientError as error:
            self._room.metrics.refusals.labels(code=error.code).inc()
            if self._error_bucket.take():
                self.send({"type": "error", "code": error.code, "reason": error.detail})

    def _throttle(self, message: control.ClientMessage) -> None:
        chatty = isinstance(message, control.Chat | control.Reaction)
        bucket = self._chat_bucket if chatty else self._state_bucket
        if not isinstance(message, control.Bye) and not bucket.take():
            raise TooMany("That was too fast; wait a moment and try again.")

    def request_keyframe(self) -> None:
        """The viewer cannot decode what it has (PLI, FIR, a dropped frame).

        Keyframes cost everybody who watches the same stream: who asks all the time waits.
        """
        if not self._keyframe_bucket.take():
            self._room.metrics.drops.labels(queue="keyframe_requests", why="too_many").inc()
            return
        for stream in {self.stream, self.next_stream} - {None}:
            assert stream is not None
            self._room.video_mixer.request_keyframe(*stream)

    def leave(self, *, lost: bool) -> None:
        """The session is over; if ``lost``, its seat is kept a while. Harmless when repeated."""
        if not self.left:
            self.left = True
            self._room.dismiss(self, lost=lost)

    def send(self, message: Mapping[str, object]) -> None:
        if self.channel_open:
            self.outlet.send_message(message)
