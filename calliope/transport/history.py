"""What was sent to one viewer, for when it asks for something again."""

from __future__ import annotations

from collections import deque

from calliope.media import EncodedFrame

HISTORY_PACKETS = 1024
"""Sent packets kept for retransmission: several keyframes."""
RESENDS_MAX = 5
"""How often one packet is sent again."""
RESEND_GAP_NS = 20_000_000
"""A packet asked for twice within this is sent again once: the requests crossed."""


class History:
    """What was sent, a frame or a slice at a time; the payloads are shared with all viewers."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, int, tuple[bytes, ...], int, int]] = deque()
        self._packets = 0
        self._resent: dict[int, tuple[int, int]] = {}  # by sequence number: when, how often

    def clear(self) -> None:
        """Forget all that was sent."""
        self._runs.clear()
        self._packets = 0
        self._resent.clear()

    def add(self, sequence: int, timestamp: int, frame: EncodedFrame, begin: int, end: int) -> None:
        """Keep payloads ``begin`` to ``end`` of a frame, the first sent as ``sequence``."""
        self._runs.append((sequence, timestamp, frame.payloads, begin, end))
        self._packets += end - begin
        while self._packets > HISTORY_PACKETS:
            gone, _, _, first, last = self._runs.popleft()
            self._packets -= last - first
            if self._resent:
                for old in range(gone, gone + last - first):
                    self._resent.pop(old & 0xFFFF, None)

    def holds(self, sequence: int) -> bool:
        """Whether what was sent under this number is still here: numbers have no gaps."""
        return bool(self._runs) and (sequence - self._runs[0][0]) & 0xFFFF < self._packets

    def find(self, sequence: int) -> tuple[int, bool, bytes]:
        """Timestamp, marker and payload of what was sent under this number.

        It looks through all that is here: ask first whether it ``holds`` the number.
        """
        for first, timestamp, payloads, begin, end in reversed(self._runs):
            offset = (sequence - first) & 0xFFFF
            if offset < end - begin:
                index = begin + offset
                return timestamp, index == len(payloads) - 1, payloads[index]
        raise LookupError(sequence)

    def largest(self, count: int) -> int | None:
        """The number of the largest of the ``count`` packets sent last; None before the first."""
        found, size = None, -1
        for first, _, payloads, begin, end in reversed(self._runs):
            taken = min(count, end - begin)
            for offset in range(end - begin - taken, end - begin):
                if len(payloads[begin + offset]) > size:
                    found, size = (first + offset) & 0xFFFF, len(payloads[begin + offset])
            count -= taken
            if count <= 0:
                break
        return found

    def may_resend(self, sequence: int, now_ns: int) -> bool:
        """Whether this packet may be sent again now; counts it if so."""
        at_ns, times = self._resent.get(sequence, (0, 0))
        if times >= RESENDS_MAX or (times and now_ns - at_ns < RESEND_GAP_NS):
            return False
        self._resent[sequence] = now_ns, times + 1
        return True
