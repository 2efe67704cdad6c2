"""RTP in: one camera's packets to its decoder, one microphone's to its sink; RTCP about both.

Nothing a sender does raises from here: what cannot be used is dropped and counted. There is no
task: timers run only while something is due, and all of them end with ``close``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable

from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    pack_remb_fci,
)

from calliope import h264, vp8
from calliope.clock import NS_PER_S, Clock
from calliope.errors import MediaError
from calliope.media import AudioPacket, AudioSink, VideoFeed
from calliope.metrics import Metrics
from calliope.ring import FrameRing
from calliope.transport.aiortc_seams import MediaReceiver
from calliope.transport.decoder import CodedFrame, Decoder
from calliope.transport.estimate import Estimator
from calliope.transport.jitter import AssembledFrame, JitterBuffer
from calliope.transport.rtp import Reception, RtpPacket, signed_32

_MS = 1_000_000

PLI_INTERVAL_NS = 500 * _MS
"""A keyframe is asked for this often until one comes (RFC 4585 section 6.3.1)."""
SOURCE_SILENCE_NS = NS_PER_S
"""A new SSRC takes over once the old one was silent for so long."""
START_BPS = 2_500_000
"""The estimate announced before anything was measured: Chromium jumps to it in its first two
seconds instead of climbing from 300 kbit/s."""
ESTIMATE_NS = 500 * _MS
"""The estimate is told this often, and at once when it falls."""
_H264_KEY_UNITS = frozenset({5, 7})  # IDR slice, sequence parameter set


class Reports:
    """Receiver reports about one stream, about once a second while it is heard.

    ``on_loss`` is told each report's share of packets lost, 0 to 1.
    """

    def __init__(
        self,
        receiver: MediaReceiver,
        clock: Clock,
        clock_hz: int,
        ssrc: int,
        on_loss: Callable[[float], None] = lambda _share: None,
    ) -> None:
        self._receiver = receiver
        self._clock = clock
        self._clock_hz = clock_hz
        self._on_loss = on_loss
        self._sent: tuple[int, int] | None = None  # NTP and RTP time of the sender's last report
        self.ssrc = ssrc
        self.reception = Reception(clock_hz)
        self._last_sr = 0
        self._last_sr_ns = 0
        self._timer: asyncio.TimerHandle | None = None
        self._schedule()

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        """Note the sender's report, from which it measures the round trip by ours."""
        if isinstance(packet, RtcpSrPacket) and packet.ssrc == self.ssrc:
            info = packet.sender_info
            self._last_sr = (info.ntp_timestamp >> 16) & 0xFFFF_FFFF
            self._last_sr_ns = self._clock.now_ns()
            self._sent = info.ntp_timestamp, info.rtp_timestamp

    def ntp_ns(self, timestamp: int) -> int | None:
        """When the sender says that what has this RTP timestamp was taken, in ns since 1900.

        By its last report; None before that.
        """
        if self._sent is None:
            return None
        ntp, reported = self._sent
        behind = signed_32(timestamp - reported)
        return (ntp * NS_PER_S >> 32) + behind * NS_PER_S // self._clock_hz

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        delay_s = 0.5 + random.random()  # RFC 3550 section 6.2: never in step
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._send)

    def _send(self) -> None:
        delay = 0
        if self._last_sr:
            delay = (self._clock.now_ns() - self._last_sr_ns) * 65536 // NS_PER_S
        reception = self.reception
        fraction_lost = reception.take_fraction_lost()
        self._on_loss(fraction_lost / 256)
        info = RtcpReceiverInfo(
            ssrc=self.ssrc,
            fraction_lost=fraction_lost,
            packets_lost=reception.lost,
            highest_sequence=reception.highest & 0xFFFF_FFFF,
            jitter=reception.jitter & 0xFFFF_FFFF,
            lsr=self._last_sr,
            dlsr=min(delay, 0xFFFF_FFFF),
        )
        self._receiver.send_rtcp([RtcpRrPacket(ssrc=self._receiver.own_ssrc, reports=[info])])
        self._schedule()


class VideoIn:
    """One camera or screen coming in.

    ``on_feed`` gets the feed when the first picture is decoded; ``feed`` is that feed. Attach it
    to a :class:`MediaReceiver` before or after that connects, and close it in the end.
    ``limit_bps`` bounds what the sender is told it may send (REMB), None: no bound. ``on_frame`` is
    told of every whole frame ahead of its decoding.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        max_pixels: int,
        on_feed: Callable[[VideoFeed], None],
        on_frame: Callable[[AssembledFrame], None] | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._note_loss = metrics.loss_share.labels(direction="in").observe
        self._max_pixels = max_pixels
        self._on_feed = on_feed
        self._on_frame = on_frame
        self.feed: VideoFeed | None = None
        self._limit_bps: int | None = None
        self._heard_ns = clock.now_ns()
        self._receiver: MediaReceiver | None = None
        self._reports: Reports | None = None
        self._buffer = JitterBuffer()
        self._counted: dict[str, int] = {}
        self._codec = ""
        self._decoder: Decoder | None = None
        self._decoder_ended = asyncio.Event()
        self._estimator = Estimator(START_BPS)
        self._told_ns: int | None = None
        self._pli_ns: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def limit_bps(self) -> int | None:
        return self._limit_bps

    @limit_bps.setter
    def limit_bps(self, bps: int | None) -> None:
        changed = bps != self._limit_bps
        self._limit_bps = bps
        if changed:
            self._send_estimate()

    def attach(self, receiver: MediaReceiver) -> None:
        """Take what ``receiver`` gets from now on."""
        self._receiver = receiver
        receiver.attach(self)

    def ntp_ns(self, timestamp: int) -> int | None:
        """When the sender says that this was taken, in ns since 1900; None before it reported."""
        return None if self._reports is None else self._reports.ntp_ns(timestamp)

    def request_keyframe(self) -> None:
        """Drop what is held and ask the sender for a keyframe."""
        if not self._buffer.waiting:
            self._buffer.resync()
        self._ask_keyframe(self._clock.now_ns())
        self._schedule()

    async def close(self) -> None:
        """Take nothing any more and end the decoder's thread; the event loop goes on meanwhile."""
        self.stopped()
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()
            await self._decoder_ended.wait()
            decoder.join()  # its last act was to set the event

    # RtpSink

    def started(self) -> None:
        pass  # everything begins with the first packet

    def stopped(self) -> None:
        self._closed = True
        if self._reports is not None:
            self._reports.close()
            self._reports = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        # BYE is passed over: senders say it and then go on (a replaced track, a second BYE).
        if self._reports is not None:
            self._reports.receive_rtcp(packet)

    def receive_rtp(self, packet: RtpPacket) -> None:
        receiver = self._receiver
        if self._closed or receiver is None:
            return
        now_ns = self._clock.now_ns()
        form = receiver.formats[packet.payload_type]
        original = packet
        if form.repairs is not None:
            unwrapped = self._unwrap(packet, form.repairs)
            if unwrapped is None or form.repairs not in receiver.formats:
                return
            if not self._buffer.lacks(unwrapped.sequence):
                # Chromium probes the link with packets sent again that nobody missed.
                self._estimate(packet, now_ns)
                return
            original = unwrapped
            form = receiver.formats[form.repairs]
        elif not self._is_current(packet, form.clock_hz, now_ns):
            self._drop("other_source")
            return
        reports = self._reports
        assert reports is not None
        if original is packet:
            reports.reception.count(packet.sequence, packet.timestamp, now_ns)
        self._heard_ns = now_ns
        if self.feed is not None:
            self.feed.heard_ns = now_ns
        self._estimate(packet, now_ns)
        self._buffer_packet(original, form.name, now_ns)

    def _is_current(self, packet: RtpPacket, clock_hz: int, now_ns: int) -> bool:
        """Whether the packet is of the stream we follow; a new one begins after a silence.

        One stream at a time: a sender of several at once (simulcast that was never negotiated)
        must not make us jump between them.
        """
        receiver = self._receiver
        assert receiver is not None
        current = self._reports
        if current is not None:
            if current.ssrc == packet.ssrc:
                return True
            silent = now_ns - self._heard_ns > SOURCE_SILENCE_NS
            if not silent and packet.ssrc != receiver.signalled_ssrc:
                return False
            current.close()
            self._buffer = JitterBuffer()
            self._counted.clear()
        self._reports = Reports(receiver, self._clock, clock_hz, packet.ssrc, self._note_loss)
        return True

    def _unwrap(self, packet: RtpPacket, payload_type: int) -> RtpPacket | None:
        """The packet that an RTX packet repeats (RFC 4588); None for padding and strangers."""
        if self._reports is None or len(packet.payload) < 2:
            return None
        return RtpPacket(
            payload_type=payload_type,
            marker=packet.marker,
            sequence=int.from_bytes(packet.payload[:2], "big"),
            timestamp=packet.timestamp,
            ssrc=self._reports.ssrc,
            payload=packet.payload[2:],
            extension_profile=packet.extension_profile,
            extensions=packet.extensions,
        )

    def _buffer_packet(self, packet: RtpPacket, codec: str, now_ns: int) -> None:
        if packet.payload and codec != self._codec:
            if self._codec:
                self._buffer.resync()
            self._codec = codec
        part, key_start = b"", False
        if packet.payload:
            try:
                part, key_start = _READERS[codec](packet.payload)
            except (MediaError, KeyError):
                self._drop("malformed")
        frames = self._buffer.insert(
            packet.sequence, packet.timestamp, packet.marker, part, key_start, now_ns
        )
        for frame in frames:
            self._decode(frame)
        self._after_change(now_ns)

    def _decode(self, frame: AssembledFrame) -> None:
        if self._on_frame is not None:
            self._on_frame(frame)
        decoder = self._decoder
        if decoder is None:
            decoder = self._decoder = self._start_decoder()
        coded = CodedFrame(self._codec, b"".join(frame.parts), frame.keyframe, frame.arrived_ns)
        if not decoder.submit(coded):
            self._buffer.resync()

    def _start_decoder(self) -> Decoder:
        loop = asyncio.get_running_loop()
        ring = FrameRing(self._max_pixels)

        def first() -> None:
            if not self._closed and self.feed is None:
                self.feed = VideoFeed(source=ring, heard_ns=self._heard_ns)
                self._on_feed(self.feed)

        def broken() -> None:
            if not self._closed:
                self.request_keyframe()

        def post(call: Callable[[], None]) -> None:
            # A loop that was closed before its sessions were raises: nobody waits for the call.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(call)

        decoder = Decoder(
            ring,
            self._max_pixels,
            self._metrics,
            post,
            on_first=first,
            on_broken=broken,
            on_end=self._decoder_ended.set,
        )
        decoder.start()
        return decoder

    # Timers: gaps to ask for again, keyframes to ask for again.

    def _after_change(self, now_ns: int) -> None:
        """Count what the buffer dropped, ask for a keyframe if it waits for one, set the timer."""
        dropped = self._buffer.dropped
        for why, count in dropped.items():
            fresh = count - self._counted.get(why, 0)
            if fresh:
                self._counted[why] = count
                self._drop(why, fresh)
        if self._buffer.waiting:
            self._ask_keyframe(now_ns)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is not None or self._closed:
            return
        due = [] if self._buffer.due_ns is None else [self._buffer.due_ns]
        if self._buffer.waiting and self._pli_ns is not None:
            due.append(self._pli_ns + PLI_INTERVAL_NS)
        if due:
            delay_s = max(0, min(due) - self._clock.now_ns()) / NS_PER_S
            self._timer = asyncio.get_running_loop().call_later(delay_s + 0.001, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        receiver = self._receiver
        if self._closed or receiver is None or self._reports is None:
            return
        now_ns = self._clock.now_ns()
        rtt_ms = receiver.rtt_ms
        lost = self._buffer.sweep(now_ns, None if rtt_ms is None else round(rtt_ms * _MS))
        if lost:
            self._ask_again(receiver, self._reports.ssrc, lost)
        self._after_change(now_ns)

    def _ask_again(self, receiver: MediaReceiver, ssrc: int, lost: list[int]) -> None:
        """Send generic NACKs (RFC 4585 section 6.2.1), two where the numbers wrap: aiortc packs
        ascending ones only."""
        wrap = next((i for i in range(1, len(lost)) if lost[i] < lost[i - 1]), len(lost))
        receiver.send_rtcp(
            RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=receiver.own_ssrc, media_ssrc=ssrc, lost=part)
            for part in (lost[:wrap], lost[wrap:])
            if part
        )

    def _ask_keyframe(self, now_ns: int) -> None:
        receiver = self._receiver
        if receiver is None or self._reports is None or self._closed:
            return
        if self._pli_ns is None or now_ns - self._pli_ns >= PLI_INTERVAL_NS:
            self._pli_ns = now_ns
            pli = RtcpPsfbPacket(
                fmt=RTCP_PSFB_PLI, ssrc=receiver.own_ssrc, media_ssrc=self._reports.ssrc
            )
            receiver.send_rtcp([pli])

    def _estimate(self, packet: RtpPacket, now_ns: int) -> None:
        """Feed the bandwidth estimator, and tell the sender what it found (REMB)."""
        receiver = self._receiver
        assert receiver is not None
        extension_id = receiver.extension_ids.abs_send_time
        stamp = packet.extension(extension_id) if extension_id else None
        if stamp is None or len(stamp) != 3:
            return
        fell = self._estimator.add(int.from_bytes(stamp, "big"), len(packet.payload), now_ns)
        if fell or self._told_ns is None or now_ns - self._told_ns >= ESTIMATE_NS:
            self._told_ns = now_ns
            self._send_estimate()

    def _send_estimate(self) -> None:
        receiver, reports = self._receiver, self._reports
        if receiver is None or reports is None or self._closed:
            return
        bps = self._estimator.bps
        if self._limit_bps is not None:
            bps = min(bps, self._limit_bps)
        remb = RtcpPsfbPacket(
            fmt=RTCP_PSFB_APP,
            ssrc=receiver.own_ssrc,
            media_ssrc=0,
            fci=pack_remb_fci(bps, [reports.ssrc]),
        )
        receiver.send_rtcp([remb])

    def _drop(self, why: str, count: int = 1) -> None:
        self._metrics.drops.labels(queue="video_in", why=why).inc(count)


def _read_vp8(payload: bytes) -> tuple[bytes, bool]:
    read = vp8.parse_payload(payload)
    return read.data, read.start_of_frame and vp8.is_keyframe(read.data)


def _read_h264(payload: bytes) -> tuple[bytes, bool]:
    stream = h264.depacketise(payload)
    if stream[:4] != b"\x00\x00\x00\x01":
        return stream, False  # the later part of a fragmented unit
    kinds: Iterable[int] = (stream[4] & 0x1F,)
    if payload[0] & 0x1F == 24:
        kinds = (unit[0] & 0x1F for unit in h264.iter_nal_units(stream))
    return stream, not _H264_KEY_UNITS.isdisjoint(kinds)


_READERS: dict[str, Callable[[bytes], tuple[bytes, bool]]] = {
    "VP8": _read_vp8,
    "H264": _read_h264,
}


class AudioIn:
    """One microphone coming in: its Opus packets go to ``sink`` as they come, in any order.

    ``heard_ns`` is when its last packet came.
    """

    def __init__(self, clock: Clock, metrics: Metrics, sink: AudioSink) -> None:
        self._clock = clock
        self._drops = metrics.drops
        self._note_loss = metrics.loss_share.labels(direction="in").observe
        self._sink = sink
        self.heard_ns = clock.now_ns()
        self._receiver: MediaReceiver | None = None
        self._reports: Reports | None = None
        self._closed = False

    def attach(self, receiver: MediaReceiver) -> None:
        """Take what ``receiver`` gets from now on."""
        self._receiver = receiver
        receiver.attach(self)

    def ntp_ns(self, timestamp: int) -> int | None:
        """When the sender says that this was taken, in ns since 1900; None before it reported."""
        return None if self._reports is None else self._reports.ntp_ns(timestamp)

    def close(self) -> None:
        """Take nothing any more; harmless when repeated."""
        self.stopped()

    # RtpSink

    def started(self) -> None:
        pass  # everything begins with the first packet

    def stopped(self) -> None:
        self._closed = True
        if self._reports is not None:
            self._reports.close()
            self._reports = None

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None:
        if self._reports is not None:
            self._reports.receive_rtcp(packet)

    def receive_rtp(self, packet: RtpPacket) -> None:
        receiver = self._receiver
        if self._closed or receiver is None:
            return
        form = receiver.formats[packet.payload_type]
        if form.name != "OPUS":
            self._drop("codec")
            return
        if not packet.payload:
            return  # padding
        now_ns = self._clock.now_ns()
        reports = self._reports
        if reports is None or reports.ssrc != packet.ssrc:
            if (
                reports is not None
                and now_ns - self.heard_ns < SOURCE_SILENCE_NS
                and packet.ssrc != receiver.signalled_ssrc
            ):
                self._drop("other_source")
                return
            if reports is not None:
                reports.close()
            reports = self._reports = Reports(
                receiver, self._clock, form.clock_hz, packet.ssrc, self._note_loss
            )
        reports.reception.count(packet.sequence, packet.timestamp, now_ns)
        self.heard_ns = now_ns
        level = None
        if receiver.extension_ids.audio_level:
            value = packet.extension(receiver.extension_ids.audio_level)
            if value:
                level = value[0] & 0x7F
        self._sink.push(
            AudioPacket(
                sequence=packet.sequence,
                timestamp_48k=packet.timestamp,
                data=packet.payload,
                level=level,
                arrived_ns=now_ns,
            )
        )

    def _drop(self, why: str) -> None:
        self._drops.labels(queue="audio_in", why=why).inc()
