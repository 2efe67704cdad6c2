"""A bot's microphone: ready Opus packets out, each with its loudness (RFC 6464)."""

from __future__ import annotations

import struct

from aiortc.rtp import AnyRtcpPacket

from calliope.bots.loops import SoundPacket
from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.rtp_stream import RtpStream

_HEADER = struct.Struct("!BBHLL")
_ONE_BYTE_EXTENSIONS = 0xBEDE  # RFC 8285 section 4.2
_MARKER = 0x80
_VOICED = 0x80


class Microphone:
    """Attach it to a sender, push packets, close it. Sends nothing while not connected."""

    def __init__(self, metrics: Metrics) -> None:
        self._stream = RtpStream(AUDIO_CLOCK_HZ, metrics)
        self._sender: MediaSender | None = None
        self._next_pts: int | None = None

    @property
    def packets_sent(self) -> int:
        return self._stream.packets

    def attach(self, sender: MediaSender) -> None:
        """Send through ``sender`` as soon as it is connected."""
        sender.attach(self)
        self._attached = sender

    def push(self, packet: SoundPacket, pts_48k: int) -> None:
        """Send one 20 ms packet; never blocks."""
        sender, stream = self._sender, self._stream
        if sender is None:
            return
        resumes = self._next_pts != pts_48k  # RFC 3551 section 4.1
        self._next_pts = pts_48k + AUDIO_BLOCK_SAMPLES
        extensions = _extensions(sender, packet)
        header = _HEADER.pack(
            0x90 if extensions else 0x80,
            sender.payload_type | (_MARKER if resumes else 0),
            stream.sequence,
            stream.rtp_timestamp(pts_48k),
            sender.ssrc,
        )
        sender.media_transport.send_rtp(header + extensions, stream.sequence, (packet.data,))
        stream.sequence = (stream.sequence + 1) & 0xFFFF
        stream.note_sent(pts_48k, 1, len(packet.data))

    def close(self) -> None:
        """Send nothing any more; harmless when repeated."""
        self._sender = None
        self._stream.stop()

    # FeedbackSink

    def started(self) -> None:
        self._sender = self._attached
        self._stream.start(self._attached)

    def stopped(self) -> None:
        self.close()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        self._stream.receive_rtcp(packet)


def _extensions(sender: MediaSender, packet: SoundPacket) -> bytes:
    """The level and the media section's name, as far as they were negotiated."""
    ids, mid = sender.extension_ids, sender.mid.encode()
    data = b""
    if 0 < ids.audio_level < 15:
        loudness = packet.level | (_VOICED if packet.voiced else 0)
        data += bytes((ids.audio_level << 4, loudness))
    if 0 < ids.mid < 15 and 0 < len(mid) <= 16:
        data += bytes((ids.mid << 4 | len(mid) - 1,)) + mid
    if not data:
        return b""
    data += bytes(-len(data) % 4)
    return struct.pack("!HH", _ONE_BYTE_EXTENSIONS, len(data) // 4) + data
