"""Both ends of a media session for tests: coded pictures, stand-ins, and a stock aiortc client."""

from __future__ import annotations

import asyncio
import fractions
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.rtp import AnyRtcpPacket, RtcpPacket
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType

from calliope import vp8
from calliope.clock import Clock, SystemClock
from calliope.config import IceConfig
from calliope.media import EncodedAudio, EncodedFrame
from calliope.metrics import Metrics
from calliope.transport import aiortc_seams
from calliope.transport.aiortc_seams import ExtensionIds, Format, MediaReceiver, MediaSender
from calliope.transport.timeline import Timeline

TIME_BASE = fractions.Fraction(1, 90_000)


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Wait on the event loop until the condition holds; AssertionError if it never does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not condition():
        assert loop.time() < deadline, "the condition did not come to hold in time"
        await asyncio.sleep(0.005)


def dropped(metrics: Metrics, queue: str, why: str) -> float:
    """How often a queue dropped for a reason."""
    value = metrics.registry.get_sample_value("calliope_drops_total", {"queue": queue, "why": why})
    return value or 0.0


def picture(luma: int, width: int = 160, height: int = 120) -> av.VideoFrame:
    """A grey picture of one brightness."""
    frame = av.VideoFrame(width, height, "yuv420p")
    for index, plane in enumerate(frame.planes):
        plane.update(bytes([luma if index == 0 else 128]) * plane.buffer_size)
    return frame


def _encoder(codec: str, width: int, height: int) -> VideoCodecContext:
    name, options = {
        "VP8": ("libvpx", {"deadline": "realtime", "lag-in-frames": "0", "cpu-used": "8"}),
        "H264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "profile": "high"}),
    }[codec]
    context = cast(VideoCodecContext, VideoCodecContext.create(name, "w"))
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = TIME_BASE
    context.options = options
    context.gop_size = 10_000
    return context


def encode(codec: str, lumas: Sequence[int], width: int = 160, height: int = 120) -> list[bytes]:
    """Grey pictures, coded by libvpx ("VP8") or libx264 ("H264"); the first is a keyframe."""
    context = _encoder(codec, width, height)
    coded = []
    for index, luma in enumerate(lumas):
        frame = picture(luma, width, height)
        frame.pts, frame.time_base = index * 3000, TIME_BASE
        coded += [bytes(packet) for packet in context.encode(frame)]
    return coded + [bytes(packet) for packet in context.encode(None)]


def luma_of(plane: np.ndarray[Any, Any]) -> int:
    return round(float(plane.mean()))


class StandInReceiver:
    """What a VideoIn or AudioIn sees of a MediaReceiver; keeps what is sent back."""

    def __init__(self) -> None:
        self.formats = {
            96: Format("VP8", 90_000),
            97: Format("RTX", 90_000, repairs=96),
            98: Format("H264", 90_000),
            111: Format("OPUS", 48_000),
            9: Format("G722", 8000),
        }
        self.extension_ids = ExtensionIds(abs_send_time=3, audio_level=2, mid=1)
        self.signalled_ssrc: int | None = None
        self.own_ssrc = 7
        self.rtt_ms: float | None = None
        self.sink: Any = None
        self.sent: list[AnyRtcpPacket] = []

    def attach(self, sink: Any) -> None:
        self.sink = sink

    def send_rtcp(self, packets: Iterable[AnyRtcpPacket]) -> None:
        made = list(packets)
        assert len(RtcpPacket.parse(b"".join(map(bytes, made)))) == len(made)
        self.sent += made

    def sent_of(self, kind: type, fmt: int) -> list[Any]:
        return [p for p in self.sent if isinstance(p, kind) and getattr(p, "fmt", None) == fmt]

    def as_receiver(self) -> MediaReceiver:
        return cast(MediaReceiver, self)


class StandInSender:
    """What a VideoOut or AudioOut sees of a MediaSender; keeps what is sent."""

    def __init__(self, rtx: bool = True, clock: Clock | None = None) -> None:
        self.timeline = Timeline(clock or SystemClock())
        self.payload_type = 96
        self.rtx_payload_type = 97 if rtx else None
        self.extension_ids = ExtensionIds(abs_send_time=3, audio_level=2, mid=1)
        self.mid = "0"
        self.cname = "them"
        self.ssrc = 11
        self.rtx_ssrc = 12
        self.sink: Any = None
        self.packets: list[bytes] = []
        self.rtcp: list[AnyRtcpPacket] = []

    @property
    def media_transport(self) -> StandInSender:
        return self

    def attach(self, sink: Any) -> None:
        self.sink = sink

    def send_rtp(
        self, header: bytes, sequence: int, payloads: Sequence[bytes], *, ends_frame: bool = False
    ) -> int:
        for index, payload in enumerate(payloads):
            made = bytearray(header)
            if ends_frame and index == len(payloads) - 1:
                made[1] |= 0x80
            made[2:4] = ((sequence + index) & 0xFFFF).to_bytes(2, "big")
            self.packets.append(bytes(made) + payload)
        return len(payloads)

    def send_rtcp(self, packets: Iterable[AnyRtcpPacket | bytes]) -> None:
        self.rtcp += RtcpPacket.parse(b"".join(map(bytes, packets)))

    def as_sender(self) -> MediaSender:
        return cast(MediaSender, self)


class GreyTrack(MediaStreamTrack):
    """A camera whose picture's brightness counts up; 30 pictures a second."""

    kind = "video"

    def __init__(self, width: int = 160, height: int = 120) -> None:
        super().__init__()
        self.size = width, height
        self.sent = 0

    async def recv(self) -> av.VideoFrame:
        await asyncio.sleep(1 / 30)
        frame = picture(40 + self.sent % 160, *self.size)
        frame.pts, frame.time_base = self.sent * 3000, TIME_BASE
        self.sent += 1
        return frame


class GreyMixer:
    """A mixer's encoder: grey pictures whose brightness counts up, keyframes on request."""

    def __init__(self, width: int = 320, height: int = 240, max_payload: int = 300) -> None:
        self._context = _encoder("VP8", width, height)
        self._size = width, height
        self._max_payload = max_payload
        self._wanted = True
        self._count = 0

    def request_keyframe(self) -> None:
        self._wanted = True

    def next_frame(self) -> EncodedFrame:
        frame = picture(40 + self._count % 160, *self._size)
        frame.pts, frame.time_base = self._count * 3000, TIME_BASE
        frame.pict_type = PictureType.I if self._wanted else PictureType.NONE
        self._wanted = False
        (packet,) = self._context.encode(frame)
        data = bytes(packet)
        payloads = vp8.packetise(data, self._count, self._max_payload)
        self._count += 1
        return EncodedFrame(payloads, vp8.is_keyframe(data), (self._count - 1) * 3000)

    async def play(self, push: Callable[[EncodedFrame], None]) -> None:
        """Thirty frames a second until cancelled."""
        while True:
            push(self.next_frame())
            await asyncio.sleep(1 / 30)


class Lossy:
    """A bad link for media datagrams, seeded: loses, repeats and delays a share of them.

    A delayed one is overtaken by those behind it. While ``dark`` nothing passes.
    """

    def __init__(
        self, share: float, seed: int = 1, *, repeated: float = 0.0, delayed: float = 0.0
    ) -> None:
        self._chance = random.Random(seed)
        self._share = share
        self._repeated = repeated
        self._delayed = delayed
        self.dark = False
        self.lost = 0
        self.disturbed = 0

    def carry(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        """Pass one datagram on: not at all, once, twice, or later."""
        if not 128 <= data[0] < 192:
            deliver(data)
            return
        if self.dark or self._chance.random() < self._share:
            self.lost += 1
            return
        if self._chance.random() < self._repeated:
            self.disturbed += 1
            deliver(data)
        if self._chance.random() < self._delayed:
            self.disturbed += 1
            delay_s = self._chance.uniform(0.005, 0.04)
            asyncio.get_running_loop().call_later(delay_s, deliver, data)
        else:
            deliver(data)


class StockCall:
    """Our peer connection answering a stock aiortc client; ``client`` is the client's."""

    def __init__(
        self,
        *,
        video: MediaStreamTrack | None = None,
        audio: MediaStreamTrack | str | None = None,
        codec: str = "VP8",
        host: str = "127.0.0.1",
        ports: str = "any",
        loss_s: float = 8.0,
    ) -> None:
        self.metrics = Metrics()
        self.server = aiortc_seams.new_peer_connection(
            IceConfig(udp_ports=ports), host=host, loss_s=loss_s, metrics=self.metrics
        )
        self.client = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.remote_tracks: dict[str, MediaStreamTrack] = {}
        self.client.on("track", lambda track: self.remote_tracks.update({track.kind: track}))
        if audio is not None:
            self.client.addTransceiver(audio)
        if video is not None:
            transceiver = self.client.addTransceiver(video)
            wanted = {f"video/{codec}".lower(), "video/vp8", "video/rtx"}
            codecs = [
                c
                for c in RTCRtpSender.getCapabilities("video").codecs
                if c.mimeType.lower() in wanted
            ]
            codecs.sort(key=lambda c: c.name.upper() != codec)
            transceiver.setCodecPreferences(codecs)

    async def offer(self) -> None:
        """Until here nothing was answered: attach to the transceivers, then ``answer``."""
        await self.client.setLocalDescription(await self.client.createOffer())
        local = self.client.localDescription
        await self.server.setRemoteDescription(RTCSessionDescription(local.sdp, local.type))
        for transceiver in self.server.getTransceivers():
            transceiver.direction = "sendrecv"

    def receiver(self, kind: str) -> MediaReceiver:
        return next(
            cast(MediaReceiver, t.receiver) for t in self.server.getTransceivers() if t.kind == kind
        )

    def sender(self, kind: str) -> MediaSender:
        return next(
            cast(MediaSender, t.sender) for t in self.server.getTransceivers() if t.kind == kind
        )

    async def answer(self) -> None:
        """Answer, and wait until both are connected."""
        await self.server.setLocalDescription(await self.server.createAnswer())
        local = self.server.localDescription
        await self.client.setRemoteDescription(RTCSessionDescription(local.sdp, local.type))
        await until(
            lambda: self.server.connectionState == self.client.connectionState == "connected"
        )

    def lose(self, up: Lossy | None = None, down: Lossy | None = None) -> None:
        """Put bad links between the two, from the client (up) and to it (down)."""
        ice = cast(Any, self.client.getTransceivers()[0].receiver.transport.transport)
        connection = ice._connection
        received = connection.data_received
        pair = connection._nominated[1]
        address = pair.remote_addr

        def send(data: bytes) -> None:
            if not pair.protocol.transport.is_closing():
                pair.protocol.transport.sendto(data, address)

        async def bad_send(data: bytes) -> None:
            if up is None:
                send(data)
            else:
                up.carry(data, send)

        def bad_received(data: bytes, component: int) -> None:
            if down is None:
                received(data, component)
            else:
                down.carry(data, lambda passed: received(passed, component))

        ice._send = bad_send
        connection.data_received = bad_received

    async def close(self) -> None:
        await self.server.close()
        await self.client.close()


def silence(pts_48k: int) -> EncodedAudio:
    """One 20 ms Opus packet of silence (RFC 6716: CELT, mono, no payload of note)."""
    return EncodedAudio(b"\xf8\xff\xfe", pts_48k)
