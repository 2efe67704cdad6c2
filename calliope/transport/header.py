"""What stands before each payload that is sent: the RTP header and its extensions."""

from __future__ import annotations

import struct

from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.burst import Template

HEADER = struct.Struct("!BBHLL")
"""First byte, marker and payload type, sequence number, timestamp, SSRC (RFC 3550 section 5.1)."""
PACKET_OVERHEAD = 38
"""Bytes of a packet beside its payload: RTP header, extensions, SRTP tag."""


class Extensions:
    """The header extensions of one viewer's packets (RFC 8285, one-byte form)."""

    def __init__(self, sender: MediaSender) -> None:
        ids = sender.extension_ids
        mid = sender.mid.encode()
        self._time_id = ids.abs_send_time if ids.abs_send_time < 15 else 0
        rest = b""
        if 0 < ids.mid < 15 and 0 < len(mid) <= 16:
            rest = bytes([ids.mid << 4 | len(mid) - 1]) + mid
        size = len(rest) + (4 if self._time_id else 0)
        padding = -size % 4
        self._tail = rest + bytes(padding)
        self._head = struct.pack("!HH", 0xBEDE, (size + padding) // 4) if size else b""
        self.first_byte = 0x90 if size else 0x80
        self._time_at = HEADER.size + len(self._head) + 1 if self._time_id else 0

    def template(self, sender: MediaSender) -> Template:
        """The header of the sender's packets, for a :class:`Volley`."""
        header = HEADER.pack(self.first_byte, sender.payload_type, 0, 0, sender.ssrc)
        return Template(header + self.write(0), self._time_at, sender.timeline.unix_offset_ns)

    def write(self, ntp: int) -> bytes:
        """The extension block of packets sent at this NTP time."""
        if not self._time_id:
            return self._head + self._tail
        # abs-send-time: 24 bits, 6 of seconds and 18 of fraction.
        stamp = self._time_id << 28 | 2 << 24 | (ntp >> 14) & 0xFF_FFFF
        return self._head + stamp.to_bytes(4, "big") + self._tail
