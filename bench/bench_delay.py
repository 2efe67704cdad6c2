"""How long a picture and a sound take through the server, and how far apart they come out.

A stock aiortc client sends a flash and a beep at the same moments to the real server, in a process
of its own, over loopback. An audience member notes when the packets that carry them arrive and
decodes them afterwards, so that no receiver's buffer counts. From a frame's leaving its sender to
the arrival of its pixels; lip-sync is taken as a browser takes it, from the sender reports.

Printed, and kept in ``artefacts/delay.json``: ``make bench ARGS=bench/bench_delay.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import time
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiohttp import ClientSession
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.rtp import RtcpPacket, RtcpSrPacket, RtpPacket

from calliope import vp8
from calliope.mixer.opus import OpusDecoder
from tests.e2e.server_process import run_server

FLASHES = int(os.environ.get("CALLIOPE_BENCH_FLASHES", "20"))
SPACING_S = 0.9
FLASH_S = 0.2
WARM_UP_S = 9.0
"""While a stock client builds its encoders its sound stutters; what the mixer's buffer then holds,
it gives back within some seconds."""
FPS = 30
BLOCK = 960
RATE_HZ = 48_000


class _Signal:
    """When it flashes: both tracks ask, so that flash and beep begin together."""

    def __init__(self) -> None:
        self.begin_s = time.monotonic() + WARM_UP_S

    def on(self, now_s: float) -> int | None:
        """The number of the flash that is on at a time, None between two."""
        number, phase = divmod(now_s - self.begin_s, SPACING_S)
        return int(number) if 0 <= number < FLASHES and phase < FLASH_S else None


class _Camera(MediaStreamTrack):
    kind = "video"

    def __init__(self, signal: _Signal) -> None:
        super().__init__()
        self._signal = signal
        self._start_s = time.monotonic()
        self._count = 0
        self.left_s: dict[int, float] = {}
        noise = np.random.default_rng(1).integers(-6, 7, (180, 320))
        self._dark = (60 + noise).astype(np.uint8)
        self._light = (200 + noise).astype(np.uint8)

    async def recv(self) -> av.VideoFrame:
        due_s = self._start_s + self._count / FPS
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        number = self._signal.on(time.monotonic())
        picture = np.full((270, 320), 128, np.uint8)
        picture[:180] = self._dark if number is None else self._light
        frame = av.VideoFrame.from_ndarray(picture, "yuv420p")
        frame.pts, frame.time_base = self._count * 90_000 // FPS, Fraction(1, 90_000)
        self._count += 1
        if number is not None:
            self.left_s.setdefault(number, time.monotonic())
        return frame


class _Microphone(MediaStreamTrack):
    kind = "audio"

    def __init__(self, signal: _Signal) -> None:
        super().__init__()
        self._signal = signal
        self._start_s = time.monotonic()
        self._count = 0
        self.left_s: dict[int, float] = {}
        time_s = np.arange(BLOCK) / RATE_HZ
        self._tone = (8000 * np.sin(2 * np.pi * 1000 * time_s)).astype(np.int16)

    async def recv(self) -> av.AudioFrame:
        self._count += 1
        await asyncio.sleep(max(0.0, self._start_s + self._count * 0.02 - time.monotonic()))
        number = self._signal.on(time.monotonic())
        block = np.zeros(BLOCK, np.int16) if number is None else self._tone
        frame = av.AudioFrame.from_ndarray(block[None, :], "s16", "mono")
        frame.sample_rate, frame.pts = RATE_HZ, (self._count - 1) * BLOCK
        frame.time_base = Fraction(1, RATE_HZ)
        if number is not None:
            self.left_s.setdefault(number, time.monotonic())
        return frame


class _Listener:
    """Notes what arrives at one receiver: packets with their time, and the last sender report."""

    def __init__(self, receiver: Any) -> None:
        self.packets: list[tuple[float, RtpPacket]] = []
        self.reports: list[tuple[float, int]] = []
        take_rtp, take_rtcp = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

        async def rtp(packet: RtpPacket, arrival_time_ms: int) -> None:
            self.packets.append((time.monotonic(), packet))
            await take_rtp(packet, arrival_time_ms)

        async def rtcp(packet: RtcpPacket) -> None:
            if isinstance(packet, RtcpSrPacket):
                info = packet.sender_info
                self.reports.append((info.ntp_timestamp / 2**32, info.rtp_timestamp))
            await take_rtcp(packet)

        receiver._handle_rtp_packet, receiver._handle_rtcp_packet = rtp, rtcp

    def ntp_s(self, timestamp: int, clock_hz: int) -> float:
        """When the sender says that this timestamp was (its last report decides)."""
        ntp_s, reported = self.reports[-1]
        behind = (timestamp - reported + 2**31) % 2**32 - 2**31
        return ntp_s + behind / clock_hz


async def _connect(http: ClientSession, url: str, pc: RTCPeerConnection) -> None:
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"Content-Type": "application/sdp"}
    async with http.post(url, data=pc.localDescription.sdp, headers=headers) as answer:
        assert answer.status == 201, await answer.text()
        await pc.setRemoteDescription(RTCSessionDescription(await answer.text(), "answer"))


@contextlib.asynccontextmanager
async def _peer() -> AsyncIterator[RTCPeerConnection]:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    try:
        yield pc
    finally:
        await pc.close()


def _flashes(listener: _Listener) -> dict[int, tuple[float, int]]:
    """Number of each flash -> when the frame that shows it first had arrived, its timestamp."""
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames: dict[int, list[tuple[float, RtpPacket]]] = {}
    media_ssrc = listener.packets[0][1].ssrc if listener.packets else None
    for arrived_s, packet in listener.packets:
        if packet.ssrc == media_ssrc:  # not what is sent again, be it to probe the link
            frames.setdefault(packet.timestamp, []).append((arrived_s, packet))
    found: list[tuple[float, int]] = []
    was_light = True
    for timestamp, packets in frames.items():
        parts = sorted(packets, key=lambda item: (item[1].sequence_number + 2**15) % 2**16)
        data = b"".join(vp8.parse_payload(p.payload).data for _, p in parts if p.payload)
        for picture in decoder.decode(av.Packet(data)):
            luma = picture.to_ndarray()[: picture.height]
            light = float(luma[::8, ::8].mean()) > 120
            if light and not was_light:
                found.append((max(arrived_s for arrived_s, _ in packets), timestamp))
            was_light = light
    return dict(enumerate(found))


def _beeps(listener: _Listener) -> dict[int, tuple[float, int]]:
    """Number of each beep -> when the packet that begins it had arrived, its timestamp."""
    decoder = OpusDecoder()
    pcm = np.zeros(5760, np.int16)
    found: list[tuple[float, int]] = []
    last = -(10**9)
    for arrived_s, packet in listener.packets:
        if not packet.payload:
            continue
        made = decoder.decode(packet.payload, pcm)
        loud = int(np.abs(pcm[:made]).max()) > 1500
        if loud and packet.timestamp - last > RATE_HZ * 0.4:
            found.append((arrived_s, packet.timestamp))
        if loud:
            last = packet.timestamp
    return dict(enumerate(found))


async def measure() -> dict[str, list[float]]:
    """Delays and distances of every flash and beep, in milliseconds."""
    async with (
        run_server() as server,
        ClientSession() as http,
        _peer() as sender,
        _peer() as viewer,
    ):
        sessions = f"{server.url}/api/rooms/delay/sessions"
        signal = _Signal()
        camera, microphone = _Camera(signal), _Microphone(signal)
        sender.addTransceiver(microphone, "sendonly")
        sender.addTransceiver(camera, "sendonly")
        await _connect(http, f"{sessions}?name=Flash", sender)
        viewer.addTransceiver("audio", "recvonly")
        viewer.addTransceiver("video", "recvonly")
        sound, picture = (_Listener(t.receiver) for t in viewer.getTransceivers())
        await _connect(http, f"{sessions}?name=Eye", viewer)
        await asyncio.sleep(signal.begin_s + FLASHES * SPACING_S + 1.0 - time.monotonic())
        flashes, beeps = _flashes(picture), _beeps(sound)
        assert len(flashes) == FLASHES, f"{len(flashes)} of {FLASHES} flashes were seen"
        assert len(beeps) == FLASHES, f"{len(beeps)} of {FLASHES} beeps were heard"
        return {
            "picture_ms": [1000 * (flashes[n][0] - camera.left_s[n]) for n in range(FLASHES)],
            "sound_ms": [1000 * (beeps[n][0] - microphone.left_s[n]) for n in range(FLASHES)],
            "lip_sync_ms": [
                1000
                * (
                    (picture.ntp_s(flashes[n][1], 90_000) - camera.left_s[n])
                    - (sound.ntp_s(beeps[n][1], RATE_HZ) - microphone.left_s[n])
                )
                for n in range(FLASHES)
            ],
        }


def _quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def test_delay() -> None:
    """Goals: picture p50 50 ms, p95 80 ms; sound p95 80 ms; lip-sync within 40 ms."""
    found = asyncio.run(measure())
    print()
    for name, values in found.items():
        spread = [abs(value) for value in values] if name == "lip_sync_ms" else values
        print(
            f"{name:12} p50 {statistics.median(values):6.1f}  p95 {_quantile(spread, 0.95):6.1f}  "
            f"least {min(values):6.1f}  most {max(values):6.1f}"
        )
    Path("artefacts").mkdir(exist_ok=True)
    Path("artefacts/delay.json").write_text(json.dumps(found, indent=1))
