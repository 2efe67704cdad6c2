"""Stories of sessions: how they connect, how they end, and that nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiortc import RTCPeerConnection, RTCRtpSender, VideoStreamTrack
from aiortc.rtcsctptransport import SCTP_DATA_FIRST_FRAG, WEBRTC_STRING, DataChunk
from av import AudioFrame

from calliope.config import Config, IceConfig, LimitsConfig, ServerConfig
from calliope.errors import RoomFull, TooMany
from calliope.media import EncodedAudio
from calliope.transport import sdp
from calliope.transport import session as session_module
from calliope.transport.sctp_seams import CHUNKS_MAX, STREAMS_MAX
from calliope.transport.session import Request, Session
from tests.transport.calls import (
    FRAGMENT,
    Caller,
    FakeRooms,
    House,
    house,
    until,
    without_candidates,
)
from tests.transport.media_peers import dropped
from tests.transport.offers import CANDIDATE, UFRAG, offer
from tests.transport.test_sdp import damage

QUICK = Config(limits=LimitsConfig(connect_s=1, loss_s=2, pending=8))


@pytest.fixture
def rooms() -> FakeRooms:
    return FakeRooms()


@pytest.fixture
async def server(tmp_path: Path, rooms: FakeRooms) -> AsyncIterator[House]:
    async with house(tmp_path, rooms, QUICK) as built:
        yield built


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    client = Caller()
    yield client
    await client.close()


# -- connecting ---------------------------------------------------------------------------------


async def test_a_browser_joins_and_both_sides_talk(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: "opened" in rooms.last.events)
    assert rooms.last.events == ["connected", "opened"]
    rooms.last.outlet.send_message({"type": "speaking", "ids": ["p1", "ü"]})
    caller.channel.send('{"type": "bye"}')
    await until(lambda: bool(caller.messages and rooms.last.received))
    assert caller.messages == ['{"type":"speaking","ids":["p1","ü"]}']
    assert rooms.last.received == ['{"type": "bye"}']


async def test_an_offer_without_candidates_is_answered_at_once_and_connects(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server, without_candidates)
    assert "a=candidate:" in caller.answer
    await until(lambda: caller.is_open)


async def test_a_lone_end_of_candidates_is_ignored(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(
        server,
        lambda sdp: without_candidates(sdp).replace("a=setup", "a=end-of-candidates\r\na=setup"),
    )
    await until(lambda: caller.is_open)


async def test_what_the_room_is_told_of_a_join(server: House, rooms: FakeRooms) -> None:
    previous = {"Calliope_Session": "earlier-secret"}
    text = offer(audio="recvonly", video="inactive")
    response = await server.post(text, room="Blue", query="?name=Ada%20L&source=screen", **previous)
    assert response.status == 201
    request = rooms.last.request
    assert (request.room, request.name, request.role) == ("blue", "Ada L", "audience")
    assert (request.previous, request.screen) == ("earlier-secret", True)
    assert (request.receives_audio, request.receives_video) == (True, False)
    assert response.headers["Location"] == f"/api/rooms/blue/sessions/{request.secret}"
    assert len(request.secret) >= 22  # 128 bits in base64


async def test_candidates_are_trickled_and_a_restart_is_refused(
    server: House, rooms: FakeRooms
) -> None:
    location = (await server.post(offer())).headers["Location"]
    good = f"a=ice-ufrag:{UFRAG}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na={CANDIDATE}\r\n"
    assert (await server.http.patch(location, data=good, headers=FRAGMENT)).status == 204
    restart = good.replace(UFRAG, "fresh")
    refused = await server.http.patch(location, data=restart, headers=FRAGMENT)
    assert refused.status == 422
    assert (await refused.json())["code"] == "unprocessable"


async def test_a_trickled_candidate_is_what_connects_them(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    full = await caller.offer()
    candidates = re.findall(r"a=candidate:.*\r\n", full)
    response = await server.post(without_candidates(full))
    location = response.headers["Location"]
    # the client knows nothing of the server yet, so only the server's checks can connect them
    body = "".join(candidates[:2])
    assert (await server.http.patch(location, data=body, headers=FRAGMENT)).status == 204
    session = server.sessions.find("demo", location.rpartition("/")[2])
    assert session._pc is not None
    transport = session._pc.getTransceivers()[0].receiver.transport.transport
    assert {c.port for c in transport.getRemoteCandidates()} == {
        int(candidate.split()[5]) for candidate in candidates[:2]
    }


async def test_trickled_candidates_are_bounded(server: House, rooms: FakeRooms) -> None:
    location = (await server.post(offer())).headers["Location"]
    for start in range(50_000, 50_060, 10):
        ports = range(start, start + 10)
        body = "".join(f"a={CANDIDATE.replace('50000', str(port))}\r\n" for port in ports)
        assert (await server.http.patch(location, data=body, headers=FRAGMENT)).status == 204
    text = server.metrics.render().decode()
    assert 'calliope_drops_total{queue="candidates",why="full"} 28.0' in text


async def test_the_server_announces_its_public_address_and_keeps_to_its_ports(
    tmp_path: Path,
) -> None:
    config = Config(ice=IceConfig(public_address="203.0.113.9", udp_ports="42100-42199"))
    async with house(tmp_path, config=config) as server:
        answer = await (await server.post(offer())).text()
    v4 = re.findall(r"a=candidate:\S+ 1 udp \d+ (\d+\.\S+) (\d+) typ host", answer)
    assert v4
    assert {address for address, _ in v4} == {"203.0.113.9"}
    assert all(42100 <= int(port) <= 42199 for _, port in v4)


async def test_without_a_free_port_the_caller_is_asked_to_come_again(tmp_path: Path) -> None:
    config = Config(server=ServerConfig(host="127.0.0.1"), ice=IceConfig(udp_ports="42200-42200"))
    rooms = FakeRooms()
    async with house(tmp_path, rooms, config) as server:
        assert (await server.post(offer())).status == 201
        refused = await server.post(offer())
        assert refused.status == 503
        assert (await refused.json())["code"] == "unavailable"
        assert "Retry-After" in refused.headers
        assert rooms.last.left
        assert server.sessions.count == 1


# -- media --------------------------------------------------------------------------------------


async def test_a_publisher_that_only_knows_h264_is_seen(server: House, rooms: FakeRooms) -> None:
    pc = Caller(audio=None, video=None)
    pc.pc.addTrack(VideoStreamTrack())
    transceiver = pc.pc.getTransceivers()[0]
    transceiver.direction = "sendonly"
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in codecs if c.mimeType == "video/H264"])
    try:
        await pc.call(server)
        assert rooms.last.request.role == "publisher"
        await until(lambda: rooms.last.feed is not None)
        feed = rooms.last.feed
        assert feed is not None
        frame = feed.source.latest()
        assert frame is not None
        assert (frame.width, frame.height) == (640, 480)
    finally:
        await pc.close()


async def test_sound_goes_out_to_who_listens(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: "connected" in rooms.last.events)
    track = caller.pc.getTransceivers()[0].receiver.track
    silence = b"\xf8\xff\xfe"

    async def play() -> None:
        for number in range(1000):
            rooms.last.outlet.send_audio(EncodedAudio(silence, number * 960))
            await asyncio.sleep(0.02)

    playing = asyncio.create_task(play())
    frame = await asyncio.wait_for(track.recv(), 20)
    playing.cancel()
    assert isinstance(frame, AudioFrame)
    assert frame.sample_rate == 48_000


# -- ending -------------------------------------------------------------------------------------


async def test_delete_leaves_and_the_secret_is_worth_nothing_after_that(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    assert (await server.http.delete(caller.location)).status == 200
    assert rooms.last.events[-1] == "left"
    await until(lambda: caller.pc.connectionState == "closed")
    gone = await server.http.delete(caller.location)
    assert gone.status == 404
    assert (await gone.json())["code"] == "not_found"


async def test_a_session_is_not_found_under_another_room(server: House, rooms: FakeRooms) -> None:
    location = (await server.post(offer())).headers["Location"]
    assert (await server.http.delete(location.replace("demo", "other"))).status == 404
    assert not rooms.last.left


async def test_a_browser_that_closes_the_page_has_left(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    await caller.close()
    await until(lambda: rooms.last.left)
    assert rooms.last.events[-1] == "left"


async def test_a_browser_that_vanishes_is_lost(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    caller.vanish()
    await until(lambda: rooms.last.left)
    assert rooms.last.events[-1] == "lost"
    await until(lambda: server.sessions.count == 0)


async def test_the_room_ends_a_session(server: House, rooms: FakeRooms, caller: Caller) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    rooms.last.outlet.end("taken_over", "This seat was taken over.")
    await until(lambda: caller.pc.connectionState == "closed")
    assert server.sessions.count == 0
    assert caller.messages == []


async def test_a_full_room_leaves_no_session(server: House, rooms: FakeRooms) -> None:
    rooms.refusal = RoomFull("This room is full.")
    response = await server.post(offer())
    assert response.status == 409
    assert (await response.json())["code"] == "room_full"
    assert server.sessions.count == 0


async def test_offers_that_never_connect_are_capped_and_freed(
    server: House, rooms: FakeRooms
) -> None:
    await server.http.get("/healthz")  # the connection that the test itself keeps open
    before = _open_sockets()
    refused = 0
    for _ in range(500):
        response = await server.post(offer())
        if response.status == 429:
            refused += 1
            assert int(response.headers["Retry-After"]) > 0
            assert (await response.json())["code"] == "too_many"
        assert server.sessions.pending <= QUICK.limits.pending
    assert refused > 0
    await until(lambda: server.sessions.count == 0)
    assert all(member.left for member in rooms.members)
    await until(lambda: _open_sockets() <= before)
    assert (await server.post(offer())).status == 201


async def test_one_network_cannot_take_the_places_of_all_others(tmp_path: Path) -> None:
    async with house(tmp_path, config=Config(limits=LimitsConfig(pending=8))) as server:

        async def is_taken(address: str) -> bool:
            try:
                await server.sessions.open(Request("demo", address=address), offer())
            except TooMany:
                return False
            return True

        for number in range(4):
            assert await is_taken(f"2001:db8:1:2::{number:x}")
        assert not await is_taken("2001:db8:1:2:ffff::1")
        assert await is_taken("2001:db8:1:3::1")
        for _ in range(3):
            assert await is_taken("192.0.2.1")
        assert not await is_taken("198.51.100.1")  # no place is left at all
        assert server.sessions.pending == 8


async def test_candidates_beyond_the_limit_are_dropped_and_counted_however_they_come(
    server: House, rooms: FakeRooms
) -> None:
    session, _ = await server.sessions.open(Request("demo"), offer())
    lines = [
        f"a=candidate:{n} 1 udp 2130706431 198.51.100.7 {20_000 + n} typ host" for n in range(20)
    ]
    fragment = sdp.parse_fragment("\r\n".join(lines), session.mid)
    added = []

    async def add(candidate: object) -> None:
        await asyncio.sleep(0)  # others come in between
        added.append(candidate)

    session._pc.addIceCandidate = add  # type: ignore[union-attr, method-assign]
    await asyncio.gather(*(session.trickle(fragment) for _ in range(4)))
    assert len(added) == sdp.CANDIDATES_MAX
    assert dropped(server.metrics, "candidates", "full") == 80 - sdp.CANDIDATES_MAX


async def test_damaged_offers_are_answered_or_refused_and_never_break_the_server(
    tmp_path: Path,
) -> None:
    roomy = Config(limits=LimitsConfig(connect_s=1, pending=1000))
    failures: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    async with house(tmp_path, config=roomy) as server:
        for seed in range(80):
            response = await server.post(damage(offer(candidates=(CANDIDATE,)), seed))
            assert response.status in (201, 400), await response.text()
            if response.status == 400:
                assert (await response.json())["code"] == "bad_offer"
        await until(lambda: server.sessions.count == 0)
    assert failures == []


# -- the control channel ------------------------------------------------------------------------


async def test_other_channels_are_closed_and_change_nothing(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    other = caller.pc.createDataChannel("files")
    second = caller.pc.createDataChannel("calliope")
    await caller.call(server)
    await until(lambda: {other.readyState, second.readyState} == {"closed"})
    assert caller.is_open
    assert rooms.last.events == ["connected", "opened"]


async def test_a_channel_that_is_never_read_ends_its_session(
    server: House, rooms: FakeRooms, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)

    async def ignore(_: bytes) -> None:
        pass

    assert caller.pc.sctp is not None
    monkeypatch.setattr(caller.pc.sctp, "_handle_data", ignore)
    member = rooms.last
    for _ in range(100):
        member.outlet.send_message({"type": "chat", "text": "x" * 20_000})
    await until(lambda: member.left)
    assert member.events[-1] == "left"
    assert 'queue="channel",why="unread"' in server.metrics.render().decode()


async def test_messages_that_never_end_fill_no_memory(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    ours = server.sessions.find("demo", caller.secret)._pc
    theirs: Any = caller.pc.sctp
    assert ours is not None
    streams: Any = ours.sctp._inbound_streams  # type: ignore[union-attr]

    async def begin_message(stream: int) -> None:
        chunk = DataChunk(flags=SCTP_DATA_FIRST_FRAG)
        chunk.tsn, chunk.stream_id, chunk.protocol = theirs._local_tsn, stream, WEBRTC_STRING
        chunk.user_data = b"x"
        theirs._local_tsn += 1
        await theirs._send_chunk(chunk)
        await asyncio.sleep(0)

    # the last of a message never comes, so nothing is ever handed on
    for number in range(3 * CHUNKS_MAX):
        await begin_message(number % (2 * STREAMS_MAX))
    dropped = 'calliope_drops_total{queue="network",why="sctp"}'
    await until(lambda: dropped in server.metrics.render().decode())
    assert len(streams) <= STREAMS_MAX
    assert sum(len(stream.reassembly) for stream in streams.values()) <= CHUNKS_MAX
    assert rooms.last.received == []


async def test_messages_after_the_end_go_nowhere(
    server: House, rooms: FakeRooms, caller: Caller
) -> None:
    await caller.call(server)
    await until(lambda: caller.is_open)
    rooms.last.outlet.end("draining", "The server is stopping.")
    rooms.last.outlet.send_message({"type": "speaking", "ids": []})
    await until(lambda: caller.pc.connectionState == "closed")
    assert caller.messages == []


# -- what stays behind --------------------------------------------------------------------------


def _open_sockets() -> int:
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:  # the listing's own descriptor
            continue
    return sum(link.startswith("socket:") for link in links)


def _threads() -> int:
    """Without asyncio's own pool: the test's encoders use it, and it keeps its threads."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def _sessions_alive() -> int:
    gc.collect()
    kinds = (Session, RTCPeerConnection)
    # not isinstance: somebody's weak proxy would answer for an object that is gone
    return sum(issubclass(type(thing), kinds) for thing in gc.get_objects())


async def test_ten_joins_and_leaves_leave_nothing_behind(server: House, rooms: FakeRooms) -> None:
    async def join_and_leave(number: int) -> None:
        client = Caller()
        client.pc.addTrack(VideoStreamTrack())
        await client.call(server)
        await until(lambda: rooms.members[number].feed is not None)
        if number % 2:
            await server.http.delete(client.location)
        else:
            await client.close()
        await until(lambda: server.sessions.count == 0 and rooms.members[number].left)
        await client.close()

    alive = _sessions_alive()
    await join_and_leave(0)  # what is made once, on the first join, is no leak
    await until(lambda: not server.sessions._closing)
    tasks, threads, sockets = len(asyncio.all_tasks()), _threads(), _open_sockets()
    for number in range(1, 11):
        await join_and_leave(number)
    await until(lambda: not server.sessions._closing)
    rooms.members.clear()
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
    await until(lambda: _threads() <= threads)
    await until(lambda: _open_sockets() <= sockets)
    await until(lambda: _sessions_alive() <= alive)


async def test_closing_the_server_ends_every_session(
    tmp_path: Path, rooms: FakeRooms, caller: Caller
) -> None:
    async with house(tmp_path, rooms, QUICK) as server:
        await caller.call(server)
        await until(lambda: caller.is_open)
        await server.post(offer())
        await server.sessions.close()
        assert server.sessions.count == 0
        assert [member.left for member in rooms.members] == [True, True]
    await until(lambda: caller.pc.connectionState == "closed")


async def test_a_connection_that_does_not_close_is_given_up(
    server: House,
    rooms: FakeRooms,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    location = (await server.post(offer())).headers["Location"]
    session = server.sessions.find("demo", location.rpartition("/")[2])
    assert session._pc is not None
    really_close = session._pc.close

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(session_module, "CLOSE_TIMEOUT_S", 0.05)
    monkeypatch.setattr(session._pc, "close", never)
    await server.http.delete(location)
    await server.sessions.close()
    assert "to close" in caplog.text
    await really_close()
