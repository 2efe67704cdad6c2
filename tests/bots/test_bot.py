"""One bot against a stock aiortc peer behind the protocol's HTTP signalling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from aiortc import (
    MediaStreamTrack,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError

from calliope.bots import bot as bot_module
from calliope.bots.bot import Bot, Call, JoinError, PictureLoop
from calliope.bots.loops import SoundPacket, record_picture, record_sound
from calliope.clock import SystemClock
from calliope.metrics import Metrics
from calliope.transport.fanout import VideoOut

W, H, FPS = 128, 64, 10
PATIENCE_S = 20


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.01)


def call_tasks() -> list[str]:
    """The tasks that run for a call: the bots' and the WebRTC libraries'."""
    files = [task.get_coro().cr_code.co_filename for task in asyncio.all_tasks()]  # type: ignore[union-attr]
    return [file for file in files if any(p in file for p in ("/bots/bot", "aiortc", "aioice"))]


class Peer:
    """A server of one call, as a stock library would be: answers, decodes, sends test media."""

    def __init__(self) -> None:
        self.frames: list[tuple[int, int]] = []
        self.sound_frames = 0
        self.levels: set[int] = set()
        self.said: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.deleted: list[str] = []
        self.taken_over: list[str | None] = []
        self.refusal: web.Response | None = None
        self.answers = True
        self.pc: RTCPeerConnection | None = None
        self.channel: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def post(self, request: web.Request) -> web.Response:
        if self.refusal is not None:
            return self.refusal
        self.asked.append((request.match_info["room"], request.query["name"]))
        self.taken_over.append(request.headers.get("Calliope-Session"))
        offer = await request.text()
        pc = self.pc = RTCPeerConnection()
        pc.on("track", self._watch)
        pc.on("datachannel", self._take)
        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        for transceiver in pc.getTransceivers():
            track = AudioStreamTrack() if transceiver.kind == "audio" else VideoStreamTrack()
            transceiver.sender.replaceTrack(track)
            transceiver.direction = "sendrecv" if "a=sendrecv" in offer else "sendonly"
        await pc.setLocalDescription(await pc.createAnswer())
        answer = pc.localDescription.sdp
        if not self.answers:
            answer = "\r\n".join(
                line for line in answer.split("\r\n") if not line.startswith("a=candidate")
            ).replace("a=end-of-candidates\r\n", "")
            await pc.close()
        return web.Response(
            status=201,
            text=answer,
            content_type="application/sdp",
            headers={"Location": f"/api/rooms/{request.match_info['room']}/sessions/secret"},
        )

    async def delete(self, request: web.Request) -> web.Response:
        self.deleted.append(request.match_info["secret"])
        return web.Response()

    def _take(self, channel: RTCDataChannel) -> None:
        self.channel = channel
        channel.on("message", lambda text: self.said.append(json.loads(text)))

    def _watch(self, track: MediaStreamTrack) -> None:
        self._tasks.add(asyncio.create_task(self._drain(track)))

    async def _drain(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            if track.kind == "video":
                self.frames.append((frame.width, frame.height))
            else:
                self.sound_frames += 1

    def tell(self, message: dict[str, object]) -> None:
        assert self.channel is not None
        self.channel.send(json.dumps(message))

    async def ask_keyframe(self) -> None:
        """Send a PLI, as a receiver does that lost its picture."""
        assert self.pc is not None
        receiver = next(r for r in self.pc.getReceivers() if r.track.kind == "video")
        (source,) = receiver.getSynchronizationSources()
        await receiver._send_rtcp_pli(source.source)

    async def close(self) -> None:
        if self.pc is not None:
            await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    app = web.Application()
    app.router.add_post("/api/rooms/{room}/sessions", peer.post)
    app.router.add_delete("/api/rooms/{room}/sessions/{secret}", peer.delete)
    async with TestServer(app) as server:
        peer.url = str(server.make_url("/"))
        yield peer
        await peer.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="module")
def loops() -> dict[Fraction, PictureLoop]:
    return {
        size: record_picture(1, int(W * size), int(H * size), FPS)
        for size in (Fraction(1), Fraction(1, 2))
    }


@pytest.fixture(scope="module")
def sound() -> tuple[SoundPacket, ...]:
    return record_sound(1)


Build = Callable[..., Bot]


@pytest.fixture
async def build(
    peer: Peer,
    http: aiohttp.ClientSession,
    loops: dict[Fraction, PictureLoop],
    sound: tuple[SoundPacket, ...],
) -> AsyncIterator[Build]:
    made: list[Bot] = []

    def new(*, audience: bool = False, previous: str | None = None) -> Bot:
        async def record(size: Fraction) -> PictureLoop:
            return loops[size]

        bot = Bot(
            "山田 さくら",
            Call(peer.url, "demo", FPS, W),
            SystemClock(),
            Metrics(),
            () if audience else sound,
            None if audience else record,
            previous,
        )
        made.append(bot)
        return bot

    yield new
    for bot in made:
        await bot.leave(http)


async def test_a_bot_is_seen_heard_and_counts_what_it_gets(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    bot = build()
    await bot.join(http)
    assert bot.connected
    assert bot.joined_s is not None
    assert peer.asked == [("demo", "山田 さくら")]
    await until(lambda: len(peer.frames) > 10 and peer.sound_frames > 20)
    assert set(peer.frames) == {(W, H)}
    await until(lambda: bot.video.frames > 5 and bot.audio.packets > 20)
    assert bot.video.bytes > bot.video.packets >= bot.video.frames


async def test_a_bot_says_on_the_channel_that_it_is_not_muted(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    await build().join(http)
    await until(lambda: bool(peer.said))
    assert peer.said[0] == {"type": "state", "muted": False, "camera": True}


async def test_a_small_tile_gets_a_small_picture_and_a_large_one_the_large_again(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    await build().join(http)
    await until(lambda: (W, H) in peer.frames and peer.channel is not None)
    tile = {"type": "uplink", "source": "camera", "height": H // 2, "fps": 10, "kbps": 100}
    peer.tell({**tile, "width": W // 2})
    await until(lambda: peer.frames[-1] == (W // 2, H // 2))
    peer.tell({**tile, "width": W})
    await until(lambda: peer.frames[-1] == (W, H))


async def test_a_paused_bot_sends_no_picture_until_it_is_asked_again(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    bot = build()
    await bot.join(http)
    await until(lambda: len(peer.frames) > 3 and peer.channel is not None)
    peer.tell({"type": "uplink", "source": "camera", "width": 0, "height": 0, "fps": 0, "kbps": 0})
    await until(lambda: bot.messages.get("uplink") == 1)
    sent = bot.pictures_sent
    heard = peer.sound_frames
    await until(lambda: peer.sound_frames > heard + 25)  # half a second passes
    assert bot.pictures_sent <= sent + 1
    peer.tell({"type": "uplink", "source": "camera", "width": W, "height": H, "fps": 9, "kbps": 99})
    await until(lambda: bot.pictures_sent > sent + 5)


async def test_a_keyframe_asked_for_is_sent_before_the_loop_has_ended(
    peer: Peer, http: aiohttp.ClientSession, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[bool] = []
    push = VideoOut.push

    def watch(self: Any, frame: Any) -> None:
        pushed.append(frame.keyframe)
        push(self, frame)

    monkeypatch.setattr(VideoOut, "push", watch)
    await build().join(http)
    await until(lambda: len(peer.frames) > 3)
    begun = len(pushed)
    assert not pushed[-1]
    await peer.ask_keyframe()
    await until(lambda: any(pushed[begun:]))
    assert pushed.index(True, begun) - begun < 20  # a loop has 40


async def test_audience_only_receives(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    bot = build(audience=True)
    await bot.join(http)
    await until(lambda: bot.video.frames > 5 and bot.audio.packets > 20)
    assert peer.sound_frames == 0
    assert peer.frames == []
    assert peer.said == []


async def test_leaving_deletes_the_session_and_leaves_nothing_running(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    bot = build()
    await bot.join(http)
    await until(lambda: len(peer.frames) > 1)
    await bot.leave(http)
    await bot.leave(http)
    assert peer.deleted == ["secret"]
    assert not bot.connected
    await peer.close()
    await until(lambda: not call_tasks())


async def test_a_bot_takes_over_the_seat_of_the_one_before(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    first = build()
    await first.join(http)
    await first.leave(http, goodbye=False)
    assert peer.deleted == []
    await build(previous=first.secret).join(http)
    assert peer.taken_over == [None, "secret"]


async def test_a_bot_notices_that_the_server_hung_up(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    bot = build()
    await bot.join(http)
    await until(lambda: bool(peer.frames))
    assert peer.pc is not None
    await peer.pc.close()
    await until(bot.ended.is_set)
    assert not bot.connected


async def test_a_bot_that_cannot_play_any_more_ends_and_says_why(
    http: aiohttp.ClientSession, build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_size: Fraction) -> PictureLoop:
        raise ValueError("no film")

    bot = build()
    bot._record = fail
    await bot.join(http)
    await until(bot.ended.is_set)
    assert "stopped playing" in caplog.text


async def test_a_refusal_is_told_in_the_words_of_the_server(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    peer.refusal = web.json_response(
        {"code": "room_full", "detail": "Every seat is taken."},
        status=409,
        content_type="application/problem+json",
    )
    with pytest.raises(JoinError, match=r"refused \(409\): Every seat is taken\."):
        await build().join(http)


async def test_a_refusal_without_a_problem_document_is_told_too(
    peer: Peer, http: aiohttp.ClientSession, build: Build
) -> None:
    peer.refusal = web.Response(status=502, text="bad gateway")
    with pytest.raises(JoinError, match=r"\(502\): bad gateway"):
        await build().join(http)


async def test_a_server_that_never_connects_is_given_up(
    peer: Peer, http: aiohttp.ClientSession, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bot_module, "CONNECT_S", 0.5)
    peer.answers = False
    with pytest.raises(JoinError, match=r"did not connect|could not connect"):
        await build().join(http)
    assert peer.deleted == ["secret"]


async def test_no_server_at_all_is_a_join_error(http: aiohttp.ClientSession) -> None:
    async with TestServer(web.Application()) as gone:
        url = str(gone.make_url("/"))
    bot = Bot("Ada", Call(url, "demo", FPS, W), SystemClock(), Metrics())
    with pytest.raises(JoinError, match="cannot be reached"):
        await bot.join(http)
