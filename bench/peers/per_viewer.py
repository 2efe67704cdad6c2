"""The usual video-conference server of aiohttp, aiortc and OpenCV: everything once per viewer.

Each viewer's track composes everybody's newest picture (BGR, names by ``putText``) and aiortc
encodes it for that viewer alone; so with the sound. Signalling is Calliope's, so that the same
clients can call it: ``python -m bench.peers.per_viewer --port 8060``. The encoder has Calliope's
settings, so that the codec is no part of the difference.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import time
import uuid
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import aiortc.codecs
import av
import cv2
import numpy as np
import numpy.typing as npt
from aiohttp import web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamError

from calliope import vp8
from calliope.mixer.canvas import Canvas
from calliope.mixer.encoder import Rendition, VideoEncoder

WIDTH, HEIGHT, FPS, KBPS = 1280, 720, 30, 1200
RATE_HZ, BLOCK = 48_000, 960
Picture = npt.NDArray[np.uint8]


@dataclass(eq=False)
class Participant:
    """Who is in the room: the newest picture and the newest sound."""

    name: str
    pc: RTCPeerConnection
    picture: Picture | None = None
    sound: npt.NDArray[np.int16] = field(default_factory=lambda: np.zeros(BLOCK, np.int16))
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


class Composition(MediaStreamTrack):
    """What one viewer sees."""

    kind = "video"

    def __init__(self, room: dict[str, Participant]) -> None:
        super().__init__()
        self._room = room
        self._start_s = time.monotonic()
        self._count = -1

    async def recv(self) -> av.VideoFrame:
        now = (time.monotonic() - self._start_s) * FPS
        self._count = max(self._count + 1, math.floor(now))
        await asyncio.sleep(self._start_s + self._count / FPS - time.monotonic())
        frame = av.VideoFrame.from_ndarray(self._compose(), "bgr24")
        frame.pts, frame.time_base = self._count * 90_000 // FPS, Fraction(1, 90_000)
        return frame

    def _compose(self) -> Picture:
        canvas = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        people = list(self._room.values())
        columns = math.ceil(math.sqrt(len(people)))
        w, h = WIDTH // columns, WIDTH // columns * 9 // 16
        for index, person in enumerate(people):
            if person.picture is None:
                continue
            row, column = divmod(index, columns)
            tile = cv2.resize(person.picture, (w, h))
            cv2.putText(
                tile, person.name, (8, h - 10), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (255, 255, 255), 2
            )
            canvas[row * h : row * h + h, column * w : column * w + w] = tile
        return canvas


class Mix(MediaStreamTrack):
    """What one viewer hears: all the others."""

    kind = "audio"

    def __init__(self, room: dict[str, Participant], own: Participant | None) -> None:
        super().__init__()
        self._room = room
        self._own = own
        self._start_s = time.monotonic()
        self._count = -1

    async def recv(self) -> av.AudioFrame:
        now = (time.monotonic() - self._start_s) * RATE_HZ / BLOCK
        self._count = max(self._count + 1, math.floor(now))
        await asyncio.sleep(self._start_s + self._count * BLOCK / RATE_HZ - time.monotonic())
        total = np.zeros(BLOCK, np.int32)
        for person in self._room.values():
            if person is not self._own:
                total += person.sound
        block = np.clip(total, -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(block[None, :], "s16", "mono")
        frame.sample_rate, frame.pts = RATE_HZ, self._count * BLOCK
        frame.time_base = Fraction(1, RATE_HZ)
        return frame


class SameSettings(Vp8Encoder):
    """aiortc's encoder, but libvpx set up as Calliope does it."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = VideoEncoder(Rendition("720p", WIDTH, HEIGHT, KBPS), FPS)
        self._canvas = Canvas(WIDTH, HEIGHT)

    def encode(self, frame: Any, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        np.copyto(self._canvas.buffer, frame.reformat(format="yuv420p").to_ndarray())
        if force_keyframe:
            self._encoder.request_keyframe()
        made = self._encoder.encode(self._canvas, frame.pts)
        payloads = made.payloads if made is not None else ()
        data = b"".join(vp8.parse_payload(payload).data for payload in payloads)
        packets = self._packetize(data, self.picture_id)
        self.picture_id = (self.picture_id + 1) % (1 << 15)
        return packets, frame.pts


class Server:
    """One room, without anything that is not needed to measure."""

    def __init__(self) -> None:
        self._room: dict[str, Participant] = {}

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_post("/api/rooms/{room}/sessions", self._post)
        app.router.add_delete("/api/rooms/{room}/sessions/{id}", self._delete)
        app.on_shutdown.append(self._close)
        return app

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _post(self, request: web.Request) -> web.Response:
        offer = await request.text()
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        person = Participant(request.query.get("name", "Guest"), pc)
        id = uuid.uuid4().hex
        sends = "a=sendrecv" in offer
        if sends:
            self._room[id] = person

        @pc.on("track")
        def take(track: MediaStreamTrack) -> None:
            watch = self._watch if track.kind == "video" else self._hear
            person.tasks.append(asyncio.create_task(watch(person, track)))

        @pc.on("connectionstatechange")
        async def follow() -> None:
            if pc.connectionState in ("failed", "closed"):
                await self._leave(id)

        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for transceiver in pc.getTransceivers():
            track = (
                Composition(self._room)
                if transceiver.kind == "video"
                else Mix(self._room, person if sends else None)
            )
            transceiver.sender.replaceTrack(track)
            transceiver.direction = "sendrecv" if sends else "sendonly"
        await pc.setLocalDescription(await pc.createAnswer())
        return web.Response(
            status=201,
            text=pc.localDescription.sdp,
            content_type="application/sdp",
            headers={"Location": f"{request.path}/{id}"},
        )

    async def _watch(self, person: Participant, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame: Any = await track.recv()
                person.picture = frame.to_ndarray(format="bgr24")

    async def _hear(self, person: Participant, track: MediaStreamTrack) -> None:
        resampler = av.AudioResampler("s16", "mono", RATE_HZ)
        with contextlib.suppress(MediaStreamError):
            while True:
                heard: Any = await track.recv()
                for frame in resampler.resample(heard):
                    block = frame.to_ndarray().ravel()
                    if len(block) == BLOCK:
                        person.sound = block.astype(np.int16)

    async def _delete(self, request: web.Request) -> web.Response:
        await self._leave(request.match_info["id"])
        return web.Response()

    async def _leave(self, id: str) -> None:
        person = self._room.pop(id, None)
        if person is not None:
            for task in person.tasks:
                task.cancel()
            await person.pc.close()

    async def _close(self, _app: web.Application) -> None:
        for id in list(self._room):
            await self._leave(id)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8060)
    args = parser.parse_args()
    create = aiortc.codecs.get_encoder

    def get_encoder(codec: Any) -> Any:
        return SameSettings() if codec.mimeType.lower() == "video/vp8" else create(codec)

    vars(aiortc.rtcrtpsender)["get_encoder"] = get_encoder
    web.run_app(Server().app(), host=args.host, port=args.port, print=None, shutdown_timeout=1.0)


if __name__ == "__main__":
    main()
