"""A server's HTTP side over fake or real rooms, and clients that call it with stock aiortc."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)

from calliope.clock import SystemClock
from calliope.config import Config
from calliope.errors import ClientError
from calliope.media import AudioPacket, VideoFeed
from calliope.member import JoinRequest, Outlet
from calliope.metrics import Metrics
from calliope.rooms import Rooms
from calliope.transport.http import build_web_app
from calliope.transport.ice import IceServers
from calliope.transport.probe import Prober
from calliope.transport.session import Sessions

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def until(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Let the loop run until it holds; TimeoutError if it does not in time."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


@dataclass
class FakeMember:
    """Writes down what the session tells the room."""

    request: JoinRequest
    outlet: Outlet
    id: str = "p1"
    events: list[str] = field(default_factory=list)
    received: list[str | bytes] = field(default_factory=list)
    heard: list[AudioPacket] = field(default_factory=list)
    feed: VideoFeed | None = None
    keyframe_requests: int = 0

    @property
    def audio(self) -> FakeMember:
        return self

    def push(self, packet: AudioPacket) -> None:
        self.heard.append(packet)

    def connected(self) -> None:
        self.events.append("connected")

    def set_video(self, feed: VideoFeed | None) -> None:
        self.feed = feed
        self.events.append("video")

    def channel_opened(self) -> None:
        self.events.append("opened")

    def receive(self, text: str | bytes) -> None:
        self.received.append(text)

    def channel_closed(self) -> None:
        self.events.append("closed")

    def request_keyframe(self) -> None:
        self.keyframe_requests += 1

    def leave(self, *, lost: bool) -> None:
        if not self.left:
            self.events.append("lost" if lost else "left")

    @property
    def left(self) -> bool:
        return bool({"lost", "left"} & set(self.events))


class FakeRooms:
    """Seats everybody, or raises ``refusal``."""

    def __init__(self) -> None:
        self.draining = False
        self.refusal: ClientError | None = None
        self.members: list[FakeMember] = []

    def join(self, request: JoinRequest, outlet: Outlet) -> FakeMember:
        if self.refusal is not None:
            raise self.refusal
        member = FakeMember(request, outlet)
        self.members.append(member)
        return member

    @property
    def last(self) -> FakeMember:
        return self.members[-1]


@dataclass
class House:
    """One server's HTTP side, with a client of its own."""

    http: TestClient[Any, Any]
    sessions: Sessions
    metrics: Metrics

    async def post(
        self, offer: str, room: str = "demo", query: str = "", **headers: str
    ) -> ClientResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = await self.http.post(
            f"/api/rooms/{room}/sessions{query}", data=offer, headers={**SDP, **named}
        )
        await response.read()
        return response


@asynccontextmanager
async def house(
    static: Path, rooms: FakeRooms | Rooms | None = None, config: Config | None = None
) -> AsyncIterator[House]:
    """A server over ``rooms``; at the end all its sessions are closed."""
    config = config or Config()
    clock, metrics = SystemClock(), Metrics()
    sessions = Sessions(cast(Rooms, rooms or FakeRooms()), config, clock, metrics)
    (static / "index.html").write_text("<!doctype html><title>Calliope</title>")
    prober = Prober(lambda: "http://127.0.0.1:9", clock, metrics)
    app = build_web_app(sessions, IceServers(config.ice, clock), prober, config, metrics, static)
    async with TestClient(TestServer(app)) as http:
        yield House(http, sessions, metrics)
        await prober.close()
        await sessions.close()
    if isinstance(rooms, FakeRooms):
        rooms.members.clear()  # aiohttp caches handlers for ever, and with them all they hold


class Caller:
    """A client as a browser is one: offers, connects, has the control channel."""

    def __init__(self, *, audio: str | None = "sendrecv", video: str | None = "sendrecv") -> None:
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.messages: list[str] = []
        self.location = ""
        self.answer = ""
        for kind, direction in (("audio", audio), ("video", video)):
            if direction is not None:
                self.pc.addTransceiver(kind, direction)
        self.channel: RTCDataChannel = self.pc.createDataChannel("calliope")
        self.channel.on("message", self.messages.append)

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def call(
        self,
        house: House,
        edit: Callable[[str], str] = lambda sdp: sdp,
        room: str = "demo",
        query: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Caller:
        """POST the offer, as changed by ``edit``, and take the answer."""
        offer = edit(await self.offer())
        response = await house.post(offer, room=room, query=query, **(headers or {}))
        self.answer = await response.text()
        assert response.status == 201, self.answer
        self.location = response.headers["Location"]
        await self.pc.setRemoteDescription(RTCSessionDescription(self.answer, "answer"))
        return self

    @property
    def secret(self) -> str:
        return self.location.rpartition("/")[2]

    @property
    def is_open(self) -> bool:
        return self.channel.readyState == "open"

    def vanish(self) -> None:
        """Stop sending, without a word: the battery is empty."""
        for transport in self._ice_transports():
            connection = transport._connection
            for protocol in connection._protocols:
                protocol.datagram_received = lambda *_: None
                protocol.transport.sendto = lambda *_: None

    def _ice_transports(self) -> set[Any]:
        found = {t.receiver.transport.transport for t in self.pc.getTransceivers()}
        if self.pc.sctp is not None:
            found.add(self.pc.sctp.transport.transport)
        return found

    async def close(self) -> None:
        await self.pc.close()


def without_candidates(offer: str) -> str:
    """The offer as a browser that does not wait for its candidates sends it."""
    return re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", offer)
