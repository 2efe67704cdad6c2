"""What one encoded frame costs to one more viewer, beside stock aiortc's way of sending it.

A frame of four packets is the mean of 720p at 1.2 Mbit/s and 30 frames a second. Both ends went
through real ICE and DTLS; the receiving end does not read, so its cost is not counted.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeAlias, cast

import pytest
from aiortc.rtp import HeaderExtensionsMap, RtpPacket

from calliope.media import EncodedFrame
from calliope.transport.fanout import VideoOut
from tests.transport.media_peers import GreyTrack, StockCall

Benchmark: TypeAlias = Callable[[Callable[[], object]], object]

PAYLOADS = {1: (os.urandom(1150),), 4: tuple(os.urandom(1150) for _ in range(4))}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def call(loop: asyncio.AbstractEventLoop) -> Iterator[StockCall]:
    async def connect() -> StockCall:
        made = StockCall(video=GreyTrack())
        await made.offer()
        await made.answer()
        for sender in made.client.getSenders():
            await sender.stop()
        return made

    made = loop.run_until_complete(connect())
    yield made
    loop.run_until_complete(made.close())


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits to its end, without a loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it waited")


@pytest.mark.parametrize("packets", PAYLOADS)
def test_stock_aiortc(benchmark: Any, call: StockCall, packets: int) -> None:
    """Its sender's loop for a frame, without the task switches between."""
    benchmark.group = f"a frame of {packets} packets to one viewer"
    transport = call.client.getTransceivers()[0].sender.transport
    extensions = HeaderExtensionsMap()
    sequence, ssrc = 0, random.getrandbits(31)
    history: dict[int, RtpPacket] = {}

    def send() -> None:
        nonlocal sequence
        for payload in PAYLOADS[packets]:
            # Another SSRC before the numbers wrap: libsrtp would take that for a replay.
            packet = RtpPacket(96, 0, sequence & 0xFFFF, 0, ssrc + (sequence >> 15), payload)
            packet.extensions.abs_send_time = 1
            packet.extensions.mid = "0"
            history[sequence % 128] = packet
            finish(transport._send_rtp(packet.serialize(extensions)))
            sequence += 1

    benchmark(send)


@pytest.mark.parametrize("packets", PAYLOADS)
@pytest.mark.parametrize("way", ["burst", "plain"])
def test_fanout(
    benchmark: Any, call: StockCall, loop: asyncio.AbstractEventLoop, packets: int, way: str
) -> None:
    benchmark.group = f"a frame of {packets} packets to one viewer"
    sender = call.sender("video")
    transport = sender.media_transport
    transport._burst, transport._plain = None, way == "plain"
    out = VideoOut(call.metrics, lambda: None)
    pts = 0

    def send() -> None:
        nonlocal pts
        pts += 3000
        out.push(EncodedFrame(PAYLOADS[packets], True, pts))

    async def begin() -> None:
        out.attach(sender)
        send()

    loop.run_until_complete(begin())
    cast(Benchmark, benchmark)(send)
    assert (transport._burst is None) == (way == "plain")

    async def end() -> None:
        out.close()

    loop.run_until_complete(end())
