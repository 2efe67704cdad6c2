"""What a bot receives: counted and thrown away, with receiver reports as real clients send."""

from __future__ import annotations

from aiortc.rtp import AnyRtcpPacket

from calliope.clock import Clock
from calliope.transport.aiortc_seams import MediaReceiver
from calliope.transport.receiver import Reports
from calliope.transport.rtp import RtpPacket


class Tally:
    """Counts the packets, bytes and frames (by marker) of one receiver; decodes nothing."""

    def __init__(self, clock: Clock) -> None:
        self.packets = 0
        self.bytes = 0
        self.frames = 0
        self._clock = clock
        self._receiver: MediaReceiver | None = None
        self._reports: Reports | None = None
        self._marked_at: int | None = None

    def attach(self, receiver: MediaReceiver) -> None:
        """Count what ``receiver`` gets from now on."""
        self._receiver = receiver
        receiver.attach(self)

    # RtpSink

    def started(self) -> None:
        pass  # everything begins with the first packet

    def stopped(self) -> None:
        if self._reports is not None:
            self._reports.close()
        self._receiver = None

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._reports is not None:
            self._reports.receive_rtcp(packet)

    def receive_rtp(self, packet: RtpPacket) -> None:
        receiver = self._receiver
        if receiver is None:
            return
        form = receiver.formats[packet.payload_type]
        if form.repairs is not None:
            return
        if self._reports is None or self._reports.ssrc != packet.ssrc:
            if self._reports is not None:
                self._reports.close()
            self._reports = Reports(receiver, self._clock, form.clock_hz, packet.ssrc)
        self._reports.reception.count(packet.sequence, packet.timestamp, self._clock.now_ns())
        self.packets += 1
        self.bytes += len(packet.payload)
        if packet.marker and packet.timestamp != self._marked_at:
            self._marked_at = packet.timestamp
            self.frames += 1
