"""The seams in aiortc and aioice, and the connections built on them."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any, cast

import aioice.ice
import pytest
from aiortc import RTCDtlsTransport, RTCPeerConnection, RTCRtpReceiver

from calliope.config import IceConfig
from calliope.errors import SeamError, Unavailable
from calliope.metrics import Metrics
from calliope.transport import aioice_seams, aiortc_seams
from calliope.transport.aioice_seams import IceConnection
from tests.transport.media_peers import GreyTrack, StockCall, dropped, until


def test_the_installed_libraries_have_what_we_lean_on() -> None:
    aiortc_seams.check()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (RTCPeerConnection, "_RTCPeerConnection__createTransceiver"),
        (RTCPeerConnection, "_RTCPeerConnection__updateConnectionState"),
        (RTCRtpReceiver, "_handle_disconnect"),
        (aioice.ice.Connection, "build_request"),
        (aioice.ice, "get_host_addresses"),
    ],
)
def test_a_library_that_changed_is_named(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    monkeypatch.delattr(owner, name)
    with pytest.raises(SeamError, match=name):
        aiortc_seams.check()


def test_an_attribute_that_is_set_no_longer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_keys(self: object) -> None: ...

    monkeypatch.setattr(RTCDtlsTransport, "__init__", without_keys)
    with pytest.raises(SeamError, match="_rx_srtp"):
        aiortc_seams.check()


def test_addresses_follow_where_http_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["192.0.2.9", "fd00::9"])
    assert aioice_seams.media_addresses("0.0.0.0") == ("192.0.2.9", "fd00::9")
    assert aioice_seams.media_addresses("127.0.0.1") == ("192.0.2.9", "fd00::9", "127.0.0.1")
    assert aioice_seams.media_addresses("::1")[-1] == "::1"
    assert aioice_seams.media_addresses("192.0.2.4") == ("192.0.2.4",)
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: [])
    assert aioice_seams.media_addresses("0.0.0.0") == ("127.0.0.1",)


OFFER = """v=0
m=video 9 UDP/TLS/RTP/SAVPF 96 102 108 110 112
a=rtpmap:96 VP8/90000
a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=64001f
a=fmtp:108 profile-level-id=4D0032;packetization-mode=1
a=fmtp:110 packetization-mode=1;profile-level-id=7a0020
a=fmtp:112 apt=96
"""


def test_main_and_high_are_hidden_and_shown_again() -> None:
    hidden, profiles = aiortc_seams._hide_h264_profiles(OFFER)
    assert profiles == {"102": "64001f", "108": "4D0032"}
    assert re.findall("profile-level-id=(......)", hidden) == ["42e01f", "42e01f", "7a0020"]
    assert aiortc_seams._show_h264_profiles(hidden, profiles) == OFFER


@pytest.mark.parametrize("profile", ["42001f", "42c01f", "4d001f", "640c1f", "640032"])
async def test_every_common_h264_profile_is_answered_as_offered(profile: str) -> None:
    call = StockCall(video=GreyTrack(), codec="H264")
    await call.client.setLocalDescription(await call.client.createOffer())
    sdp = re.sub("profile-level-id=......", f"profile-level-id={profile}",
                 call.client.localDescription.sdp)  # fmt: skip
    sdp = re.sub("(?m)^a=rtpmap:.* VP8/90000\r\n", "", sdp)
    await call.server.setRemoteDescription(type(call.client.localDescription)(sdp, "offer"))
    await call.server.setLocalDescription(await call.server.createAnswer())
    answer = call.server.localDescription.sdp
    assert f"profile-level-id={profile}" in answer
    assert "packetization-mode=1" in answer
    await call.close()


async def test_sessions_listen_on_the_ports_they_are_told() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        first = min(probe.getsockname()[1], 65_000)
    call = StockCall(video=GreyTrack(), ports=f"{first}-{first + 20}")
    await call.offer()
    await call.answer()
    ports = re.findall(r"a=candidate:\S+ 1 udp \d+ \S+ (\d+) typ host",
                       call.server.localDescription.sdp)  # fmt: skip
    assert ports
    assert all(first <= int(port) <= first + 20 for port in ports)
    await call.close()


async def test_without_a_free_port_the_server_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(aiortc_seams, "media_addresses", lambda _host: ("127.0.0.1",))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        call = StockCall(video=GreyTrack(), ports=f"{port}-{port}")
        await call.offer()
        with pytest.raises(Unavailable):
            await call.server.setLocalDescription(await call.server.createAnswer())
    await call.close()


def connection_of(call: StockCall) -> IceConnection:
    return call.sender("video").media_transport.connection


async def test_a_browser_that_vanished_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(IceConnection, "QUIET_S", 0.05)
    call = StockCall(video=GreyTrack(), loss_s=0.5)
    await call.offer()
    await call.answer()
    assert not call.server.peer_vanished
    ice = cast(Any, call.client.getTransceivers()[0].receiver.transport.transport)
    for protocol in ice._connection._protocols:
        protocol.transport.abort()  # no goodbye, as from a laptop that was shut
    await until(lambda: call.server.connectionState in ("failed", "closed"))
    assert call.server.peer_vanished
    await call.close()


async def test_a_browser_that_says_goodbye_has_not_vanished() -> None:
    call = StockCall(video=GreyTrack())
    await call.offer()
    await call.answer()
    await call.client.close()
    await until(lambda: call.server.connectionState == "closed")
    assert not call.server.peer_vanished
    await call.close()


async def test_a_quiet_listener_is_asked_and_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """No media at all: the answers to consent checks keep the session, and time the way."""
    monkeypatch.setattr(IceConnection, "QUIET_S", 0.02)
    call = StockCall(audio="audio", video=GreyTrack(), loss_s=0.3)
    await call.offer()
    await call.answer()
    for sender in call.client.getSenders():
        await sender.stop()
    connection = connection_of(call)
    asked = 0
    ask = connection._ask_consent

    async def counting_ask() -> bool:
        nonlocal asked
        asked += 1
        return await ask()

    monkeypatch.setattr(connection, "_ask_consent", counting_ask)
    await until(lambda: asked >= 10)
    assert call.server.connectionState == "connected"
    assert connection.rtt_ms is not None
    assert 0 < connection.rtt_ms < 2000
    await call.close()


async def test_strangers_datagrams_change_nothing() -> None:
    call = StockCall(video=GreyTrack())
    await call.offer()
    await call.answer()
    route = connection_of(call).route
    assert route is not None
    address = route[0].getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for data in (
            b"",
            b"\x00",
            b"\x00\x01\x00\x04\x21\x12\xa4\x42" + bytes(12) + b"\x00\x20\x00\x00",  # STUN, cut
            b"\x16" + bytes(30),  # DTLS from an address that is no candidate
            b"\x80" * 11,
            b"\x80" * 60,
            b"\x81\xc8" + bytes(40),
            b"\xff" * 1600,
        ):
            stranger.sendto(data, address)
        await until(lambda: dropped(call.metrics, "network", "srtp_in") >= 3)
    assert dropped(call.metrics, "network", "unexpected") >= 3
    assert dropped(call.metrics, "network", "malformed") >= 2
    assert call.server.connectionState == "connected"
    await call.close()


async def test_what_comes_before_the_keys_is_taken_once_they_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The peer sends at once behind its last handshake message, which we have yet to read."""
    call = StockCall(video=GreyTrack())
    await call.offer()
    taken: list[bytes] = []
    transport = call.sender("video").media_transport
    setup = RTCDtlsTransport._setup_srtp

    def setup_late(self: RTCDtlsTransport) -> None:
        if self is transport:
            receive = transport.connection.on_media
            for number in range(100):
                receive(b"\x80%d" % number)
            monkeypatch.setattr(transport, "_receive_media", taken.append)
        setup(self)

    monkeypatch.setattr(RTCDtlsTransport, "_setup_srtp", setup_late)
    await call.answer()
    await until(lambda: bool(taken))
    kept = aiortc_seams._EARLY_PACKETS
    assert taken == [b"\x80%d" % number for number in range(100 - kept, 100)]
    await call.close()


async def test_packets_that_come_together_are_read_together() -> None:
    call = StockCall(video=GreyTrack())
    await call.offer()
    await call.answer()
    for sender in call.client.getSenders():
        await sender.stop()
    connection = connection_of(call)
    route = connection.route
    assert route is not None
    protocol = cast(Any, connection._nominated[1].protocol)
    seen: list[bytes] = []
    connection.on_media = seen.append
    with socket.socket(route[0].family, socket.SOCK_DGRAM) as source:
        for number in range(5):
            source.sendto(b"\x80%d" % number, route[0].getsockname())
    protocol.datagram_received(b"\x80first", ("192.0.2.1", 1))  # no await between: nobody else read
    assert [data for data in seen if len(data) < 3 or data == b"\x80first"] == [
        b"\x80first", b"\x800", b"\x801", b"\x802", b"\x803", b"\x804",
    ]  # fmt: skip
    await call.close()


async def test_a_flood_of_handshakes_is_bounded() -> None:
    metrics = Metrics()
    peer = aiortc_seams.new_peer_connection(
        IceConfig(), host="127.0.0.1", loss_s=8, metrics=metrics
    )
    peer.addTransceiver("audio")
    transport = peer.getTransceivers()[0].receiver.transport.transport
    connection = cast(IceConnection, transport._connection)
    for _ in range(1000):
        connection.data_received(b"\x16", 1)
    assert connection._queue.qsize() == aioice_seams._QUEUE_MAX
    assert dropped(metrics, "network", "flood") == 1000 - aioice_seams._QUEUE_MAX
    await peer.close()


async def test_a_stock_connection_in_the_same_process_stays_stock() -> None:
    stock = RTCPeerConnection()
    stock.addTransceiver("video")
    assert type(stock.getReceivers()[0]) is RTCRtpReceiver
    await stock.close()
    await asyncio.sleep(0)


def ice_connection(drops: list[str]) -> IceConnection:
    settings = aioice_seams.IceSettings(("127.0.0.1",), None, 8, lambda why: drops.append(why))
    return IceConnection(settings, None, None)


@pytest.mark.parametrize("phase", [0.0, 0.2, 0.49, 0.51, 0.8, 0.99])
async def test_who_vanishes_in_the_midst_of_sending_is_noticed_within_ten_seconds(
    phase: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the default of 8 s, in a time of its own; it hangs on when the questions fall."""
    connection = ice_connection([])
    now, last_heard = 0.0, 100 + phase
    closed: list[float] = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        connection._heard_s = max(connection._heard_s, min(now, last_heard))

    async def ask() -> bool:
        nonlocal now
        if now < last_heard:
            return True
        now += 1.5  # aioice asks twice, and waits 0.5 s and 1 s
        return False

    async def close() -> None:
        closed.append(now)

    monkeypatch.setattr(connection, "_now", lambda: now)
    monkeypatch.setattr(connection, "_ask_consent", ask)
    monkeypatch.setattr(connection, "close", close)
    monkeypatch.setattr(asyncio, "sleep", sleep)
    await connection.query_consent()
    assert connection.expired
    assert 8 < closed[0] - last_heard <= 9.5


async def test_checks_from_ever_new_ports_do_not_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drops: list[str] = []
    connection = ice_connection(drops)
    await connection.gather_candidates()
    monkeypatch.setattr(connection, "check_start_task", lambda _pair: None)
    message = aioice.stun.Message(
        message_method=aioice.stun.Method.BINDING, message_class=aioice.stun.Class.REQUEST
    )
    message.attributes["PRIORITY"] = 1
    for port in range(20_000, 20_300):
        connection.check_incoming(message, ("127.0.0.1", port), connection._protocols[0])
    assert len(connection._remote_candidates) == len(connection._check_list) == 64
    assert drops == ["flood"] * (300 - 64)
    await connection.close()
