"""One UDP port for all sessions: who gets which datagram, and whole calls through it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import ClientSession
from aioice import stun

from calliope.app import Server
from calliope.bots import Options, Studio
from calliope.bots.crowd import Crowd
from calliope.clock import SystemClock
from calliope.config import Config, IceConfig, LimitsConfig, MixerConfig, ServerConfig
from calliope.errors import ConfigError
from calliope.transport import session, udp_port
from calliope.transport.aioice_seams import IceConnection, IceSettings
from calliope.transport.udp_port import UdpPort
from tests.transport.calls import until

ADA, GRACE = ("10.0.0.1", 1000), ("10.0.0.2", 2000)
RTP = b"\x80\x60" + bytes(30)


class Session:
    """A session's end, as far as the port knows one."""

    def __init__(self) -> None:
        self.got: list[tuple[bytes, tuple[Any, ...]]] = []
        self.lost = False
        self.alive = False

    def holds(self, addr: tuple[str, int]) -> bool:
        return self.alive

    def take(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.got.append((data, addr))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True


def check(name: str, kind: stun.Class = stun.Class.REQUEST) -> bytes:
    message = stun.Message(message_method=stun.Method.BINDING, message_class=kind)
    message.transaction_id = b"transaction1"
    if name:
        message.attributes["USERNAME"] = name
    return bytes(message)


@pytest.fixture
def drops() -> list[str]:
    return []


@pytest.fixture
async def port(drops: list[str], unused_udp_port: int) -> AsyncIterator[UdpPort]:
    opened = await UdpPort.open("127.0.0.1", unused_udp_port, drops.append)
    yield opened
    opened.close()


async def test_a_check_names_its_session_and_media_follows_the_address(
    port: UdpPort, drops: list[str]
) -> None:
    ada, grace = Session(), Session()
    first, second = port.share("ada", ada), port.share("grace", grace)
    port.datagram_received(check("ada:x"), ADA)
    port.datagram_received(check("grace:y"), GRACE)
    assert ([data for data, _ in ada.got], len(grace.got)) == ([check("ada:x")], 1)
    port.datagram_received(RTP, ADA)
    assert drops == ["stranger"]  # a check is not yet one that was found to be good
    first.learn(ADA)
    second.learn(GRACE)
    port.datagram_received(RTP, ADA)
    port.datagram_received(RTP, (*GRACE, 0, 0))  # as IPv6 addresses come
    assert ada.got[-1] == (RTP, ADA)
    assert grace.got[-1][0] == RTP
    assert (len(ada.got), len(grace.got)) == (2, 2)


async def test_an_answer_goes_to_who_asked_for_as_long_as_it_waits(port: UdpPort) -> None:
    ada = Session()
    share = port.share("ada", ada)
    share.expect(b"transaction1")
    for kind in (stun.Class.RESPONSE, stun.Class.ERROR):
        port.datagram_received(check("", kind), GRACE)
    assert len(ada.got) == 2
    share.answered(b"transaction1")
    port.datagram_received(check("", stun.Class.RESPONSE), GRACE)
    assert len(ada.got) == 2


async def test_an_address_that_another_session_has_now_stays_its(port: UdpPort) -> None:
    old, new = Session(), Session()
    before, after = port.share("old", old), port.share("new", new)
    before.learn(ADA)
    after.learn(ADA)  # a new session of the same browser, through the same NAT
    before.close()
    port.datagram_received(RTP, ADA)
    assert new.got == [(RTP, ADA)]
    await until(lambda: old.lost)
    after.close()
    assert port.is_idle


async def test_an_address_whose_session_is_alive_goes_to_no_other(
    port: UdpPort, drops: list[str]
) -> None:
    ada, thief = Session(), Session()
    ada.alive = True
    first, second = port.share("ada", ada), port.share("thief", thief)
    first.learn(ADA)
    second.learn(ADA)
    first.learn(ADA)  # to its own it is no news
    port.datagram_received(RTP, ADA)
    assert (ada.got, thief.got, drops) == ([(RTP, ADA)], [], ["taken"])
    ada.alive = False
    second.learn(ADA)  # it was not heard any more
    port.datagram_received(RTP, ADA)
    assert thief.got == [(RTP, ADA)]
    first.close()
    second.close()
    assert port.is_idle


async def test_a_session_is_alive_at_an_address_while_it_is_heard_and_goes_by_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connection = IceConnection(IceSettings(("127.0.0.1",), None, 5, lambda _why: None), None, None)
    now_s = connection._now()
    monkeypatch.setattr(connection, "_now", lambda: now_s)
    connection.heard()
    assert connection.holds(ADA)
    now_s += connection.HELD_S
    assert not connection.holds(ADA)
    connection.heard()
    connection._nominated[1] = SimpleNamespace(remote_addr=ADA)  # type: ignore[assignment]
    assert connection.holds((*ADA, 0, 0))  # type: ignore[arg-type]  # as IPv6 addresses come
    assert not connection.holds(GRACE)


async def test_a_session_holds_so_many_addresses_at_most_and_none_once_closed(
    port: UdpPort,
) -> None:
    ada = Session()
    share = port.share("ada", ada)
    for number in range(2 * udp_port.REMOTES_MAX):
        share.learn(("10.0.0.1", 1000 + number))
    for number in range(2 * udp_port.REMOTES_MAX):
        port.datagram_received(RTP, ("10.0.0.1", 1000 + number))
    assert len(ada.got) == udp_port.REMOTES_MAX
    share.close()
    share.close()
    share.learn(GRACE)
    share.sendto(RTP, GRACE)
    assert share.is_closing()
    assert port.is_idle


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"\0\1" + bytes(18), check("nobody:x"), check("")[:22], b"\xff" * 40]
)
async def test_what_is_nobodys_is_dropped_and_counted(
    port: UdpPort, drops: list[str], data: bytes
) -> None:
    ada = Session()
    port.share("ada", ada)
    port.datagram_received(data, ADA)
    assert (ada.got, drops) == ([], ["stranger"])


async def test_a_port_that_is_taken_is_not_opened(port: UdpPort) -> None:
    taken = port.sock.getsockname()[1]
    with pytest.raises(OSError, match="in use"):
        await UdpPort.open("127.0.0.1", taken, lambda _why: None)


# -- a server with one port -----------------------------------------------------------------------


def config(port: int) -> Config:
    return Config(
        server=ServerConfig(host="127.0.0.1", port=0),
        ice=IceConfig(udp_port=port),
        mixer=MixerConfig(fps=10, width=320, height=180, renditions=("180p:200",)),
        limits=LimitsConfig(loss_s=2),
    )


async def test_a_call_goes_through_one_port_and_leaves_nothing_in_it(
    unused_udp_port: int,
) -> None:
    server = Server(config(unused_udp_port))
    await server.start()
    shared = tuple(server.sessions._parts.udp_ports)  # one on each of the machine's addresses
    options = Options(
        url=f"http://127.0.0.1:{server.port}", count=3, audience=2, watched=True,
        fps=10, width=128, height=72,
    )  # fmt: skip
    try:
        with Studio() as studio:
            crowd = Crowd(options, studio, SystemClock())
            async with crowd.running():
                await crowd.wait_joined(60)
                crowd.mark()

                def all_is_well() -> bool:
                    report = crowd.report()
                    assert report.sight is not None
                    moving = all(bot.fps > 0 and bot.sound_packets for bot in report.bots)
                    return moving and len(report.sight.picture_ms) > 10

                await until(all_is_well, 60)
                sessions: list[Any] = list(server.sessions._by_secret.values())
                used = {
                    transceiver.sender.transport.transport._connection.route[0].getsockname()[1]
                    for session in sessions
                    for transceiver in session._pc.getTransceivers()
                }
                assert used == {unused_udp_port}
        await until(lambda: server.sessions.count == 0)
        await until(lambda: all(each.is_idle for each in shared))
    finally:
        await server.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(("127.0.0.1", unused_udp_port))  # it was given back


async def test_a_port_that_is_lost_is_told_by_health(
    unused_udp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(config(unused_udp_port))
    await server.start()
    shared = server.sessions._parts.udp_ports[0]
    transport: Any = shared._transport
    try:
        async with ClientSession() as http:
            health = f"http://127.0.0.1:{server.port}/healthz"
            shared.error_received(OSError("one datagram"))
            async with http.get(health) as answer:
                assert answer.status == 200
            transport.abort()
            await until(lambda: shared.is_lost)
            async with http.get(health) as answer:
                assert (answer.status, (await answer.json())["code"]) == (503, "unavailable")
        assert "lost" in caplog.text
    finally:
        await server.stop()


async def test_a_port_that_was_closed_is_not_lost(
    port: UdpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()
    lost = port.connection_lost

    def note(exc: Exception | None) -> None:
        lost(exc)
        ended.set()

    monkeypatch.setattr(port, "connection_lost", note)
    port.close()
    await asyncio.wait_for(ended.wait(), 20)
    assert not port.is_lost


async def test_buffers_that_the_system_keeps_small_are_told_of_once(
    unused_udp_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(udp_port, "SHARED_BYTES", 1 << 30)  # no system allows that
    server = Server(config(unused_udp_port))
    await server.start()
    await server.stop()
    (told,) = [record.getMessage() for record in caplog.records if "buffers" in record.msg]
    assert "net.core.wmem_max and net.core.rmem_max" in told


def allowed_bytes() -> list[int]:
    limits = Path("/proc/sys/net/core")
    return [int((limits / f"{way}mem_max").read_text()) for way in ("r", "w")]


async def test_both_buffers_are_as_large_as_the_system_allows(port: UdpPort) -> None:
    sizes = {port.sock.getsockopt(socket.SOL_SOCKET, which) for which in udp_port._LIMITS.values()}
    assert sizes == {2 * min(udp_port.SHARED_BYTES, bytes_max) for bytes_max in allowed_bytes()}


NOBODYS = "192.0.2.1"
"""For documentation (RFC 5737): it cannot be bound, like an address that is not ready yet."""


async def test_an_address_that_cannot_be_had_is_left_out_and_named(
    unused_udp_port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(session, "media_addresses", lambda _host: (NOBODYS, "127.0.0.1"))
    server = Server(config(unused_udp_port))
    await server.start()
    try:
        opened = [each.sock.getsockname() for each in server.sessions._parts.udp_ports]
        assert opened == [("127.0.0.1", unused_udp_port)]
        assert [NOBODYS in record.getMessage() for record in caplog.records].count(True) == 1
    finally:
        await server.stop()


async def test_a_start_that_can_listen_nowhere_ends_in_words(
    unused_udp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "media_addresses", lambda _host: (NOBODYS,))
    server = Server(config(unused_udp_port))
    with pytest.raises(ConfigError, match=rf"ice\.udp_port.*{unused_udp_port}.*{NOBODYS}"):
        await server.start()
    await server.stop()


async def test_a_port_that_another_program_has_ends_the_start_in_words(
    unused_udp_port: int,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", unused_udp_port))
        server = Server(config(unused_udp_port))
        with pytest.raises(ConfigError, match=rf"ice\.udp_port.*{unused_udp_port}"):
            await server.start()
        await server.stop()
