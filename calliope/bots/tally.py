"""What a bot receives: counted and thrown away, with receiver reports as real clients send."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiortc.rtp import RTCP_PSFB_APP, AnyRtcpPacket, RtcpPsfbPacket, pack_remb_fci

from calliope import vp8
from calliope.clock import Clock
from calliope.errors import MediaError
from calliope.transport.aiortc_seams import Format, MediaReceiver
from calliope.transport.receiver import Reports
from calliope.transport.rtp import Reception, RtpPacket

FREEZE_NS = 200_000_000
"""No new picture for so long is a freeze."""
ESTIMATE_BPS = 10_000_000
"""What a bot says its link carries (REMB): it measures none, and its link is the loopback."""
_ESTIMATE_S = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """What one tally counted since it was last marked. ``frozen_s`` is the sum of all freezes."""

    seconds: float
    frames: int
    packets: int
    bytes: int
    lost: int
    freezes: int
    frozen_s: float
    longest_gap_s: float


class _Arrivals(Reception):
    """Packets received and lost, counted by the tally from ``sequence`` on; no jitter."""

    def __init__(self, clock_hz: int, sequence: int) -> None:
        super().__init__(clock_hz)
        self._base = self.highest = sequence


class Tally:
    """Counts the packets, bytes and frames (by marker) of one receiver; decodes nothing.

    ``first_frame_ns`` is when the first keyframe was there, whole; None before.
    """

    def __init__(self, clock: Clock) -> None:
        self.packets = 0
        self.bytes = 0
        self.frames = 0
        self.first_frame_ns: int | None = None
        self.receiver: MediaReceiver | None = None
        self._clock = clock
        self._reports: Reports | None = None
        self._arrivals: _Arrivals | None = None
        self._estimates: asyncio.TimerHandle | None = None
        self._marked_at: int | None = None
        self._key_timestamp: int | None = None
        self._next_of_key = 0
        self._frame_ns: int | None = None
        self.mark()

    def mark(self) -> None:
        """Count anew from here on."""
        self._since_ns = self._clock.now_ns()
        self._before = (self.frames, self.packets, self.bytes, self._lost)
        self._freezes = 0
        self._frozen_ns = 0
        self._longest_ns = 0

    def counts(self) -> Counts:
        """What was counted since the last mark, the gap that is open now included."""
        now_ns = self._clock.now_ns()
        frames, packets, size, lost = self._before
        open_ns = 0 if self._frame_ns is None else now_ns - max(self._frame_ns, self._since_ns)
        frozen_ns = open_ns if open_ns > FREEZE_NS else 0
        return Counts(
            seconds=(now_ns - self._since_ns) / 1e9,
            frames=self.frames - frames,
            packets=self.packets - packets,
            bytes=self.bytes - size,
            lost=self._lost - lost,
            freezes=self._freezes + (frozen_ns > 0),
            frozen_s=(self._frozen_ns + frozen_ns) / 1e9,
            longest_gap_s=max(self._longest_ns, open_ns) / 1e9,
        )

    @property
    def _lost(self) -> int:
        return 0 if self._arrivals is None else self._arrivals.lost

    def attach(self, receiver: MediaReceiver) -> None:
        """Count what ``receiver`` gets from now on."""
        self.receiver = receiver
        receiver.attach(self)

    def count(self, sequence: int, timestamp: int, marker: bool, size: int) -> None:
        """Count a packet of the stream by its header, ``size`` bytes of payload."""
        arrivals = self._arrivals
        if arrivals is not None:
            arrivals.received += 1
            step = (sequence - arrivals.highest) & 0xFFFF
            if step < 0x8000:
                arrivals.highest += step
        self.packets += 1
        self.bytes += size
        if marker and timestamp != self._marked_at:
            self._marked_at = timestamp
            self.frames += 1
            now_ns = self._clock.now_ns()
            self._note_gap(now_ns)
            self._frame_ns = now_ns

    def _note_gap(self, now_ns: int) -> None:
        if self._frame_ns is None:
            return
        gap_ns = now_ns - max(self._frame_ns, self._since_ns)
        self._longest_ns = max(self._longest_ns, gap_ns)
        if gap_ns > FREEZE_NS:
            self._freezes += 1
            self._frozen_ns += gap_ns

    # RtpSink

    def started(self) -> None:
        pass  # everything begins with the first packet

    def stopped(self) -> None:
        if self._reports is not None:
            self._reports.close()
        if self._estimates is not None:
            self._estimates.cancel()
            self._estimates = None
        self.receiver = None

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._reports is not None:
            self._reports.receive_rtcp(packet)

    def receive_rtp(self, packet: RtpPacket) -> None:
        receiver = self.receiver
        if receiver is None:
            return
        form = receiver.formats[packet.payload_type]
        if form.repairs is not None:
            return
        if self._reports is None or self._reports.ssrc != packet.ssrc:
            self._follow(receiver, form, packet)
        if form.name == "VP8" and self.first_frame_ns is None:
            self._await_keyframe(packet)
        self.count(packet.sequence, packet.timestamp, packet.marker, len(packet.payload))

    def _follow(self, receiver: MediaReceiver, form: Format, packet: RtpPacket) -> None:
        """Report about this stream from now on."""
        if self._reports is not None:
            self._reports.close()
        self._reports = Reports(receiver, self._clock, form.clock_hz, packet.ssrc)
        self._reports.reception = self._arrivals = _Arrivals(form.clock_hz, packet.sequence)
        if form.name == "VP8":
            self._send_estimate()

    def _send_estimate(self) -> None:
        receiver, reports = self.receiver, self._reports
        if receiver is None or reports is None:
            return
        if self._estimates is not None:
            self._estimates.cancel()
        fci = pack_remb_fci(ESTIMATE_BPS, [reports.ssrc])
        remb = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=receiver.own_ssrc, media_ssrc=0, fci=fci)
        receiver.send_rtcp([remb])
        self._estimates = asyncio.get_running_loop().call_later(_ESTIMATE_S, self._send_estimate)

    def _await_keyframe(self, packet: RtpPacket) -> None:
        """Note when the first keyframe is whole: its packets came in a row up to the marker."""
        try:
            read = vp8.parse_payload(packet.payload)
        except MediaError:
            return
        if read.start_of_frame and vp8.is_keyframe(read.data):
            self._key_timestamp = packet.timestamp
        elif packet.timestamp != self._key_timestamp or packet.sequence != self._next_of_key:
            self._key_timestamp = None
            return
        self._next_of_key = (packet.sequence + 1) & 0xFFFF
        if packet.marker:
            self.first_frame_ns = self._clock.now_ns()
