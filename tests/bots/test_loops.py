"""What bots show and say: loops that decode, differ from bot to bot, and end where they begin."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import pairwise

import av
import numpy as np
import pytest

from calliope import vp8
from calliope.bots.loops import (
    PICTURE_LOOP_S,
    SoundPacket,
    pitch_hz,
    record_picture,
    record_sound,
)
from calliope.bots.portrait import Portrait, yuv
from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ

W, H, FPS = 160, 96, 5


def _decode(loop: Sequence[Sequence[bytes]]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frames: list[av.VideoFrame] = []
    for payloads in loop:
        data = b"".join(vp8.parse_payload(payload).data for payload in payloads)
        frames += decoder.decode(av.Packet(data))
    return frames


@functools.cache
def _sound(seed: int) -> tuple[SoundPacket, ...]:
    return record_sound(seed)


def _hear(loop: Sequence[SoundPacket]) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    decoder = av.CodecContext.create("libopus", "r")
    assert isinstance(decoder, av.AudioCodecContext)
    decoder.sample_rate, decoder.layout, decoder.format = AUDIO_CLOCK_HZ, "mono", "s16"
    blocks = [
        frame.to_ndarray().ravel()
        for packet in loop
        for frame in decoder.decode(av.Packet(packet.data))
    ]
    return np.concatenate(blocks).astype(np.float64)


def test_a_picture_loop_decodes_to_the_portrait_it_was_drawn_from() -> None:
    frames = _decode(record_picture(1, W, H, FPS))
    assert len(frames) == PICTURE_LOOP_S * FPS
    luma, _, _ = Portrait(1, W, H).draw(0.5)
    shown = frames[len(frames) // 2].to_ndarray(format="yuv420p")[:H]
    error = np.mean((shown.astype(float) - luma) ** 2)
    assert 10 * np.log10(255**2 / error) > 28


def test_only_the_first_frame_of_a_loop_is_a_keyframe() -> None:
    loop = record_picture(2, W, H, FPS)
    keys = [vp8.is_keyframe(vp8.parse_payload(payloads[0]).data) for payloads in loop]
    assert keys == [True] + [False] * (len(loop) - 1)
    first = vp8.parse_payload(loop[0][0]).data
    assert vp8.read_keyframe_size(first) == (W, H)


def test_a_loop_ends_where_it_begins_and_moves_in_between() -> None:
    portrait = Portrait(0, W, H)
    begin, end, middle = (portrait.draw(turn)[0].astype(float) for turn in (0.0, 1.0, 0.5))
    noise = 5  # levels, in the mean of the largest differences
    assert np.abs(begin - end).mean() < noise
    assert np.percentile(np.abs(begin - middle), 99) > 40


def test_neighbouring_bots_are_told_apart_by_colour() -> None:
    walls = []
    for seed in range(8):
        _, u, v = Portrait(seed, W, H).draw(0)
        walls.append((float(u[2, 2]), float(v[2, 2])))
    for seed in range(7):
        (u0, v0), (u1, v1) = walls[seed], walls[seed + 1]
        assert np.hypot(u0 - u1, v0 - v1) > 15


def test_portraits_stay_in_limited_range_and_are_alike_at_any_size() -> None:
    large, small = Portrait(3, 4 * W, 4 * H).draw(0.2), Portrait(3, W, H).draw(0.2)
    for plane in (*large, *small):
        assert plane.dtype == np.uint8
        assert plane.min() >= 16
        assert plane.max() <= 240
    shrunk = large[0].reshape(H, 4, W, 4).mean(axis=(1, 3))
    assert np.abs(shrunk - small[0]).mean() < 5
    assert large[1].shape == (2 * H, 2 * W)


@pytest.mark.parametrize(
    ("rgb_as_hsv", "expected"),
    [
        ((0, 0, 1), (235, 128, 128)),
        ((0, 0, 0), (16, 128, 128)),
        ((0, 1, 1), (81.5, 90.2, 240)),  # pure red in BT.601
    ],
)
def test_colours_are_bt601_limited(
    rgb_as_hsv: tuple[float, float, float], expected: tuple[float, float, float]
) -> None:
    assert yuv(*rgb_as_hsv) == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize("seed", [0, 3, 7])
def test_a_voice_is_heard_at_its_own_pitch(seed: int) -> None:
    loop = _sound(seed)
    sound = _hear(loop)
    spectrum = np.abs(np.fft.rfft(sound))
    loudest = np.argmax(spectrum) * AUDIO_CLOCK_HZ / len(sound)
    assert loudest == pytest.approx(pitch_hz(seed), abs=8)
    assert np.abs(sound).max() < 0.3 * 32768  # gentle


def test_ten_bots_have_ten_pitches() -> None:
    assert len({round(pitch_hz(seed)) for seed in range(10)}) == 10


def test_a_voice_speaks_and_pauses_and_its_levels_say_so() -> None:
    loop = _sound(0)
    sound = _hear(loop)
    voiced = [packet.voiced for packet in loop]
    assert 0.1 < np.mean(voiced) < 0.5
    assert sum(a != b for a, b in pairwise(voiced)) < 40
    delay = 312  # samples by which Opus comes later (RFC 7845 section 4.2)
    for index in range(1, len(loop) - 2):
        begin = index * AUDIO_BLOCK_SAMPLES + delay
        block = sound[begin : begin + AUDIO_BLOCK_SAMPLES] / 32768
        heard = -10 * np.log10(np.mean(block**2) + 1e-13)
        if loop[index].level < 40:
            assert heard == pytest.approx(loop[index].level, abs=6)
        if loop[index].level == 127 == loop[index - 1].level:
            assert heard > 60


def test_bots_begin_to_speak_at_different_times() -> None:
    begins = [
        next(i for i, (a, b) in enumerate(pairwise((loop[-1], *loop))) if not a.voiced and b.voiced)
        for loop in map(_sound, (0, 3, 7))
    ]
    assert len(set(begins)) == 3
