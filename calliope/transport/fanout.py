"""Encoded frames to one viewer: RTP header, encryption, send; feedback about it.

A frame is packetised once for all (:class:`~calliope.media.EncodedFrame`); what is a viewer's own
is twelve bytes of header and a few of extensions, the key, and the address. Nothing here waits and
no viewer has a task: a small frame goes out within :meth:`VideoOut.push`, a large one in slices,
paced by timers, so that neither the event loop nor the viewer's link is held by a keyframe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from aiortc.rtp import (
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpRtpfbPacket,
)

from calliope.ladder import Report
from calliope.media import VIDEO_CLOCK_HZ, EncodedFrame
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.burst import Burst, Template
from calliope.transport.header import HEADER, PACKET_OVERHEAD, Extensions
from calliope.transport.history import History
from calliope.transport.padding import Padding
from calliope.transport.resend import Resender
from calliope.transport.rtp_stream import RtpStream
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
KEYFRAME_RETRY_NS = 500_000_000


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
        self._extensions: Extensions | None = None
        self._history = History()
        self._resender = Resender(metrics, self._history)
        self._padding = Padding(self._stream, self._history, self._resender)
        self._bytes = 0
        self._pace_bps: int | None = None
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
        return self._bytes + self._resender.bytes

    @property
    def can_pad(self) -> bool:
        """Whether the viewer takes padding: as packets sent again (RFC 4588)."""
        return self._padding.possible

    def pace(self, bps: int | None) -> None:
        """Send no faster than this from now on: for a link that is narrow (None: it is not)."""
        self._pace_bps = bps

    def pad(self, bps: int) -> None:
        """Send so much padding beside the picture from now on, to find what the link carries.

        Padding repeats packets just sent, which receivers throw away. Nothing happens where the
        viewer has not negotiated retransmission.
        """
        self._padding.set_rate(bps)

    def clear(self) -> None:
        """The viewer gets another stream, from its keyframe on: drop what waits for the pacer.

        Nothing of before is sent again either: on a link that carried too little of it, that would
        only keep the keyframe waiting.
        """
        self._drop_waiting("superseded")
        self._history.clear()

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
            self._extensions = Extensions(self._sender)
            self._template = self._extensions.template(self._sender)
            self._transport = self._sender.media_transport
            self._stream.start(self._sender)
            self._resender.start(self._sender, self._extensions)
            self._padding.start(self._sender)
            self._ask_keyframe()

    def stopped(self) -> None:
        self._extensions = None
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._padding.stop()
        self._resender.stop()
        self._stream.stop()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._extensions is None:
            return
        self._stream.receive_rtcp(packet)
        if isinstance(packet, RtcpRtpfbPacket):
            if packet.fmt == RTCP_RTPFB_NACK and packet.media_ssrc == self._sender.ssrc:
                self._resender.answer(packet.lost, self.loss, self._pace_bps)
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
        header = HEADER.pack(
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
