"""One frame to many viewers in one call: each gets it under its own numbers and keys."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from calliope.clock import FakeClock
from calliope.media import EncodedFrame
from calliope.metrics import Metrics
from calliope.transport import volley
from calliope.transport.burst import BURST_PACKETS, Template
from calliope.transport.fanout import VideoOut
from calliope.transport.rtp import RtpPacket, read_packet
from calliope.transport.timeline import Timeline
from calliope.transport.volley import Volley
from tests.transport.media_peers import GreyMixer, GreyTrack, StockCall, dropped, until
from tests.transport.test_burst import PROFILES, Ends

PAYLOADS = (b"a" * 900, b"b" * 900, b"c" * 31)
TIME_AT = 17  # behind 12 bytes of header, 4 of the extensions' and one that says which it is


class Crowd:
    """Some viewers, each with a socket, keys and an SSRC of its own."""

    def __init__(self, count: int) -> None:
        self.clock, self.metrics = FakeClock(), Metrics()
        self.timeline = Timeline(self.clock)
        self.volley = Volley(self.clock, self.metrics)
        profiles = list(PROFILES)
        self.ends = [Ends(profiles[n % len(profiles)]) for n in range(count)]
        self.templates = [
            Template(self.header(n), TIME_AT, self.timeline.unix_offset_ns) for n in range(count)
        ]
        for ends in self.ends:
            ends.burst.aim(ends.source, ends.address)

    def header(self, number: int) -> bytes:
        fixed = bytes((0x90, 96)) + bytes(6) + (1000 + number).to_bytes(4, "big")
        return fixed + b"\xbe\xde\x00\x01\x32\x00\x00\x00"

    def add(self, number: int, payloads: tuple[bytes, ...], sequence: int, timestamp: int) -> None:
        self.volley.add(
            payloads, self.ends[number].burst, self.templates[number], sequence, timestamp
        )

    def receive(self, number: int, count: int) -> list[RtpPacket]:
        return [read_packet(self.ends[number].receive()) for _ in range(count)]

    def close(self) -> None:
        for ends in self.ends:
            ends.close()


@pytest.fixture
def crowd() -> Iterator[Crowd]:
    made = Crowd(5)
    yield made
    made.close()


def nothing_came(crowd: Crowd, number: int) -> bool:
    sink = crowd.ends[number].sink
    sink.setblocking(False)
    try:
        sink.recv(2048)
    except BlockingIOError:
        return True
    finally:
        sink.settimeout(10)
    return False


async def test_each_viewer_gets_the_frame_under_its_own_numbers(crowd: Crowd) -> None:
    for number in range(5):
        crowd.add(number, PAYLOADS, 65_534 - number, 0xFFFF_FFF0 + number)
    assert nothing_came(crowd, 0)  # it goes out in the loop's next turn, all at once
    await asyncio.sleep(0)
    for number in range(5):
        packets = crowd.receive(number, 3)
        assert [p.payload for p in packets] == list(PAYLOADS)
        assert [p.sequence for p in packets] == [(65_534 - number + n) & 0xFFFF for n in range(3)]
        assert {p.timestamp for p in packets} == {0xFFFF_FFF0 + number}
        assert {p.ssrc for p in packets} == {1000 + number}
        assert [p.marker for p in packets] == [False, False, True]


async def test_packets_say_when_they_were_sent(crowd: Crowd) -> None:
    """The abs-send-time extension: the middle of NTP's 64 bits."""
    for turn, step_ns in enumerate((0, 1_234_567, 63_999_999_999)):
        crowd.clock.advance(ns=step_ns)
        crowd.add(0, PAYLOADS, 10 * turn, 9)
        await asyncio.sleep(0)
        stamp = (crowd.timeline.ntp_now() >> 14) & 0xFF_FFFF
        for _ in PAYLOADS:
            plain = crowd.ends[0].receive()
            assert int.from_bytes(plain[TIME_AT : TIME_AT + 3], "big") == stamp


async def test_different_frames_in_one_turn_reach_whom_they_are_for(crowd: Crowd) -> None:
    other = (b"x" * 40,)
    for number in range(5):
        crowd.add(number, other if number % 2 else PAYLOADS, 1, 2)
    await asyncio.sleep(0)
    for number in range(5):
        wanted = other if number % 2 else PAYLOADS
        assert [p.payload for p in crowd.receive(number, len(wanted))] == list(wanted)


async def test_a_frame_longer_than_a_burst_keeps_its_numbers(crowd: Crowd) -> None:
    payloads = tuple(bytes([n]) * (50 + n) for n in range(BURST_PACKETS + 3))
    crowd.add(0, payloads, 65_530, 1)
    crowd.add(1, payloads, 10, 1)
    await asyncio.sleep(0)
    for number, first in ((0, 65_530), (1, 10)):
        packets = crowd.receive(number, len(payloads))
        assert [p.payload for p in packets] == list(payloads)
        assert [p.sequence for p in packets] == [(first + n) & 0xFFFF for n in range(len(payloads))]
        assert [p.marker for p in packets] == [False] * (len(payloads) - 1) + [True]


async def test_a_socket_that_is_gone_is_counted_and_harms_nobody_else(crowd: Crowd) -> None:
    gone = crowd.ends[2]
    gone.source.close()
    gone.burst.aim(gone.source, gone.address)
    for number in range(5):
        crowd.add(number, PAYLOADS, 5, 6)
    await asyncio.sleep(0)
    for number in (0, 1, 3, 4):
        assert [p.payload for p in crowd.receive(number, 3)] == list(PAYLOADS)
    assert dropped(crowd.metrics, "network", "socket") == 3


async def test_a_call_takes_so_many_viewers_and_no_more(
    crowd: Crowd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(volley, "ENTRIES_MAX", 3)
    for number in range(3):
        crowd.add(number, PAYLOADS, 5, 6)
    assert [p.payload for p in crowd.receive(2, 3)] == list(PAYLOADS)  # the loop had no turn yet
    crowd.add(3, PAYLOADS, 5, 6)
    assert nothing_came(crowd, 3)
    await asyncio.sleep(0)
    assert [p.payload for p in crowd.receive(3, 3)] == list(PAYLOADS)


async def test_a_stock_client_shows_what_came_in_volleys(monkeypatch: pytest.MonkeyPatch) -> None:
    call = StockCall(video=GreyTrack())
    await call.offer()
    mixer = GreyMixer()
    volleys = Volley(FakeClock(), call.metrics)
    together = 0
    add = volleys.add

    def count(*what: object) -> None:
        nonlocal together
        together += 1
        add(*what)  # type: ignore[arg-type]

    monkeypatch.setattr(volleys, "add", count)
    out = VideoOut(call.metrics, mixer.request_keyframe, volleys)
    out.attach(call.sender("video"))
    await call.answer()
    playing = asyncio.ensure_future(mixer.play(out.push))
    async with asyncio.timeout(30):
        for _ in range(20):
            shown = await call.remote_tracks["video"].recv()
        assert (shown.width, shown.height) == (320, 240)  # type: ignore[union-attr]
    assert together >= 20
    await until(lambda: out.rtt_ms is not None)
    playing.cancel()
    out.close()
    await call.close()
    together = 0
    out.push(EncodedFrame((b"x",), True, 0))
    assert together == 0
