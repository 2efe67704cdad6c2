"""What the audio mixer costs: one 20 ms tick of a full room, and the parts of it.

The goal for 25 people of whom 4 talk is 4% of a core: 800 us a tick. Every round takes in one
packet from everybody, as browsers send them (``voip``, 32 kbit/s, FEC), and delivers one block.
CPU time of the thread, so that a busy machine does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import pytest

from calliope.clock import FakeClock
from calliope.config import AudioConfig
from calliope.media import AudioPacket
from calliope.metrics import Metrics
from calliope.mixer.audio import AudioMixer
from calliope.mixer.mixdown import Mixdown
from calliope.mixer.opus import OpusDecoder, OpusEncoder
from calliope.mixer.voice import Voice
from tests.mixer.sound import BLOCK, Microphone, speech

pytestmark = pytest.mark.benchmark(timer=time.thread_time)

PEOPLE = 25
BLOCKS = 100

Benchmark: TypeAlias = Callable[[Callable[[], object]], object]


@pytest.fixture(scope="module")
def payloads() -> list[bytes]:
    """Two seconds of something like speech."""
    microphone = Microphone(voip=True)
    return [microphone.encode(block) for block in speech(BLOCKS / 50).reshape(-1, BLOCK)]


@pytest.mark.parametrize("talking", [0, 1, 2, 4, 25])
def test_tick(benchmark: Any, payloads: list[bytes], talking: int) -> None:
    benchmark.group = f"one tick, {PEOPLE} people and 100 audience"
    clock = FakeClock()
    mixer = AudioMixer(AudioConfig(), clock, Metrics(), lambda *_: None)
    voices = [mixer.new_voice() for _ in range(PEOPLE)]
    for i, voice in enumerate(voices):
        mixer.add(f"p{i}", voice)
        mixer.listen(f"p{i}")
    for i in range(100):
        mixer.listen(f"a{i}")
    turn = count()

    def tick() -> None:
        block = next(turn)
        clock.advance(ms=20)
        now_ns = clock.now_ns()
        for i, voice in enumerate(voices):
            data = payloads[(block + 7 * i) % BLOCKS]
            level = 25 if i < talking else 90
            voice.push(AudioPacket(block & 0xFFFF, block * BLOCK, data, level, now_ns))
        mixer.tick(now_ns)

    for _ in range(20):
        tick()
    benchmark(tick)


@pytest.mark.parametrize("outputs", [1, 5])
def test_mixdown_of_4_voices(benchmark: Any, outputs: int) -> None:
    benchmark.group = "parts of a tick"
    mixdown = Mixdown(8, outputs)
    mixdown.blocks[:4] = np.random.default_rng(1).integers(-9_000, 9_000, (4, BLOCK))
    mixdown.targets[:, :4] = 1.0
    rows = np.arange(outputs)
    benchmark(lambda: mixdown.run(rows))


def test_encode(benchmark: Any) -> None:
    benchmark.group = "parts of a tick"
    encoder, turn = OpusEncoder(32), count()
    blocks = speech(BLOCKS / 50).reshape(-1, BLOCK)
    benchmark(lambda: encoder.encode(blocks[next(turn) % BLOCKS]))


def test_decode(benchmark: Any, payloads: list[bytes]) -> None:
    benchmark.group = "parts of a tick"
    decoder, turn, out = OpusDecoder(), count(), np.zeros(5_760, np.int16)
    benchmark(lambda: decoder.decode(payloads[next(turn) % BLOCKS], out))


@pytest.mark.parametrize("heard", [True, False])
def test_voice(benchmark: Any, payloads: list[bytes], heard: bool) -> None:
    """Packet in, block out (or gone by): the buffer without and with the decoder."""
    benchmark.group = "parts of a tick"
    voice, turn = Voice(Metrics()), count()

    def block() -> None:
        i = next(turn)
        voice.push(AudioPacket(i & 0xFFFF, i * BLOCK, payloads[i % BLOCKS], 25, 0))
        voice.peek(0)
        if heard:
            voice.pull_block(0)
        else:
            voice.skip_block(0)

    benchmark(block)
