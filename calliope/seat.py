"""One person's place in a room: what outlives a lost connection and what others see of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from calliope.media import Frame, FrameSource, VideoFeed
from calliope.mixer.scene import Person
from calliope.uplink import Uplink

if TYPE_CHECKING:
    from calliope.member import Member

Role: TypeAlias = Literal["participant", "publisher", "audience"]

AVATAR_AFTER_NS = 5_000_000_000
"""A camera silent for so long gives way to the avatar; until then its last picture is marked."""
SECRETS_KEPT = 4


@dataclass(frozen=True, slots=True)
class FreshSource:
    """A frame source that hides what arrived before ``since_ns``.

    A camera that was switched off and on again must not show its old last picture.
    """

    source: FrameSource
    since_ns: int

    def latest(self) -> Frame | None:
        frame = self.source.latest()
        return frame if frame is not None and frame.arrived_ns >= self.since_ns else None


@dataclass(slots=True, eq=False)
class Seat:
    """A participant's, publisher's or audience member's place.

    ``secrets`` are those of its sessions, newest last: each lets a later session take over.
    ``member`` is the connected session, None while reserved or lost.
    """

    id: str
    name: str
    role: Role
    secrets: list[str] = field(default_factory=list)
    member: Member | None = None
    screen: Member | None = None
    muted: bool = False
    hand: bool = False
    camera_said: bool | None = None
    camera_on_ns: int = 0
    speaking: bool = False
    spoke_ns: int = 0
    led_ns: int = 0
    lost_ns: int | None = None
    rung: int = 0
    """The rendition its last session had, by its place: the next one begins there."""
    uplinks: dict[str, Uplink] = field(default_factory=dict)
    resumed_ns: dict[str, int] = field(default_factory=dict)

    @property
    def listed(self) -> bool:
        """Whether others see this seat in the participant list and the picture."""
        return self.role != "audience" and self.member is not None

    @property
    def camera(self) -> bool:
        """Camera on: what the participant says, else whether pictures come."""
        if self.camera_said is not None:
            return self.camera_said
        return self.member is not None and self.member.feed is not None

    def add_secret(self, secret: str) -> None:
        self.secrets.append(secret)
        del self.secrets[:-SECRETS_KEPT]

    def describe(self) -> dict[str, object]:
        """The participant as the protocol shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "muted": self.muted,
            "camera": self.camera,
            "screen": self.screen is not None and self.screen.feed is not None,
            "hand": self.hand,
        }

    def person(self, now_ns: int, stall_ns: int) -> Person:
        """The participant as the mixer shows it."""
        camera, camera_stalled = None, False
        feed = self.member.feed if self.member else None
        if feed is not None and self.camera:
            silent_ns = self._silent_ns("camera", feed, now_ns)
            camera_stalled = silent_ns >= stall_ns
            if silent_ns < AVATAR_AFTER_NS:
                camera = self._fresh(feed)
        screen, screen_stalled = None, False
        if self.screen is not None and self.screen.feed is not None:
            screen = self.screen.feed.source
            silent_ns = self._silent_ns("screen", self.screen.feed, now_ns)
            # A still screen may be sent rarely, but not more rarely than this.
            screen_stalled = silent_ns >= AVATAR_AFTER_NS
        return Person(
            id=self.id,
            name=self.name,
            camera=camera,
            screen=screen,
            muted=self.muted,
            speaking=self.speaking,
            hand=self.hand,
            camera_stalled=camera_stalled,
            screen_stalled=screen_stalled,
            spoke_ns=self.spoke_ns,
            led_ns=self.led_ns,
        )

    def _silent_ns(self, source: str, feed: VideoFeed, now_ns: int) -> int:
        """How long a source has been silent of its own accord, not because we paused it."""
        uplink = self.uplinks.get(source)
        if uplink is not None and uplink.kbps == 0:
            return 0
        return now_ns - max(feed.heard_ns, self.resumed_ns.get(source, 0))

    def _fresh(self, feed: VideoFeed) -> FrameSource:
        if self.camera_on_ns == 0:
            return feed.source
        return FreshSource(feed.source, self.camera_on_ns)
