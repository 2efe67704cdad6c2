"""A caller that is no browser: a stock aiortc client of a real server, for stories from outside."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiohttp import ClientSession, ClientTimeout
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)

Colour = tuple[int, int, int]
"""Y, U and V of a flat picture."""

RATE_HZ = 48_000
BLOCK = 960
SDP = {"Content-Type": "application/sdp"}


async def until(condition: Callable[[], bool], *, timeout_s: float = 40.0) -> None:
    """Let the loop run until it holds; AssertionError when that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold in time"
        await asyncio.sleep(0.02)


class _Paced(MediaStreamTrack):
    """Frames at a fixed rate; who is late does not catch up in a burst."""

    def __init__(self, rate_hz: float) -> None:
        super().__init__()
        self._spacing_s = 1 / rate_hz
        self._due_s = time.monotonic()
        self.count = 0

    async def _wait(self) -> int:
        now_s = time.monotonic()
        self._due_s = max(self._due_s + self._spacing_s, now_s - self._spacing_s)
        await asyncio.sleep(max(0.0, self._due_s - now_s))
        self.count += 1
        return self.count - 1


class Camera(_Paced):
    """One colour, 15 pictures a second."""

    kind = "video"

    def __init__(self, colour: Colour, size: tuple[int, int] = (320, 180)) -> None:
        super().__init__(15)
        self._frame = av.VideoFrame(*size, "yuv420p")
        for plane, value in zip(self._frame.planes, colour, strict=True):
            plane.update(bytes([value]) * plane.buffer_size)

    async def recv(self) -> av.VideoFrame:
        self._frame.pts = await self._wait() * 6000
        self._frame.time_base = fractions.Fraction(1, 90_000)
        return self._frame


class Microphone(_Paced):
    """A tone."""

    kind = "audio"

    def __init__(self, pitch_hz: float) -> None:
        super().__init__(RATE_HZ / BLOCK)
        self._pitch_hz = pitch_hz

    async def recv(self) -> av.AudioFrame:
        start = await self._wait() * BLOCK
        time_s = (start + np.arange(BLOCK)) / RATE_HZ
        samples = (np.sin(2 * np.pi * self._pitch_hz * time_s) * 9000).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, start
        frame.time_base = fractions.Fraction(1, RATE_HZ)
        return frame


class Visitor:
    """One session. Without a camera and a microphone it only receives: an audience member.

    Without ``media`` it has nothing but the data channel.
    """

    def __init__(
        self,
        *,
        camera: MediaStreamTrack | None = None,
        microphone: MediaStreamTrack | None = None,
        media: bool = True,
    ) -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.messages: list[dict[str, Any]] = []
        self.frame: av.VideoFrame | None = None
        self.frames = 0
        self.sound: list[npt.NDArray[np.int16]] = []
        self.location = ""
        self._readers: set[asyncio.Task[None]] = set()
        sends = camera is not None or microphone is not None
        for kind, track in (("audio", microphone), ("video", camera)) if media else ():
            direction = "sendrecv" if sends else "recvonly"
            self.pc.addTransceiver(track or kind, direction)
        self.pc.on("track", self._follow)
        self.channel = self.pc.createDataChannel("calliope")
        self.channel.on("message", lambda text: self.messages.append(json.loads(text)))

    def _follow(self, track: MediaStreamTrack) -> None:
        self._readers.add(asyncio.ensure_future(self._read(track)))

    async def _read(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(Exception):  # aiortc ends a track by raising
            while True:
                frame = await track.recv()
                if isinstance(frame, av.VideoFrame):
                    self.frame = frame
                    self.frames += 1
                elif isinstance(frame, av.AudioFrame):
                    self.sound.append(frame.to_ndarray().reshape(-1)[::2].astype(np.int16))
                    del self.sound[:-50]

    async def call(
        self,
        http: ClientSession,
        url: str,
        name: str = "",
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Visitor:
        """Join the room whose page is ``url`` and wait for the channel's ``welcome``."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        base, _, room = url.rpartition("/")
        async with http.post(
            f"{base}/api/rooms/{room}/sessions",
            params={**({"name": name} if name else {}), **(query or {})},
            data=self.pc.localDescription.sdp,
            headers={**SDP, **(headers or {})},
        ) as response:
            answer = await response.text()
            assert response.status == 201, answer
            self.location = base + response.headers["Location"]
        await self.pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        await until(lambda: self.last("welcome") is not None)
        return self

    @property
    def secret(self) -> str:
        return self.location.rpartition("/")[2]

    @property
    def you(self) -> str:
        welcome = self.last("welcome")
        assert welcome is not None
        return str(welcome["you"])

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The messages of one type, oldest first."""
        return [message for message in self.messages if message["type"] == kind]

    def last(self, kind: str) -> dict[str, Any] | None:
        found = self.all(kind)
        return found[-1] if found else None

    def send(self, message: Mapping[str, object] | str) -> None:
        self.channel.send(message if isinstance(message, str) else json.dumps(message))

    def layout(self) -> dict[str, Any] | None:
        """The layout announced last."""
        welcome = self.last("welcome")
        return self.last("layout") or (welcome and welcome["layout"])

    def names(self) -> dict[str, str]:
        """Who is in the call, as the messages tell it: id -> name."""
        found: dict[str, str] = {}
        for message in self.messages:
            for person in message.get("participants", [message.get("participant")]):
                if person is not None:
                    found[person["id"]] = person["name"]
            if message["type"] == "left":
                found.pop(message["id"], None)
        return found

    async def meets(self, *names: str) -> None:
        """Wait until exactly these are in the call, and each has a tile."""

        def together() -> bool:
            known, layout = self.names(), self.layout()
            tiles = {tile["id"] for tile in layout["tiles"]} if layout else set()
            return sorted(known.values()) == sorted(names) and tiles == set(known)

        await until(together)

    def colour_of(self, name: str) -> Colour | None:
        """The colour in the middle of this person's tile in the newest picture, if it has one."""
        layout, frame = self.layout(), self.frame
        ids = [id for id, known in self.names().items() if known == name]
        if layout is None or frame is None or not ids:
            return None
        tile = next((tile for tile in layout["tiles"] if tile["id"] == ids[0]), None)
        if tile is None:
            return None
        scale = frame.width / layout["canvas"][0]
        x, y = (tile["x"] + tile["w"] / 2) * scale, (tile["y"] + tile["h"] / 3) * scale
        planes = [
            np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
            for plane in frame.planes
        ]
        return (
            int(planes[0][int(y), int(x)]),
            int(planes[1][int(y) // 2, int(x) // 2]),
            int(planes[2][int(y) // 2, int(x) // 2]),
        )

    def sees(self, name: str, colour: Colour) -> bool:
        """Whether this person's tile has this colour."""
        seen = self.colour_of(name)
        return seen is not None and max(abs(a - b) for a, b in zip(seen, colour, strict=True)) < 16

    def hears(self, pitch_hz: float) -> bool:
        """Whether the last second of sound is mostly a tone of this pitch."""
        if len(self.sound) < 50:
            return False
        sound = np.concatenate(self.sound).astype(float)
        spectrum = np.abs(np.fft.rfft(sound * np.hanning(sound.size)))
        pitch = np.fft.rfftfreq(sound.size, 1 / RATE_HZ)[int(spectrum.argmax())]
        return bool(abs(pitch - pitch_hz) < 5 and np.abs(sound).max() > 500)

    async def close(self) -> None:
        """Say goodbye (DTLS close_notify)."""
        await self.pc.close()
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)


@contextlib.asynccontextmanager
async def visitors() -> AsyncIterator[tuple[ClientSession, list[Visitor]]]:
    """An HTTP client, and a list whose visitors are closed at the end."""
    present: list[Visitor] = []
    async with ClientSession(timeout=ClientTimeout(total=60)) as http:
        try:
            yield http, present
        finally:
            await asyncio.gather(*(visitor.close() for visitor in present))
