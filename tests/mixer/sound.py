"""Sound for tests: tones, a microphone that sends them, a network that misbehaves, ears."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calliope.media import AudioPacket
from calliope.mixer.opus import OpusDecoder, Pcm, Samples, load_library
from calliope.mixer.voice import Voice

BLOCK = 960
TICK_NS = 20_000_000
RATE = 48_000

Float = npt.NDArray[np.float64]


def tone(hz: float, seconds: float, amplitude: float = 0.1) -> Samples:
    """A sine of whole periods a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hz * time)).astype(np.float32)


def speech(seconds: float) -> Samples:
    """Something like speech: a buzz of 130 Hz in three syllables a second, hissing between them."""
    rng = np.random.default_rng(3)
    time = np.arange(round(seconds * RATE)) / RATE
    buzz = np.zeros(len(time))
    for k in range(1, 25):
        buzz += np.sin(2 * np.pi * 130 * k * time + k * k) / k
    syllables = np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)
    hiss = rng.standard_normal(len(time)) * np.clip(np.sin(2 * np.pi * 3 * time + 2), 0, 1)
    sound: Samples = (0.1 * buzz * syllables + 0.02 * hiss).astype(np.float32)
    return sound


def power_db(sound: Pcm | Samples, hz: float) -> float:
    """How loud ``hz`` is in ``sound``, in dB, a full-scale sine being 0 (a Goertzel filter)."""
    scale = 32_768.0 if sound.dtype == np.int16 else 1.0
    window = np.hanning(len(sound))
    wave = np.exp(-2j * np.pi * hz * np.arange(len(sound)) / RATE)
    amplitude = abs(np.dot(sound.astype(np.float64) / scale * window, wave)) * 2 / window.sum()
    return float(20 * np.log10(max(amplitude, 1e-9)))


def largest_bend(sound: Pcm) -> float:
    """The largest second difference, full scale 1: a click bends a wave far more than tones do."""
    return float(np.abs(np.diff(sound.astype(np.float64), 2)).max()) / 32_768.0


class Microphone:
    """Encodes sound in packets of 2.5 to 60 ms; ``voip`` as a browser does, with FEC, else CELT."""

    def __init__(
        self,
        *,
        samples: int = BLOCK,
        timestamp: int = 1_000,
        level: int | None = 20,
        voip: bool = False,
    ) -> None:
        self.samples = samples
        self.timestamp = timestamp
        self.sequence = 65_000
        self.level = level
        self._library = load_library()
        self._state = ctypes.create_string_buffer(self._library.opus_encoder_get_size(1))
        assert self._library.opus_encoder_init(self._state, RATE, 1, 2_048 if voip else 2_049) == 0
        # bitrate, FEC, the loss that FEC is for, signal: voice or music
        for request, value in (
            (4_002, 32_000),
            (4_012, int(voip)),
            (4_014, 20),
            (4_024, 3_001 + (not voip)),
        ):
            assert self._library.opus_encoder_ctl(self._state, request, ctypes.c_int32(value)) == 0

    def encode(self, sound: Samples) -> bytes:
        """One packet of ``samples`` samples."""
        packet = ctypes.create_string_buffer(1_275)
        sound = np.ascontiguousarray(sound, np.float32)
        size = self._library.opus_encode_float(
            self._state, sound.ctypes.data, self.samples, packet, 1_275
        )
        assert size > 0
        return packet.raw[:size]

    def packet(self, sound: Samples | bytes, arrived_ns: int = 0) -> AudioPacket:
        """The next packet in a row; ``sound`` may be ready-made."""
        data = sound if isinstance(sound, bytes) else self.encode(sound)
        packet = AudioPacket(
            self.sequence & 0xFFFF, self.timestamp & 0xFFFF_FFFF, data, self.level, arrived_ns
        )
        self.sequence += 1
        self.timestamp += self.samples
        return packet

    def skip(self, samples: int) -> None:
        """Say nothing for a while (DTX): the timestamp runs on, the sequence does not."""
        self.timestamp += samples


def packets_of(sound: Samples, microphone: Microphone | None = None) -> list[AudioPacket]:
    """All of ``sound`` as packets in a row."""
    microphone = microphone or Microphone()
    size = microphone.samples
    return [microphone.packet(sound[i : i + size]) for i in range(0, len(sound) - size + 1, size)]


@dataclass
class Network:
    """Brings packets to a voice at given times and pulls a block every 20 ms."""

    voice: Voice
    now_ns: int = 0
    under_way: list[tuple[int, AudioPacket]] = field(default_factory=list)

    def send(self, packets: Iterable[AudioPacket], times_ms: Callable[[int], float]) -> None:
        """Packet ``i`` arrives ``times_ms(i)`` from now."""
        for i, packet in enumerate(packets):
            at_ns = self.now_ns + round(times_ms(i) * 1e6)
            self.under_way.append((at_ns, packet))
        self.under_way.sort(key=lambda item: item[0])

    def step(self) -> Pcm:
        """20 ms: what arrives is pushed, then one block is pulled."""
        self.arrive()
        block = self.voice.pull_block(self.now_ns)
        return np.zeros(BLOCK, np.int16) if block is None else block.copy()

    def arrive(self) -> None:
        self.now_ns += TICK_NS
        while self.under_way and self.under_way[0][0] <= self.now_ns:
            at_ns, packet = self.under_way.pop(0)
            self.voice.push(
                AudioPacket(packet.sequence, packet.timestamp_48k, packet.data, packet.level, at_ns)
            )

    def play(self, seconds: float) -> Pcm:
        """What is heard in the next ``seconds``."""
        return np.concatenate([self.step() for _ in range(round(seconds * 50))])


class Ears:
    """A browser's decoder: plays what a listener is sent, block by block."""

    def __init__(self) -> None:
        self._decoder = OpusDecoder()
        self._heard: list[Pcm] = []

    def hear(self, packet: bytes | None) -> None:
        """20 ms; None while nothing was sent (in a DTX pause)."""
        block = np.zeros(5_760, np.int16)
        if packet is None:
            self._decoder.conceal(BLOCK, block)
        else:
            assert self._decoder.decode(packet, block) == BLOCK
        self._heard.append(block[:BLOCK])

    def last(self, seconds: float) -> Pcm:
        return np.concatenate(self._heard[-round(seconds * 50) :])
