"""What bots count: frames, freezes, losses, the first picture; all of it, and by headers alone."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest
from aiortc.rtp import RTCP_PSFB_APP, RtcpPacket, RtcpPsfbPacket, unpack_remb_fci

from calliope.bots import tally as tally_module
from calliope.bots.loops import record_picture
from calliope.bots.sink import SAMPLE, Sink
from calliope.bots.tally import ESTIMATE_BPS, Tally
from calliope.clock import FakeClock
from calliope.transport.aiortc_seams import Format, MediaReceiver, MediaTransport
from calliope.transport.rtp import RtpPacket, read_packet

SSRC = 0x1234
FRAME_MS = 33


class Receiver:
    """A receiver as far as tallies know one."""

    def __init__(self) -> None:
        self.formats = {96: Format("VP8", 90_000), 97: Format("RTX", 90_000, repairs=96)}
        self.own_ssrc = 7
        self.sent: list[Any] = []

    def attach(self, sink: object) -> None:
        pass

    def send_rtcp(self, packets: Iterable[Any]) -> None:
        self.sent += RtcpPacket.parse(b"".join(bytes(packet) for packet in packets))


class Connection:
    """A transport and its connection in one, as far as sinks know them."""

    def __init__(self, tally: Tally) -> None:
        self.connection = self
        self.on_media = self.take
        self.full = 0
        self._tally = tally

    def take(self, data: bytes) -> None:
        self.full += 1
        if not 192 <= data[1] <= 223:
            self._tally.receive_rtp(read_packet(data[:-10]))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def tally(clock: FakeClock) -> AsyncIterator[Tally]:
    made = Tally(clock)
    made.attach(cast(MediaReceiver, Receiver()))
    yield made
    made.stopped()


@pytest.fixture(scope="module")
def frames() -> list[tuple[bytes, ...]]:
    """The payloads of a loop: the first is a keyframe of several packets."""
    loop = list(record_picture(1, 320, 180, 10))
    assert len(loop[0]) > 1
    return loop


def packets(frames: Iterable[tuple[bytes, ...]], sequence: int = 65_530) -> list[list[RtpPacket]]:
    made = []
    for number, payloads in enumerate(frames):
        frame = []
        for index, payload in enumerate(payloads):
            last = index == len(payloads) - 1
            frame.append(
                RtpPacket(96, last, sequence & 0xFFFF, number * 3000, SSRC, payload, 0, b"")
            )
            sequence += 1
        made.append(frame)
    return made


def feed(tally: Tally, clock: FakeClock, frames: Iterable[Iterable[RtpPacket]]) -> None:
    for frame in frames:
        clock.advance(ms=FRAME_MS)
        for packet in frame:
            tally.receive_rtp(packet)


async def test_the_first_picture_is_there_with_the_last_packet_of_the_first_keyframe(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]]
) -> None:
    (key, *_), begun_ns = packets(frames), clock.now_ns()
    feed(tally, clock, [key[:-1]])
    assert tally.first_frame_ns is None
    feed(tally, clock, [key[-1:]])
    assert tally.first_frame_ns == begun_ns + 2 * FRAME_MS * 1_000_000


async def test_a_keyframe_with_a_hole_is_no_first_picture(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]]
) -> None:
    key, *others = packets([*frames[:4], *frames])
    feed(tally, clock, [key[:1] + key[2:], *others[:3]])
    assert tally.first_frame_ns is None
    assert tally.counts().lost == 1
    feed(tally, clock, others[3:])
    assert tally.first_frame_ns is not None


async def test_gaps_over_200_ms_are_freezes_also_the_one_that_is_open(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]]
) -> None:
    first, second, third, *_ = packets(frames)
    feed(tally, clock, [first])
    tally.mark()
    clock.advance(ms=300)
    feed(tally, clock, [second, third])
    counts = tally.counts()
    assert (counts.freezes, counts.frames) == (1, 2)
    assert counts.frozen_s == pytest.approx(0.333)
    clock.advance(ms=500)
    counts = tally.counts()
    assert counts.freezes == 2
    assert counts.longest_gap_s == pytest.approx(0.5)
    assert counts == tally.counts()
    tally.mark()
    assert tally.counts().freezes == 0


async def test_the_sender_is_told_what_the_link_carries(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tally_module, "_ESTIMATE_S", 0.01)
    receiver = cast(Receiver, tally.receiver)
    feed(tally, clock, packets(frames[:2]))
    async with asyncio.timeout(5):
        while len(receiver.sent) < 3:  # noqa: ASYNC110 - sent by a timer
            await asyncio.sleep(0.01)
    for packet in receiver.sent[:3]:
        assert isinstance(packet, RtcpPsfbPacket)
        assert packet.fmt == RTCP_PSFB_APP
        bps, ssrcs = unpack_remb_fci(packet.fci)
        assert bps == pytest.approx(ESTIMATE_BPS, rel=0.01)
        assert ssrcs == [SSRC]


def datagram(packet: RtpPacket) -> bytes:
    """As on the wire: an extension block, ten bytes of tag."""
    head = struct.pack(
        "!BBHLLHHL", 0x90, packet.marker << 7 | packet.payload_type, packet.sequence,
        packet.timestamp, packet.ssrc, 0xBEDE, 1, 0,
    )  # fmt: skip
    return head + packet.payload + bytes(10)


async def test_a_sink_counts_by_headers_what_a_tally_counts_in_full(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]]
) -> None:
    stream = packets(frames)
    del stream[20][0]  # one is lost
    full = Tally(clock)
    full.attach(cast(MediaReceiver, Receiver()))
    transport = Connection(tally)
    sink = Sink(cast(MediaTransport, transport), tally, Tally(clock))
    for frame in stream:
        feed(full, clock, [frame])
        for packet in frame:
            transport.on_media(datagram(packet))
    full.stopped()
    assert tally.counts() == full.counts()
    assert tally.first_frame_ns == full.first_frame_ns
    assert tally.packets / SAMPLE - 1 <= sink.sampled < tally.packets / 4
    assert transport.full < tally.packets / 2


async def test_a_sink_gives_all_rtcp_to_the_connection(
    tally: Tally, clock: FakeClock, frames: list[tuple[bytes, ...]]
) -> None:
    transport = Connection(tally)
    Sink(cast(MediaTransport, transport), tally, Tally(clock))
    for packet in packets(frames)[0]:
        transport.on_media(datagram(packet))
    before = transport.full
    for _ in range(5):
        transport.on_media(bytes([0x80, 200]) + bytes(26))
    assert transport.full == before + 5
