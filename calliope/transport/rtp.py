"""RTP as it lies in a datagram: reading a packet, counting what a stream lost (RFC 3550).

Pure and fast: this runs for every packet of every camera on the event loop.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from calliope.errors import MediaError

HEADER_BYTES = 12
_HEADER = struct.Struct("!BBHLL")
_EXTENSION = struct.Struct("!HH")
_ONE_BYTE = 0xBEDE  # RFC 8285 section 4.2
_TWO_BYTE = 0x1000  # RFC 8285 section 4.3, the low four bits are the application's


@dataclass(slots=True, eq=False)
class RtpPacket:
    """One received RTP packet, decrypted; ``payload`` is without padding."""

    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    extension_profile: int
    extensions: bytes

    def extension(self, extension_id: int) -> bytes | None:
        """The value of one header extension, or None (RFC 8285); never raises."""
        data = self.extensions
        end = len(data)
        position = 0
        if self.extension_profile == _ONE_BYTE:
            while position < end:
                head = data[position]
                position += 1
                if head == 0:
                    continue
                found, size = head >> 4, (head & 0x0F) + 1
                if found == 15 or position + size > end:
                    return None
                if found == extension_id:
                    return data[position : position + size]
                position += size
        elif self.extension_profile & 0xFFF0 == _TWO_BYTE:
            while position + 1 < end:
                found = data[position]
                position += 1
                if found == 0:
                    continue
                size = data[position]
                position += 1
                if position + size > end:
                    return None
                if found == extension_id:
                    return data[position : position + size]
                position += size
        return None


def read_packet(data: bytes) -> RtpPacket:
    """Read one RTP packet (RFC 3550 section 5.1); MediaError if it is none."""
    size = len(data)
    if size < HEADER_BYTES:
        raise MediaError("an RTP packet has at least 12 bytes")
    flags, marker_type, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
    if flags >> 6 != 2:
        raise MediaError("not RTP version 2")
    start = HEADER_BYTES + 4 * (flags & 0x0F)
    profile = 0
    extensions = b""
    if flags & 0x10:
        if size < start + 4:
            raise MediaError("the RTP header extension is truncated")
        profile, words = _EXTENSION.unpack_from(data, start)
        end = start + 4 + 4 * words
        extensions = data[start + 4 : end]
        start = end
    if flags & 0x20:
        padding = data[-1]
        if padding == 0 or start + padding > size:
            raise MediaError("the RTP padding is longer than the packet")
        size -= padding
    if start > size:
        raise MediaError("the RTP header is longer than the packet")
    return RtpPacket(
        payload_type=marker_type & 0x7F,
        marker=marker_type >= 0x80,
        sequence=sequence,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=data[start:size],
        extension_profile=profile,
        extensions=extensions,
    )


def signed_16(difference: int) -> int:
    """A difference of sequence numbers as a number from -32768 to 32767."""
    return ((difference + 0x8000) & 0xFFFF) - 0x8000


def signed_32(difference: int) -> int:
    """A difference of timestamps as a signed 32-bit number."""
    return ((difference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000


class Reception:
    """What one receiver report says about one stream (RFC 3550 sections 6.4.1, A.3 and A.8)."""

    def __init__(self, clock_hz: int) -> None:
        self._clock_hz = clock_hz
        self._base: int | None = None
        self._expected_before = 0
        self._received_before = 0
        self._transit: int | None = None
        self._jitter_q4 = 0
        self.received = 0
        self.highest = 0  # extended by the number of wraps

    def count(self, sequence: int, timestamp: int, now_ns: int) -> None:
        """Note one packet that came in at ``now_ns``."""
        self.received += 1
        if self._base is None:
            self._base = self.highest = sequence
        else:
            step = signed_16(sequence - self.highest)
            if step > 0:
                self.highest += step
        transit = now_ns * self._clock_hz // 1_000_000_000 - timestamp
        if self._transit is not None:
            change = abs(signed_32(transit - self._transit))
            if change < self._clock_hz * 10:  # a sender that jumped in time is no jitter
                self._jitter_q4 += change - ((self._jitter_q4 + 8) >> 4)
        self._transit = transit

    @property
    def jitter(self) -> int:
        """Interarrival jitter in units of the RTP clock."""
        return self._jitter_q4 >> 4

    @property
    def expected(self) -> int:
        return 0 if self._base is None else self.highest - self._base + 1

    @property
    def lost(self) -> int:
        """Packets lost since the start, as the 24-bit signed number a report carries."""
        return max(-(1 << 23), min(self.expected - self.received, (1 << 23) - 1))

    def take_fraction_lost(self) -> int:
        """The share lost since the last call, in 1/256."""
        expected = self.expected - self._expected_before
        received = self.received - self._received_before
        self._expected_before = self.expected
        self._received_before = self.received
        lost = expected - received
        return 0 if expected <= 0 or lost <= 0 else min(255, (lost << 8) // expected)
