"""Encoded sound to one listener."""

from __future__ import annotations

from aiortc.rtp import AnyRtcpPacket

from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ, EncodedAudio
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.header import HEADER, Extensions
from calliope.transport.rtp_stream import RtpStream


class AudioOut:
    """One listener's sound: every packet goes out as it comes. Attach it, push, close it."""

    def __init__(self, metrics: Metrics) -> None:
        self._drops = metrics.drops
        # a block can be mixed once all of it was spoken
        self._stream = RtpStream(AUDIO_CLOCK_HZ, metrics, taken_before=AUDIO_BLOCK_SAMPLES)
        self._extensions: Extensions | None = None
        self._next_pts: int | None = None
        self._closed = False

    @property
    def loss(self) -> float:
        """The smoothed share of this listener's packets that got lost, 0 to 1."""
        return self._stream.loss

    @property
    def rtt_ms(self) -> float | None:
        """The smoothed round trip, None until the listener reported."""
        return self._stream.rtt_ms

    @property
    def packets_sent(self) -> int:
        return self._stream.packets

    def attach(self, sender: MediaSender) -> None:
        """Send through ``sender`` as soon as it is connected."""
        self._sender = sender
        sender.attach(self)

    def push(self, packet: EncodedAudio) -> None:
        """Send one packet: never blocks. A listener not yet connected gets nothing."""
        extensions = self._extensions
        if extensions is None:
            return
        sender, stream = self._sender, self._stream
        # RFC 3551 section 4.1: the marker is set on the first packet after a pause.
        marker = 0 if self._next_pts == packet.pts_48k else 0x80
        self._next_pts = packet.pts_48k + AUDIO_BLOCK_SAMPLES
        header = HEADER.pack(
            extensions.first_byte,
            marker | sender.payload_type,
            stream.sequence,
            stream.rtp_timestamp(packet.pts_48k),
            sender.ssrc,
        )
        block = extensions.write(sender.timeline.ntp_now())
        if not sender.media_transport.send_rtp(header + block, stream.sequence, (packet.data,)):
            self._drops.labels(queue="audio_out", why="unsent").inc()
        stream.sequence = (stream.sequence + 1) & 0xFFFF
        stream.note_sent(packet.pts_48k, 1, len(packet.data))

    def close(self) -> None:
        """Send nothing any more; harmless when repeated."""
        self._closed = True
        self.stopped()

    # FeedbackSink

    def started(self) -> None:
        if not self._closed:
            self._extensions = Extensions(self._sender)
            self._stream.start(self._sender)

    def stopped(self) -> None:
        self._extensions = None
        self._stream.stop()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        self._stream.receive_rtcp(packet)
