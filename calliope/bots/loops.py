"""A few seconds of picture and of sound, encoded once and played over and over.

A bot costs next to nothing while it plays: nothing is drawn or encoded any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import log10

import av
import numpy as np
import numpy.typing as npt

from calliope import vp8
from calliope.bots import timecode
from calliope.bots.portrait import Portrait
from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ

PICTURE_LOOP_S = 4
_BITS_PER_PIXEL = 0.08  # what the server asks of a camera, and at least so much:
_MIN_BPS = 120_000
_PICTURE_OPTIONS = {
    "deadline": "realtime",
    "cpu-used": "-8",
    "lag-in-frames": "0",
    "error-resilient": "1",  # lost frames must not desynchronise the probabilities
    "undershoot-pct": "95",
    "qmax": "50",
}
_OPUS_BPS = 32_000
_SILENCE_LEVEL = 127  # RFC 6464: -127 dBov
_VOICED_LEVEL = 60  # louder than this (a smaller number) counts as voice

_SCALE = (0, 2, 4, 7, 9)  # major pentatonic, in semitones: whoever speaks together sounds well
_LOWEST_HZ = 196.0  # G3
_LOUDNESS = 0.12  # of full scale
_SYLLABLE_S = 0.28
_PHRASE_S = 2.8
_FADE_S = 0.03

PIP_HZ = 3000.0
"""Above every voice, so that it is found in a mix of them."""
_PIP_BLOCKS = 3
_PIP_LOOP_BLOCKS = 50
_PIP_LOUDNESS = 0.25


@dataclass(frozen=True, slots=True)
class SoundPacket:
    """20 ms of Opus, and how loud they are (RFC 6464: 0 loudest to 127 silence).

    ``pip`` says that a pip begins with it.
    """

    data: bytes
    level: int
    pip: bool = False

    @property
    def voiced(self) -> bool:
        return self.level < _VOICED_LEVEL


def record_picture(
    seed: int, width: int, height: int, fps: int, *, stamped: bool = False
) -> tuple[tuple[bytes, ...], ...]:
    """The RTP payloads (RFC 7741) of each VP8 frame of a loop; only the first is a keyframe.

    ``stamped`` draws each frame's number into it (``timecode.py``).
    """
    portrait = Portrait(seed, width, height)
    context = av.CodecContext.create("libvpx", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base = Fraction(1, fps)
    context.framerate = Fraction(fps, 1)
    context.bit_rate = max(_MIN_BPS, round(width * height * fps * _BITS_PER_PIXEL))
    context.gop_size = 1_000_000
    context.thread_count = 1
    context.options = _PICTURE_OPTIONS
    total = PICTURE_LOOP_S * fps
    frames: list[bytes] = []
    for index in range(total):
        planes = portrait.draw(index / total)
        if stamped:
            timecode.stamp(planes, index)
        frame = av.VideoFrame.from_ndarray(
            np.concatenate([plane.ravel() for plane in planes]).reshape(height * 3 // 2, width),
            "yuv420p",
        )
        frame.pts = index
        frames += [bytes(packet) for packet in context.encode(frame)]
    frames += [bytes(packet) for packet in context.encode(None)]
    return tuple(vp8.packetise(frame) for frame in frames if frame)


def pitch_hz(seed: int) -> float:
    """The pitch of a bot's voice: two octaves of a scale, then from the bottom again."""
    octave, step = divmod(seed % (2 * len(_SCALE)), len(_SCALE))
    return _LOWEST_HZ * 2 ** (octave + _SCALE[step] / 12)


def record_sound(seed: int) -> tuple[SoundPacket, ...]:
    """A loop of packets: a phrase of soft syllables at the bot's pitch, then a pause.

    Loops differ in length and begin at different places, so that others speak all the time.
    """
    loop_s = 9 + seed * 5 % 7
    blocks = loop_s * AUDIO_CLOCK_HZ // AUDIO_BLOCK_SAMPLES
    return _encode(_voice(seed, blocks * AUDIO_BLOCK_SAMPLES))


def record_pips() -> tuple[SoundPacket, ...]:
    """A loop of one second: a high pip of 60 ms, then silence."""
    time = np.arange(_PIP_BLOCKS * AUDIO_BLOCK_SAMPLES) / AUDIO_CLOCK_HZ
    samples = np.zeros(_PIP_LOOP_BLOCKS * AUDIO_BLOCK_SAMPLES, np.int16)
    pip = _PIP_LOUDNESS * np.iinfo(np.int16).max * np.sin(2 * np.pi * PIP_HZ * time)
    samples[: len(pip)] = pip.astype(np.int16)
    first, *rest = _encode(samples)
    return SoundPacket(first.data, first.level, pip=True), *rest


def _encode(samples: npt.NDArray[np.int16]) -> tuple[SoundPacket, ...]:
    """Opus packets of mono samples, whole blocks of them."""
    blocks = samples.reshape(-1, AUDIO_BLOCK_SAMPLES)
    context = av.CodecContext.create("libopus", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = AUDIO_CLOCK_HZ
    context.layout = "mono"
    context.format = "s16"
    context.bit_rate = _OPUS_BPS
    context.options = {"application": "audio", "frame_duration": "20"}
    encoded: list[bytes] = []
    for index, block in enumerate(blocks):
        frame = av.AudioFrame.from_ndarray(block[None, :], format="s16", layout="mono")
        frame.sample_rate = AUDIO_CLOCK_HZ
        frame.pts = index * AUDIO_BLOCK_SAMPLES
        encoded += [bytes(packet) for packet in context.encode(frame)]
    return tuple(
        SoundPacket(data, _level(block)) for data, block in zip(encoded, blocks, strict=False)
    )


def _voice(seed: int, count: int) -> npt.NDArray[np.int16]:
    time = np.arange(count) / AUDIO_CLOCK_HZ
    since = (time - seed * 2.3) % (count / AUDIO_CLOCK_HZ)  # since the phrase began
    speaking = np.clip(since / _FADE_S, 0, 1) * np.clip((_PHRASE_S - since) / _FADE_S, 0, 1)
    syllable = np.sin(np.pi * (since % _SYLLABLE_S) / _SYLLABLE_S) ** 0.6
    turns = 2 * np.pi * pitch_hz(seed) * time
    tone = np.sin(turns) + 0.25 * np.sin(2 * turns) + 0.08 * np.sin(3 * turns)
    scaled = _LOUDNESS * speaking * syllable * tone * np.iinfo(np.int16).max
    return scaled.astype(np.int16)


def _level(block: npt.NDArray[np.int16]) -> int:
    power = float(np.mean(np.square(block.astype(np.float64)))) / 32768**2
    return _SILENCE_LEVEL if power < 1e-12 else min(_SILENCE_LEVEL, round(-10 * log10(power)))
