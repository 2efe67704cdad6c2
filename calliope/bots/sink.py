"""A cheap end of a connection: packets are counted by their headers, a sample is decrypted.

For audience by the hundred: decryption and all that follows would cost the tool more than sending
costs the server. RTP headers are in the clear (RFC 3711 section 3.1).
"""

from __future__ import annotations

import struct

from calliope.bots.tally import Tally
from calliope.transport.aiortc_seams import MediaTransport

SAMPLE = 16
"""One of so many packets is decrypted: this proves the keys and keeps the connection alive."""
_HEADER = struct.Struct("!BBHL")
_BYTES_MIN = 26
_OVERHEAD = 22
"""The header, and what SRTP adds (RFC 3711: an 80-bit tag)."""


class Sink:
    """Takes the media of ``transport`` from now on, for two tallies; ``sampled`` were decrypted.

    Until ``video`` has its first picture, and RTCP always, goes the full way.
    """

    def __init__(self, transport: MediaTransport, video: Tally, audio: Tally) -> None:
        self.sampled = 0
        self._take_fully = transport.connection.on_media
        self._tallies: dict[int, Tally] = {}
        self._waits = True
        self._turn = 0
        self._video = video
        for tally in (video, audio):
            if tally.receiver is not None:
                for payload_type, form in tally.receiver.formats.items():
                    if form.repairs is None:
                        self._tallies[payload_type] = tally
        transport.connection.on_media = self._take

    def _take(self, data: bytes) -> None:
        if self._waits:
            self._waits = self._video.first_frame_ns is None
            self._take_fully(data)
            return
        self._turn += 1
        kind = data[1] if len(data) >= _BYTES_MIN else 0
        tally = self._tallies.get(kind & 0x7F)
        if tally is None or self._turn >= SAMPLE:
            self._turn = 0
            self.sampled += 1
            self._take_fully(data)
            return
        first, _, sequence, timestamp = _HEADER.unpack_from(data)
        size = len(data) - _OVERHEAD
        if first & 0x10 and size > 0:
            size -= 4 + 4 * data[15]  # extensions are never so long that the other byte counts
        tally.count(sequence, timestamp, kind >= 0x80, size)
