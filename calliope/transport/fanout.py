"""Encoded frames to one viewer: RTP header, encryption, send; feedback about it.

A frame is packetised once for all (:class:`~calliope.media.EncodedFrame`); what is a viewer's own
is twelve bytes of header and a few of extensions, the key, and the address. Nothing here waits and
no viewer has a task: a small frame goes out within :meth:`VideoOut.push`, a large one in slices,
paced by timers, so that neither the event loop nor the viewer's link is held by a keyframe.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter, deque
from collections.abc import Callable

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)

from calliope.clock import NS_PER_S
from calliope.ladder import Report
from calliope.media import (
    AUDIO_BLOCK_SAMPLES,
    AUDIO_CLOCK_HZ,
    VIDEO_CLOCK_HZ,
    EncodedAudio,
    EncodedFrame,
)
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.burst import Burst, Template
from calliope.transport.volley import Volley

QUEUE_FRAMES = 4
"""Frames that may wait for the pacer; one more, and all go: the viewer waits for a keyframe."""
SLICE_PACKETS = 16
"""Packets of one viewer sent in one go."""
SLICE_S = 0.004
"""The pause between two slices: 16 packets of 1,200 bytes in 4 ms are 38 Mbit/s."""
SLOW_SLICE_S = 0.02
"""The pause between two slices to a viewer on a narrow link."""
SLOW_QUEUE_FRAMES = 20
"""Frames that may wait there: a keyframe takes a third of a second."""
PAD_S = 0.02
"""How often padding is sent, while there is any."""
PAD_RECENT = 16
"""Padding repeats the largest of so many packets sent last; older ones confuse receivers."""
PAD_PACKETS = 16
"""Packets of padding sent in one go, at most."""
PAD_REPORT_S = 0.1
"""Sender reports while padding: each lets the round trip be measured again."""
PACKET_OVERHEAD = 38
"""Bytes of a packet beside its payload: RTP header, extensions, SRTP tag."""
HISTORY_PACKETS = 1024
"""Sent packets kept for retransmission: several keyframes."""
RESENDS_MAX = 5
"""How often one packet is sent again."""
RESEND_GAP_NS = 20_000_000
"""A packet asked for twice within this is sent again once: the requests crossed."""
RESEND_BUDGET = 200
"""Packets sent again to one viewer in one second, at most: NACKs cannot make us a flood."""
TWICE_LOSS = 0.02
TWICE_S = 0.01
"""Where more than this gets lost, what is sent again follows once more a moment later: a browser
asks for it a second time only after 100 ms, and what got lost twice stops the picture."""
RESEND_SHARE = 0.5
RESEND_BITS = 9600
"""On a narrow link, what is sent again takes at most this share of its pace, counted in packets of
so many bits."""
KEYFRAME_RETRY_NS = 500_000_000
REPORT_S = 1.0
_LOSS_WEIGHT = 0.3
_RTT_WEIGHT = 0.2
_U32 = 0xFFFF_FFFF

_HEADER = struct.Struct("!BBHLL")
_SEQUENCE = struct.Struct("!H")


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


class _Extensions:
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
        self._time_at = _HEADER.size + len(self._head) + 1 if self._time_id else 0

    def template(self, sender: MediaSender) -> Template:
        """The header of the sender's packets, for a :class:`Volley`."""
        header = _HEADER.pack(self.first_byte, sender.payload_type, 0, 0, sender.ssrc)
        return Template(header + self.write(0), self._time_at, sender.timeline.unix_offset_ns)

    def write(self, ntp: int) -> bytes:
        """The extension block of packets sent at this NTP time."""
        if not self._time_id:
            return self._head + self._tail
        # abs-send-time: 24 bits, 6 of seconds and 18 of fraction.
        stamp = self._time_id << 28 | 2 << 24 | (ntp >> 14) & 0xFF_FFFF
        return self._head + stamp.to_bytes(4, "big") + self._tail


class _History:
    """What was sent, a frame or a slice at a time; the payloads are shared with all viewers."""

    def __init__(self) -> None:
        self._runs: deque[tuple[int, int, tuple[bytes, ...], int, int]] = deque()
        self._packets = 0
        self._resent: dict[int, tuple[int, int]] = {}  # by sequence number: when, how often

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


class VideoOut:
    """One viewer's picture. Attach it to a :class:`MediaSender`, push frames, close it.

    A viewer begins at a keyframe, and again after anything was dropped; until one comes it is
    asked for every half second. ``request_keyframe`` is also called for the viewer's own PLI and
    FIR; it is for the room to coalesce.
    """

    def __init__(
        self,
        metrics: Metrics,
        request_keyframe: Callable[[], None],
        volley: Volley | None = None,
    ) -> None:
        """With ``volley``, frames that need no pacing go out together with other viewers'."""
        self._request = request_keyframe
        self._volley = volley
        self._template = Template()
        self._drops = metrics.drops
        self._stream = RtpStream(VIDEO_CLOCK_HZ, metrics)
        self._queue: deque[EncodedFrame] = deque()
        self._at = 0  # next payload of the frame at the head of the queue
        self._timer: asyncio.TimerHandle | None = None
        self._awaits_keyframe = True
        self._asked_ns: int | None = None
        self._extensions: _Extensions | None = None
        self._history = _History()
        self._rtx_sequence = random.getrandbits(15)
        self._resend_allowance = float(RESEND_BUDGET)
        self._resend_ns = 0
        self._twice: list[int] = []  # sent again, and soon once more
        self._twice_timer: asyncio.TimerHandle | None = None
        self._bytes = 0  # of all that was sent, padding and what was sent again too
        self._pace_bps: int | None = None
        self._pad_bps = 0
        self._pad_credit = 0.0  # bytes of padding that are due
        self._pad_ns = 0
        self._pad_timer: asyncio.TimerHandle | None = None
        self._pad_reported_ns = 0
        self._closed = False

    @property
    def loss(self) -> float:
        """The smoothed share of this viewer's packets that got lost, 0 to 1."""
        return self._stream.loss

    @property
    def rtt_ms(self) -> float | None:
        """The smoothed round trip, None until the viewer reported."""
        return self._stream.rtt_ms

    @property
    def estimate_bps(self) -> int | None:
        """The viewer's own bandwidth estimate (REMB), None until it sent one."""
        return self._stream.estimate_bps

    @property
    def report(self) -> Report | None:
        """The viewer's last report."""
        return self._stream.report

    @property
    def packets_sent(self) -> int:
        return self._stream.packets

    @property
    def bytes_sent(self) -> int:
        """All that went to this viewer: the picture, what was sent again, padding."""
        return self._bytes

    @property
    def can_pad(self) -> bool:
        """Whether the viewer takes padding: as packets sent again (RFC 4588)."""
        return self._extensions is not None and self._sender.rtx_payload_type is not None

    def pace(self, bps: int | None) -> None:
        """Send no faster than this from now on: for a link that is narrow (None: it is not)."""
        self._pace_bps = bps

    def pad(self, bps: int) -> None:
        """Send so much padding beside the picture from now on, to find what the link carries.

        Padding repeats packets just sent, which receivers throw away. Nothing happens where the
        viewer has not negotiated retransmission.
        """
        self._pad_bps = bps if self.can_pad else 0
        if self._pad_bps and self._pad_timer is None:
            self._pad_ns = self._sender.timeline.now_ns()
            self._pad_credit = 0.0
            self._schedule_padding()

    def clear(self) -> None:
        """The viewer gets another stream, from its keyframe on: drop what waits for the pacer.

        Nothing of before is sent again either: on a link that carried too little of it, that would
        only keep the keyframe waiting.
        """
        self._drop_waiting("superseded")
        self._history = _History()

    def rtp_timestamp(self, pts_90k: int) -> int:
        """This viewer's RTP timestamp (uint32) of a mixer's ``pts_90k``."""
        return self._stream.rtp_timestamp(pts_90k)

    def attach(self, sender: MediaSender) -> None:
        """Send through ``sender`` as soon as it is connected."""
        self._sender = sender
        sender.attach(self)

    def push(self, frame: EncodedFrame) -> None:
        """Send a frame, or drop it: never blocks. A viewer not yet connected gets nothing."""
        if self._extensions is None:
            return
        if self._awaits_keyframe and not frame.keyframe:
            self._drop("awaits_keyframe", 1)
            self._ask_keyframe()
            return
        if frame.keyframe and self._queue:
            # Whatever still waits behind the pacer is not needed any more, save what has begun.
            self._drop_waiting("superseded")
        if len(self._queue) >= (QUEUE_FRAMES if self._pace_bps is None else SLOW_QUEUE_FRAMES):
            self._drop("overflow", 1)
            self._drop_waiting("overflow")
            self._awaits_keyframe = True
            self._ask_keyframe()
            return
        self._awaits_keyframe = False
        if (
            self._volley is not None
            and self._timer is None
            and self._pace_bps is None
            and len(frame.payloads) <= SLICE_PACKETS
            and (burst := self._transport.burst()) is not None
        ):
            self._send_in_volley(frame, self._volley, burst)
            return
        self._queue.append(frame)
        if self._timer is None:
            self._send_slice()

    def close(self) -> None:
        """Send nothing any more; harmless when repeated."""
        self._closed = True
        self.stopped()

    # FeedbackSink

    def started(self) -> None:
        if not self._closed:
            self._extensions = _Extensions(self._sender)
            self._template = self._extensions.template(self._sender)
            self._transport = self._sender.media_transport
            self._stream.start(self._sender)
            self._ask_keyframe()

    def stopped(self) -> None:
        self._extensions = None
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pad_timer is not None:
            self._pad_timer.cancel()
            self._pad_timer = None
        if self._twice_timer is not None:
            self._twice_timer.cancel()
            self._twice_timer = None
        self._twice.clear()
        self._stream.stop()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._extensions is None:
            return
        self._stream.receive_rtcp(packet)
        if isinstance(packet, RtcpRtpfbPacket):
            if packet.fmt == RTCP_RTPFB_NACK and packet.media_ssrc == self._sender.ssrc:
                self._resend(packet.lost)
        elif isinstance(packet, RtcpPsfbPacket) and (
            (packet.fmt == RTCP_PSFB_PLI and packet.media_ssrc == self._sender.ssrc)
            or (packet.fmt == RTCP_PSFB_FIR and self._names_us(packet.fci))
        ):
            self._request()

    def _names_us(self, fci: bytes) -> bool:
        """Whether a FIR is for this stream (RFC 5104 section 4.3.1: its media SSRC is 0)."""
        return any(
            int.from_bytes(fci[at : at + 4], "big") == self._sender.ssrc
            for at in range(0, len(fci) - 7, 8)
        )

    def _ask_keyframe(self) -> None:
        now_ns = self._sender.timeline.now_ns()
        if self._asked_ns is None or now_ns - self._asked_ns >= KEYFRAME_RETRY_NS:
            self._asked_ns = now_ns
            self._request()

    def _drop(self, why: str, count: int) -> None:
        self._drops.labels(queue="video_out", why=why).inc(count)

    def _drop_waiting(self, why: str) -> None:
        """Drop queued frames of which nothing was sent yet."""
        kept = 1 if self._at else 0
        if len(self._queue) > kept:
            self._drop(why, len(self._queue) - kept)
        while len(self._queue) > kept:
            self._queue.pop()

    def _send_slice(self) -> None:
        self._timer = None
        if self._extensions is None:
            return
        budget, pause_s = SLICE_PACKETS, SLICE_S
        if self._pace_bps is not None:
            budget, pause_s = max(1, round(self._pace_bps * SLOW_SLICE_S / 9600)), SLOW_SLICE_S
        before = self._bytes
        while self._queue and budget:
            frame = self._queue[0]
            end = min(len(frame.payloads), self._at + budget)
            budget -= end - self._at
            self._send(frame, self._at, end)
            self._at = end
            if end == len(frame.payloads):
                self._queue.popleft()
                self._at = 0
        if self._queue:
            if self._pace_bps is not None:
                pause_s = (self._bytes - before) * 8 / self._pace_bps
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._send_slice)

    def _send_in_volley(self, frame: EncodedFrame, volley: Volley, burst: Burst) -> None:
        """Send a whole frame, together with the other viewers of it."""
        stream, payloads = self._stream, frame.payloads
        sequence, timestamp = stream.sequence, stream.rtp_timestamp(frame.pts_90k)
        count, octets = len(payloads), frame.octets
        self._history.add(sequence, timestamp, frame, 0, count)
        volley.add(payloads, burst, self._template, sequence, timestamp)
        stream.sequence = (sequence + count) & 0xFFFF
        self._bytes += octets + count * PACKET_OVERHEAD
        stream.note_sent(frame.pts_90k, count, octets)

    def _send(self, frame: EncodedFrame, begin: int, end: int) -> None:
        """Send payloads ``begin`` to ``end`` of a frame."""
        sender, stream, extensions = self._sender, self._stream, self._extensions
        assert extensions is not None
        timestamp = stream.rtp_timestamp(frame.pts_90k)
        header = _HEADER.pack(
            extensions.first_byte, sender.payload_type, stream.sequence, timestamp, sender.ssrc
        ) + extensions.write(sender.timeline.ntp_now())
        whole = len(frame.payloads)
        payloads = frame.payloads if end - begin == whole else frame.payloads[begin:end]
        self._history.add(stream.sequence, timestamp, frame, begin, end)
        sender.media_transport.send_rtp(header, stream.sequence, payloads, ends_frame=end == whole)
        stream.sequence = (stream.sequence + end - begin) & 0xFFFF
        octets = sum(map(len, payloads))
        self._bytes += octets + (end - begin) * PACKET_OVERHEAD
        stream.note_sent(frame.pts_90k, end - begin, octets)

    def _resend(self, lost: list[int]) -> None:
        """Send again what was asked for and may be (RFC 4588 where negotiated)."""
        sender, extensions = self._sender, self._extensions
        assert extensions is not None
        now_ns = sender.timeline.now_ns()
        budget = float(RESEND_BUDGET)
        if self._pace_bps is not None:
            budget = min(budget, RESEND_SHARE * self._pace_bps / RESEND_BITS)
        earned = (now_ns - self._resend_ns) * budget / NS_PER_S
        self._resend_allowance = min(budget, self._resend_allowance + earned)
        self._resend_ns = now_ns
        block = extensions.write(sender.timeline.ntp_now())
        # On a link that is lossy, not narrow: there is allowance to spare.
        doubtful = self.loss > TWICE_LOSS and self._resend_allowance > budget / 2
        refused: Counter[str] = Counter()
        for sequence in lost:  # 6,000 of them fit into one datagram: refusing must be cheap
            number = sequence & 0xFFFF
            if not self._history.holds(number):
                refused["resend_gone"] += 1
                continue
            if self._resend_allowance < 1:
                refused["resend_budget"] += 1
                break
            if not self._history.may_resend(number, now_ns):
                refused["resend_limit"] += 1
                continue
            self._resend_allowance -= 1
            self._send_again(number, block)
            if doubtful:
                self._twice.append(number)
        if self._twice and self._twice_timer is None:
            loop = asyncio.get_running_loop()
            self._twice_timer = loop.call_later(TWICE_S, self._send_twice)
        for why, count in refused.items():
            self._drop(why, count)

    def _send_twice(self) -> None:
        """Send once more what was just sent again, without being asked."""
        self._twice_timer = None
        numbers, self._twice = self._twice, []
        if self._extensions is None:
            return
        block = self._extensions.write(self._sender.timeline.ntp_now())
        for number in numbers:
            if self._history.holds(number) and self._resend_allowance >= 1:
                self._resend_allowance -= 1
                self._send_again(number, block)

    def _send_again(self, number: int, block: bytes) -> int:
        """Send once more what was sent under this number; returns its size in bytes."""
        sender, extensions = self._sender, self._extensions
        assert extensions is not None
        timestamp, marker, payload = self._history.find(number)
        kind, ssrc = sender.payload_type, sender.ssrc
        if sender.rtx_payload_type is not None:
            payload = _SEQUENCE.pack(number) + payload
            kind, number, ssrc = sender.rtx_payload_type, self._rtx_sequence, sender.rtx_ssrc
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        header = _HEADER.pack(extensions.first_byte, kind, number, timestamp, ssrc)
        sender.media_transport.send_rtp(header + block, number, (payload,), ends_frame=marker)
        size = len(payload) + PACKET_OVERHEAD
        self._bytes += size
        return size

    def _schedule_padding(self) -> None:
        self._pad_timer = asyncio.get_running_loop().call_later(PAD_S, self._send_padding)

    def _send_padding(self) -> None:
        """Send the padding that is due, spread evenly, and come again."""
        self._pad_timer = None
        if self._extensions is None or not self._pad_bps:
            return
        now_ns = self._sender.timeline.now_ns()
        self._pad_credit += self._pad_bps * (now_ns - self._pad_ns) / (8 * NS_PER_S)
        self._pad_ns = now_ns
        if now_ns - self._pad_reported_ns >= PAD_REPORT_S * NS_PER_S:
            self._pad_reported_ns = now_ns
            self._stream.report_now()
        number = self._history.largest(PAD_RECENT)
        if number is not None:
            block = self._extensions.write(self._sender.timeline.ntp_now())
            for _ in range(PAD_PACKETS):
                if self._pad_credit <= 0:
                    break
                self._pad_credit -= self._send_again(number, block)
            else:
                self._pad_credit = 0.0  # small packets only: what is due would never be sent
        self._schedule_padding()


class AudioOut:
    """One listener's sound: every packet goes out as it comes. Attach it, push, close it."""

    def __init__(self, metrics: Metrics) -> None:
        self._drops = metrics.drops
        # a block can be mixed once all of it was spoken
        self._stream = RtpStream(AUDIO_CLOCK_HZ, metrics, taken_before=AUDIO_BLOCK_SAMPLES)
        self._extensions: _Extensions | None = None
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
        self._next_pts = packet.pts_48k + 960
        header = _HEADER.pack(
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
            self._extensions = _Extensions(self._sender)
            self._stream.start(self._sender)

    def stopped(self) -> None:
        self._extensions = None
        self._stream.stop()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        self._stream.receive_rtcp(packet)
