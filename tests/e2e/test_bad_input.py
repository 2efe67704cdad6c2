"""Bad input, at a real server with a call going on: a clear answer, and the call never notices."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest
import pytest_asyncio
from aiohttp import ClientSession
from aiortc import MediaStreamTrack

from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.visitor import SDP, Camera, Visitor, until, visitors
from tests.transport.media_peers import encode
from tests.transport.offers import offer

pytestmark = pytest.mark.asyncio(loop_scope="module")

PENDING, CONNECT_S = 24, 5
OPTIONS = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600"),
    *("--limits-pending", str(PENDING), "--limits-connect-s", str(CONNECT_S)),
)
GREEN, BLUE = (120, 60, 70), (90, 170, 100)


@dataclass
class Call:
    """Two people in a room, in peace."""

    server: ServerProcess
    http: ClientSession
    ada: Visitor
    grace: Visitor

    @property
    def api(self) -> str:
        return f"{self.server.url}/api/rooms/demo/sessions"

    async def metric(self, sample: str) -> float:
        """One sample of /metrics; 0 if it was never counted."""
        async with self.http.get(f"{self.server.url}/metrics") as response:
            text = await response.text()
        found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def comes_to(self, sample: str, holds: Callable[[float], bool]) -> None:
        """Wait until a sample of /metrics is so."""
        async with asyncio.timeout(40):
            while not holds(await self.metric(sample)):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    def media_sockets(self) -> int:
        """UDP sockets of the server; those of HTTP come and go with this test's client."""
        process = Path(f"/proc/{self.server.pid}")
        tables = [(process / "net" / name).read_text() for name in ("udp", "udp6")]
        lines = [line.split() for table in tables for line in table.splitlines()[1:]]
        udp = {f"socket:[{line[9]}]" for line in lines}
        links = []
        for name in os.listdir(process / "fd"):
            with contextlib.suppress(FileNotFoundError):
                links.append(os.readlink(process / "fd" / name))
        return sum(link in udp for link in links)

    def peak_memory_mb(self) -> float:
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1000

    @contextlib.asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[None]:
        """What happens in the block leaves the two in the call, and their pictures flowing."""
        before = [len(visitor.all("left")) for visitor in (self.ada, self.grace)]
        yield
        for visitor, other, colour in (
            (self.ada, "Grace", BLUE),
            (self.grace, "Ada", GREEN),
        ):
            seen = visitor.frames
            await until(lambda v=visitor, n=seen: v.frames > n + 5)  # type: ignore[misc]
            await until(lambda v=visitor, o=other, c=colour: v.sees(o, c))  # type: ignore[misc]
            assert {"Ada", "Grace"} <= set(visitor.names().values())
        gone = [
            message["id"] for v in (self.ada, self.grace) for message in v.all("left")[before[0] :]
        ]
        assert {self.ada.you, self.grace.you}.isdisjoint(gone)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def call() -> AsyncIterator[Call]:
    async with run_server(*OPTIONS) as server, visitors() as (http, present):
        ada, grace = Visitor(camera=Camera(GREEN)), Visitor(camera=Camera(BLUE))
        present += [ada, grace]
        await ada.call(http, f"{server.url}/demo", "Ada")
        await grace.call(http, f"{server.url}/demo", "Grace")
        await until(lambda: ada.sees("Grace", BLUE) and grace.sees("Ada", GREEN))
        yield Call(server, http, ada, grace)
        assert not [line for line in server.output if "Traceback" in line], server.output


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status", "code"),
    [
        ("POST", "", "hello", SDP, 400, "bad_offer"),
        ("POST", "", "v=0\r\nm=video 9 what\r\n", SDP, 400, "bad_offer"),
        ("POST", "", b"v=0\xff\xfe", SDP, 400, "bad_offer"),
        ("POST", "", offer(), {"Content-Type": "text/plain"}, 415, "wrong_type"),
        ("POST", f"?name={'x' * 65}", offer(), SDP, 400, "bad_name"),
        ("POST", "?name=%E2%80%AEevil", offer(), SDP, 400, "bad_name"),
        ("POST", "?source=moon", offer(), SDP, 400, "bad_request"),
        ("POST", "", b"v=0\r\n" + b"x" * 10_000_000, SDP, 413, "too_large"),
        ("DELETE", "/no-such-session", None, {}, 404, "not_found"),
        (
            *("PATCH", "/no-such-session", "a=mid:0\r\n"),
            *({"Content-Type": "application/trickle-ice-sdpfrag"}, 404, "not_found"),
        ),
    ],
)
async def test_a_bad_request_gets_its_problem_and_changes_nothing(
    call: Call,
    method: str,
    path: str,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    async with (
        call.undisturbed(),
        call.http.request(method, call.api + path, data=body, headers=headers) as response,
    ):
        assert response.content_type == "application/problem+json"
        problem = await response.json()
        assert (response.status, problem["code"]) == (status, code)
        assert len(problem["detail"]) > 10


@pytest.mark.parametrize("room", ["api", "metrics", "no%20room", "x" * 65, "%2e%2e"])
async def test_what_is_no_room_cannot_be_joined(call: Call, room: str) -> None:
    url = f"{call.server.url}/api/rooms/{room}/sessions"
    async with call.http.post(url, data=offer(), headers=SDP) as response:
        assert response.status in (400, 404)


async def test_nobody_ends_a_session_by_its_public_id_or_through_another_room(call: Call) -> None:
    async with call.undisturbed():
        elsewhere = call.ada.location.replace("/demo/", "/other/")
        for location in (f"{call.api}/{call.ada.you}", elsewhere):
            async with call.http.delete(location) as response:
                assert response.status == 404


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("hello", "bad_message"),
        ("[1, 2]", "bad_message"),
        ('{"type": 7}', "bad_message"),
        ("[" * 50_000, "bad_message"),
        ('{"type": "chat", "text": ""}', "bad_message"),
        ('{"type": "chat", "text": "' + "x" * 1001 + '"}', "bad_message"),
        ('{"type": "state", "muted": "yes"}', "bad_message"),
        ('{"type": "volume", "id": "p1", "gain": NaN}', "bad_message"),
        ('{"type": "volume", "id": "nobody", "gain": 1}', "not_found"),
        ('{"type": "chat", "text": "' + "x" * 61_440 + '"}', "too_large"),
    ],
)
async def test_a_bad_message_is_answered_and_changes_nothing(
    call: Call, text: str, code: str
) -> None:
    said, errors = len(call.grace.all("chat")), len(call.ada.all("error"))
    people = call.grace.names()
    async with call.undisturbed():
        call.ada.send(text)
        await until(lambda: len(call.ada.all("error")) > errors)
    error = call.ada.last("error")
    assert error is not None
    assert error["code"] == code
    assert error["reason"].endswith(".")
    assert len(call.grace.all("chat")) == said
    assert call.grace.names() == people
    assert len(call.grace.all("error")) == 0


async def test_an_unknown_message_is_ignored(call: Call) -> None:
    errors = len(call.ada.all("error"))
    call.ada.send('{"type": "hologram", "depth": 3}')
    call.ada.send('{"type": "chat", "text": "after it", "colour": "red"}')
    await until(lambda: (call.grace.last("chat") or {}).get("text") == "after it")
    assert len(call.ada.all("error")) == errors


class Monster(MediaStreamTrack):
    """A camera whose every picture is a VP8 keyframe that claims 16383x16383 pixels."""

    kind = "video"

    def __init__(self) -> None:
        super().__init__()
        keyframe = bytearray(encode("VP8", [128])[0])
        assert keyframe[3:6] == b"\x9d\x01\x2a"  # RFC 6386 section 9.1; then width and height
        keyframe[6:10] = (16383).to_bytes(2, "little") * 2
        self._keyframe = bytes(keyframe)
        self._count = 0

    async def recv(self) -> av.Packet[Any]:
        await asyncio.sleep(0.1)
        packet = av.Packet(self._keyframe)
        packet.pts, packet.time_base = self._count * 9000, fractions.Fraction(1, 90_000)
        self._count += 1
        return packet


async def test_a_keyframe_of_16383_by_16383_is_refused_before_it_costs_anything(call: Call) -> None:
    sample = 'calliope_drops_total{queue="decoder",why="broken"}'
    before, memory_mb = await call.metric(sample), call.peak_memory_mb()
    async with call.undisturbed(), visitors() as (http, present):
        mallory = Visitor(camera=Monster())
        present.append(mallory)
        await mallory.call(http, f"{call.server.url}/demo", "Mallory")
        await call.comes_to(sample, lambda value: value >= before + 5)
        await call.ada.meets("Ada", "Grace", "Mallory")
        assert call.ada.sees("Grace", BLUE)
    await call.ada.meets("Ada", "Grace")
    # one such picture takes 400 MB
    assert call.peak_memory_mb() < memory_mb + 100


async def test_five_hundred_offers_that_never_connect_are_capped_and_freed(call: Call) -> None:
    sockets = call.media_sockets()
    assert sockets >= 2  # those of Ada and Grace
    refused: list[int] = []
    statuses: list[int] = []

    async def knock(http: ClientSession, number: int) -> None:
        url = f"{call.server.url}/api/rooms/flood{number % 7}/sessions"
        async with http.post(url, data=offer(), headers=SDP) as response:
            statuses.append(response.status)
            if response.status == 429:
                assert (await response.json())["code"] == "too_many"
                refused.append(int(response.headers["Retry-After"]))

    async with call.undisturbed():
        async with ClientSession() as http:
            for first in range(0, 500, 20):
                await asyncio.gather(*(knock(http, number) for number in range(first, first + 20)))
        assert set(statuses) == {201, 429}
        assert len(refused) > 100
        assert min(refused) > 0
        # each is freed, with its sockets and its room, and others can come again
        await call.comes_to("calliope_rooms", lambda value: value == 1)
        await until(lambda: call.media_sockets() <= sockets)
        async with visitors() as (http, present):
            late = Visitor()
            present.append(late)
            await late.call(http, f"{call.server.url}/demo", "Late")
    dropped = await call.metric('calliope_drops_total{queue="pending",why="timeout"}')
    assert dropped == statuses.count(201)


async def test_a_flood_of_chat_is_throttled(call: Call) -> None:
    async with call.undisturbed(), visitors() as (http, present):
        flooder = Visitor()
        present.append(flooder)
        await flooder.call(http, f"{call.server.url}/demo", "Flooder")
        for number in range(200):
            flooder.send({"type": "chat", "text": f"spam {number}"})
        await until(lambda: (flooder.last("error") or {}).get("code") == "too_many")
        call.ada.send({"type": "chat", "text": "enough"})
        await until(lambda: (call.grace.last("chat") or {}).get("text") == "enough")
        spam = [chat for chat in call.grace.all("chat") if chat["from"] == flooder.you]
        assert 1 <= len(spam) < 60


async def ignore(_: object) -> None:
    """Takes a chunk of data and does not acknowledge it."""


async def test_a_channel_that_is_never_read_ends_its_session_and_no_other(call: Call) -> None:
    """Data is all they have; each says what one may, and together it is over a megabyte."""
    sample = 'calliope_drops_total{queue="channel",why="unread"}'
    async with call.undisturbed(), visitors() as (http, present):
        for number in range(20):
            visitor = Visitor(media=False)
            present.append(visitor)
            await visitor.call(http, f"{call.server.url}/demo", f"Deaf {number}")
            visitor.pc.sctp._receive_data_chunk = ignore  # type: ignore[union-attr,method-assign]
        async with asyncio.timeout(60):
            while await call.metric(sample) < len(present):
                for visitor in present:
                    if visitor.channel.readyState == "open":
                        visitor.send({"type": "chat", "text": "\N{GRINNING FACE}" * 1000})
                await asyncio.sleep(0.2)
        for visitor in present:
            async with call.http.delete(visitor.location) as response:
                assert response.status == 404
        call.ada.send({"type": "chat", "text": "who is deaf?"})
        await until(lambda: (call.grace.last("chat") or {}).get("text") == "who is deaf?")
