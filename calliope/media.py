"""The few values that cross the walls between transport, room and mixer.

All arrays are planar I420 (BT.601 limited range, as WebRTC codecs carry it): luma ``(height,
width)``, chroma ``((height + 1) // 2, (width + 1) // 2)``, ``uint8``, rows may be strided.
Times ending in ``_ns`` are nanoseconds of the injected :class:`~calliope.clock.Clock`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

Plane: TypeAlias = npt.NDArray[np.uint8]
Post: TypeAlias = Callable[[Callable[[], None]], None]
"""Hands a call to the event loop from any thread (``loop.call_soon_threadsafe`` in the server)."""

VIDEO_CLOCK_HZ = 90_000
AUDIO_CLOCK_HZ = 48_000
AUDIO_BLOCK_SAMPLES = 960
"""Samples in one 20 ms block: the unit in which sound is mixed and sent (mono)."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One decoded picture, borrowed from its source until the source is asked for the next.

    ``serial`` counts up by source: another serial means other pixels. ``arrived_ns`` is when its
    last packet came in.
    """

    y: Plane
    u: Plane
    v: Plane
    serial: int
    arrived_ns: int

    @property
    def width(self) -> int:
        return int(self.y.shape[1])

    @property
    def height(self) -> int:
        return int(self.y.shape[0])


class FrameSource(Protocol):
    """The reading end of one camera or screen; one reader thread at a time."""

    def latest(self) -> Frame | None:
        """The newest complete frame, or None before the first; never waits, never copies.

        The frame stays valid until the next call. Without anything newer the same frame
        (same ``serial``) comes again.
        """


@dataclass(frozen=True, slots=True, eq=False)
class EncodedFrame:
    """One encoded picture of one rendition, made once for all its viewers.

    ``payloads`` are complete RTP payloads (RFC 7741), in order, the last one ends the frame.
    ``pts_90k`` counts from the room's start; a viewer adds its own RTP origin. ``octets`` is the
    size of all payloads.
    """

    payloads: tuple[bytes, ...]
    keyframe: bool
    pts_90k: int
    octets: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "octets", sum(map(len, self.payloads)))


@dataclass(frozen=True, slots=True, eq=False)
class EncodedAudio:
    """One 20 ms Opus packet; ``pts_48k`` counts samples from the room's start."""

    data: bytes
    pts_48k: int
    voiced: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class AudioPacket:
    """One received Opus RTP packet. ``level`` is RFC 6464 (0 loudest .. 127 silence) or None."""

    sequence: int
    timestamp_48k: int
    data: bytes
    level: int | None
    arrived_ns: int


class AudioSink(Protocol):
    """Where the transport puts a participant's microphone packets; never blocks."""

    def push(self, packet: AudioPacket) -> None: ...


@dataclass(slots=True)
class VideoFeed:
    """One camera or screen coming in: its frames, and when its last packet was heard.

    The receiver writes ``heard_ns`` on the event loop for every packet; the room reads it to
    see a sender that stalls. ``source`` is the reading end of the ring.
    """

    source: FrameSource
    heard_ns: int
