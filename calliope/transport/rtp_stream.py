"""One outgoing stream: its numbers, the times it is dated by, reports about it both ways."""

from __future__ import annotations

import asyncio
import random
import struct

from aiortc.rtp import (
    RTCP_PSFB_APP,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)

from calliope.ladder import Report
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender

REPORT_S = 1.0
_LOSS_WEIGHT = 0.3
_RTT_WEIGHT = 0.2
_U32 = 0xFFFF_FFFF


class RtpStream:
    """One outgoing stream: sequence numbers, the fixed timestamp origin, reports both ways.

    ``loss`` is the smoothed share of packets lost (0 to 1), ``rtt_ms`` the smoothed round trip,
    ``estimate_bps`` the receiver's last bandwidth estimate (REMB); None until reported.
    ``report`` is the last receiver report.
    """

    def __init__(self, clock_hz: int, metrics: Metrics, taken_before: int = 0) -> None:
        """``taken_before``: by so much media time what a packet begins with is older than it."""
        self._clock_hz = clock_hz
        self._taken_before = taken_before
        self._note_loss = metrics.loss_share.labels(direction="out").observe
        self._note_round_trip = metrics.round_trip_s.observe
        self._origin = random.getrandbits(32)
        # In the lower half: a wrap right at the start confuses SRTP receivers that lose a packet.
        self.sequence = random.getrandbits(15)
        self.sender: MediaSender | None = None
        self.packets = 0
        self.octets = 0
        self.loss = 0.0
        self.rtt_ms: float | None = None
        self.report: Report | None = None
        self._last_lsr = 0
        self.estimate_bps: int | None = None
        self._report: asyncio.TimerHandle | None = None
        self._description = b""

    def rtp_timestamp(self, pts: int) -> int:
        """The RTP timestamp of what has this media time; known before anything is sent."""
        return (self._origin + pts) & _U32

    def start(self, sender: MediaSender) -> None:
        """The sender can send: reports begin with the first media."""
        self.sender = sender
        source = RtcpSourceInfo(ssrc=sender.ssrc, items=[(1, sender.cname.encode())])
        self._description = bytes(RtcpSdesPacket(chunks=[source]))  # the same in every report

    def stop(self) -> None:
        """Say goodbye and forget the sender."""
        sender, self.sender = self.sender, None
        if self._report is not None:
            self._report.cancel()
            self._report = None
            if sender is not None:
                sender.send_rtcp([RtcpByePacket(sources=[sender.ssrc])])

    def note_sent(self, pts: int, packets: int, octets: int) -> None:
        """Count what was sent, and begin to report about it."""
        self.packets += packets
        self.octets += octets
        if self._report is None and self.sender is not None:
            self.sender.timeline.anchor(pts, self._clock_hz)
            self._send_report()

    def receive_report(self, report: RtcpReceiverInfo) -> None:
        """What the receiver says of our packets (RFC 3550 section 6.4.1)."""
        lost = report.fraction_lost / 256
        self.loss += _LOSS_WEIGHT * (lost - self.loss)
        self._note_loss(lost)
        sender = self.sender
        if sender is None:
            return
        rtt_ms = None
        if report.lsr:
            now = (sender.timeline.ntp_now() >> 16) & _U32
            rtt = (now - report.lsr - report.dlsr) & _U32  # in 1/65536 s
            if rtt < 60 << 16:
                rtt_ms = rtt * 1000 / 65536
                old_ms = rtt_ms if self.rtt_ms is None else self.rtt_ms
                self.rtt_ms = old_ms + _RTT_WEIGHT * (rtt_ms - old_ms)
        fresh, self._last_lsr = report.lsr != self._last_lsr, report.lsr
        if fresh and rtt_ms is not None:
            self._note_round_trip(rtt_ms / 1000)
        self.report = Report(
            at_ns=sender.timeline.now_ns(),
            lost=report.packets_lost,
            highest=report.highest_sequence,
            sent_packets=self.packets,
            rtt_ms=rtt_ms if fresh else None,  # else it is the same packet's way once more
        )

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        """Reports about this stream; others are passed over."""
        if self.sender is None:
            return
        if isinstance(packet, RtcpRrPacket | RtcpSrPacket):
            for report in packet.reports:
                if report.ssrc == self.sender.ssrc:
                    self.receive_report(report)
        elif isinstance(packet, RtcpPsfbPacket) and packet.fmt == RTCP_PSFB_APP:
            try:
                estimate_bps, ssrcs = unpack_remb_fci(packet.fci)
            except (ValueError, struct.error):
                return
            if self.sender.ssrc in ssrcs:
                self.estimate_bps = estimate_bps

    def report_now(self) -> None:
        """Send a report ahead of its time, once there was media to report about."""
        if self._report is not None:
            self._report.cancel()
            self._send_report()

    def _send_report(self) -> None:
        sender = self.sender
        if sender is None:
            return
        timeline = sender.timeline
        info = RtcpSenderInfo(
            ntp_timestamp=timeline.ntp_now(),
            rtp_timestamp=self.rtp_timestamp(timeline.pts_now(self._clock_hz) + self._taken_before),
            packet_count=self.packets & _U32,
            octet_count=self.octets & _U32,
        )
        sender.send_rtcp([RtcpSrPacket(ssrc=sender.ssrc, sender_info=info), self._description])
        delay_s = REPORT_S * (0.5 + random.random())  # RFC 3550 section 6.2: never in step
        self._report = asyncio.get_running_loop().call_later(delay_s, self._send_report)
