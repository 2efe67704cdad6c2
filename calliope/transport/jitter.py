"""The video jitter buffer: RTP packets in any order in, whole frames in order out.

Pure: time comes in as an argument, nothing is sent from here. A frame leaves the moment it is
complete (RFC 3550 marker, or the next timestamp, and no gap before it). A gap is asked for again
(RFC 4585 generic NACK) every 50 to 150 ms until it is filled or given up; then everything up to
the next keyframe is dropped, since a picture that refers to a lost one is only a smear.

Sequence numbers inside are *extended*: they count on where the 16-bit ones wrap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from calliope.transport.rtp import signed_16

_MS = 1_000_000

REORDER_NS = 10 * _MS
"""How long a gap may be mere reordering before it is asked for."""
NACK_MIN_NS = 50 * _MS
NACK_MAX_NS = 150 * _MS
GIVE_UP_NS = 400 * _MS
"""How long a gap may hold the picture; longer on a link whose round trip needs it."""
GIVE_UP_MAX_NS = 1000 * _MS
MAX_GAP = 256
"""More packets missing at once than this are not worth asking for: a keyframe is cheaper."""
MAX_DROPOUT = 3000
"""A jump this far in either direction is another stream (RFC 3550 A.1) or garbage."""
MAX_NACKS = 64
"""Sequence numbers asked for in one message."""


@dataclass(frozen=True, slots=True, eq=False)
class AssembledFrame:
    """One whole coded picture: the parts of its packets in order."""

    timestamp: int
    parts: tuple[bytes, ...]
    keyframe: bool
    arrived_ns: int


@dataclass(slots=True, eq=False)
class _Held:
    timestamp: int
    marker: bool
    part: bytes
    key_start: bool
    arrived_ns: int


@dataclass(slots=True, eq=False)
class _Missing:
    since_ns: int
    ask_ns: int


class JitterBuffer:
    """One stream's buffer, bounded: it spans at most ``capacity`` sequence numbers.

    ``waiting`` says that the buffer drops everything until a keyframe begins: its owner asks the
    sender for one. ``dropped`` counts packets by reason.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._capacity = capacity
        self._window = min(MAX_GAP, capacity // 2)  # what is kept while no keyframe has begun
        self._held: dict[int, _Held] = {}
        self._missing: dict[int, _Missing] = {}
        self._highest: int | None = None
        self._suspect: int | None = None  # the sequence number that would confirm a jump
        self._head = 0  # first packet of the frame that is due next
        self._scan = 0  # first packet of that frame not yet seen to be there
        self._released = True  # whether anything left since the head was set to a keyframe
        self._rtt_ns = 0
        self.waiting = True
        self.dropped: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def missing(self) -> int:
        """How many packets are being asked for."""
        return len(self._missing)

    @property
    def blocked(self) -> bool:
        """Whether frames wait for a packet that was lost."""
        return bool(self._missing)

    def lacks(self, sequence: int) -> bool:
        """Whether a packet sent again is of use: it is missing, or newer than all that came."""
        if self._highest is None:
            return True
        step = signed_16(sequence - self._highest)
        return step > 0 or self._highest + step in self._missing

    def resync(self) -> None:
        """Drop what is held and wait for the next keyframe (the decoder lost its way)."""
        self._give_up(self._highest + 1 if self._highest is not None else 0, "resync")

    def insert(
        self,
        sequence: int,
        timestamp: int,
        marker: bool,
        part: bytes,
        key_start: bool,
        now_ns: int,
    ) -> list[AssembledFrame]:
        """Take one packet; returns the frames that are complete now, oldest first.

        ``part`` is the packet's share of the coded picture, empty for padding. ``key_start`` says
        that a keyframe can be decoded from this packet on.
        """
        extended = self._extend(sequence, now_ns)
        if extended is None:
            self.dropped["jump"] += 1
            return []
        if extended in self._held:
            self.dropped["duplicate"] += 1
            return []
        oldest = self._newest - self._window
        if self.waiting:
            self._forget_before(oldest)
        elif self._newest - self._head >= self._capacity:
            self._give_up(oldest, "overflow", now_ns)
        if self.waiting:
            late = extended < oldest
        else:
            late = extended < self._head and not self._overtaken(extended, timestamp, key_start)
        if late:
            self.dropped["late"] += 1
            return []
        self._missing.pop(extended, None)
        self._held[extended] = _Held(timestamp, marker, part, key_start, now_ns)
        if self.waiting or extended < self._head:
            if not key_start:
                if not self._missing:  # no keyframe can begin among what is held
                    self._forget_before(extended + 1)
                return []
            self._start_at(extended, now_ns)
        return self._release()

    def sweep(self, now_ns: int, rtt_ns: int | None = None) -> list[int]:
        """What to ask for again now, as 16-bit sequence numbers; gives up what took too long.

        To be called at ``due_ns`` and after. ``rtt_ns`` is the round trip if it is known.
        """
        if rtt_ns is not None:
            self._rtt_ns = rtt_ns
        patience_ns = self._patience_ns
        expired = [s for s, m in self._missing.items() if now_ns - m.since_ns >= patience_ns]
        if expired:
            self._give_up(max(expired) + 1, "expired" if self.waiting else "gave_up", now_ns)
        ask = []
        interval_ns = max(NACK_MIN_NS, min(NACK_MAX_NS, self._rtt_ns * 5 // 4))
        for extended in sorted(self._missing):
            missing = self._missing[extended]
            if missing.ask_ns <= now_ns:
                missing.ask_ns = now_ns + interval_ns
                ask.append(extended & 0xFFFF)
                if len(ask) == MAX_NACKS:
                    break
        return ask

    @property
    def due_ns(self) -> int | None:
        """When ``sweep`` has something to do, or None."""
        if not self._missing:
            return None
        patience_ns = self._patience_ns
        return min(min(m.ask_ns, m.since_ns + patience_ns) for m in self._missing.values())

    @property
    def _patience_ns(self) -> int:
        return min(GIVE_UP_MAX_NS, max(GIVE_UP_NS, 3 * self._rtt_ns))

    def _extend(self, sequence: int, now_ns: int) -> int | None:
        """The extended sequence number, after noting what it leaves missing; None: drop it."""
        if self._highest is None:
            self._highest = sequence
            return sequence
        step = signed_16(sequence - self._highest)
        if abs(step) > MAX_DROPOUT:
            if sequence != self._suspect:
                self._suspect = (sequence + 1) & 0xFFFF
                return None
            # Two in a row: the sender began anew.
            extended = self._highest + (step & 0xFFFF)
            self._give_up(extended, "restart")
            self._highest = extended
            self._suspect = None
            return extended
        self._suspect = None
        extended = self._highest + step
        if step > MAX_GAP:
            self._give_up(extended, "gap")
            self._highest = extended
        elif step > 0:
            for lost in range(self._highest + 1, extended):
                self._missing[lost] = _Missing(now_ns, now_ns + REORDER_NS)
            self._highest = extended
        return extended

    @property
    def _newest(self) -> int:
        """The highest extended sequence number so far."""
        assert self._highest is not None
        return self._highest

    def _overtaken(self, extended: int, timestamp: int, key_start: bool) -> bool:
        """Whether a packet before the head still belongs to it: parameter sets that were
        overtaken by the keyframe they are for."""
        head = self._held.get(self._head)
        return (
            key_start
            and not self._released
            and extended > max(self._head - 16, self._newest - self._capacity)
            and head is not None
            and head.timestamp == timestamp
        )

    def _start_at(self, extended: int, now_ns: int) -> None:
        """Go on with the keyframe that begins at this held packet."""
        self._forget_before(extended)
        self.waiting = False
        self._released = False
        self._head = self._scan = extended
        for later in range(extended + 1, self._newest + 1):
            if later not in self._held and later not in self._missing:
                self._missing[later] = _Missing(now_ns, now_ns)

    def _forget_before(self, extended: int) -> None:
        """Drop held packets and gaps before ``extended``."""
        for old in [s for s in self._held if s < extended]:
            del self._held[old]
            self.dropped["skipped"] += 1
        for old in [s for s in self._missing if s < extended]:
            del self._missing[old]

    def _give_up(self, extended: int, why: str, now_ns: int | None = None) -> None:
        """Drop all before ``extended``, then go on at the next keyframe that is held, if any."""
        self.dropped[why] += 1
        self._forget_before(extended)
        self.waiting = True
        starts = [s for s, held in self._held.items() if held.key_start]
        if starts and now_ns is not None:
            self._start_at(min(starts), now_ns)
        elif not self._missing:
            self.dropped["skipped"] += len(self._held)
            self._held.clear()

    def _release(self) -> list[AssembledFrame]:
        frames: list[AssembledFrame] = []
        while True:
            while (end := self._frame_end()) is not None:
                self._take(end, frames)
            if not self._missing or not self._skip_to_keyframe():
                return frames

    def _frame_end(self) -> int | None:
        """One past the last packet of the frame at the head if it is complete."""
        first = self._held.get(self._head)
        if first is None:
            return None
        while True:
            packet = self._held.get(self._scan)
            if packet is None:
                return None
            if packet.timestamp != first.timestamp:
                return self._scan
            self._scan += 1
            if packet.marker:
                return self._scan

    def _take(self, end: int, frames: list[AssembledFrame]) -> None:
        packets = [self._held.pop(extended) for extended in range(self._head, end)]
        self._head = self._scan = end
        self._released = True
        parts = tuple(packet.part for packet in packets if packet.part)
        if parts:  # else it was padding
            frames.append(
                AssembledFrame(
                    timestamp=packets[0].timestamp,
                    parts=parts,
                    keyframe=any(packet.key_start for packet in packets),
                    arrived_ns=max(packet.arrived_ns for packet in packets),
                )
            )

    def _skip_to_keyframe(self) -> bool:
        """Go on at a whole keyframe behind a gap: newer pictures need nothing before it."""
        for start in sorted(s for s, held in self._held.items() if held.key_start):
            if start <= self._head or start - 1 in self._missing:
                continue
            timestamp = self._held[start].timestamp
            position = start
            while (packet := self._held.get(position)) is not None:
                if packet.marker or packet.timestamp != timestamp:
                    self.dropped["overtaken"] += 1
                    self._start_at(start, packet.arrived_ns)
                    return True
                position += 1
        return False
