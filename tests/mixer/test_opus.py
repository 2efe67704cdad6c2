"""libopus as we call it: durations, decoding, concealment, copied states."""

from __future__ import annotations

import ctypes
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.errors import SeamError
from calliope.mixer.opus import (
    OpusDecoder,
    OpusEncoder,
    OpusError,
    load_library,
    packet_samples,
)
from tests.mixer.sound import Microphone, largest_bend, power_db, speech, tone


@given(st.binary(max_size=60))
def test_a_packets_duration_is_what_libopus_says(packet: bytes) -> None:
    theirs = load_library().opus_packet_get_nb_samples(packet, len(packet), 48_000)
    assert packet_samples(packet) == max(0, theirs)


@pytest.mark.parametrize("samples", [120, 240, 480, 960, 1_920, 2_880])
def test_every_duration_decodes_to_its_length(samples: int) -> None:
    microphone, decoder = Microphone(samples=samples), OpusDecoder()
    out = np.zeros(5_760, np.int16)
    packet = microphone.encode(tone(440, samples / 48_000))
    assert packet_samples(packet) == samples
    assert decoder.decode(packet, out) == samples


def test_a_tone_survives_encoding_and_decoding() -> None:
    encoder, decoder = OpusEncoder(32), OpusDecoder()
    sound, out = tone(1_000, 1.0), np.zeros(48_000, np.int16)
    for i in range(0, 48_000, 960):
        assert decoder.decode(encoder.encode(sound[i : i + 960]), out[i:]) == 960
    assert power_db(out[24_000:], 1_000) == pytest.approx(-20, abs=1)


def test_a_copied_encoder_goes_on_with_the_very_same_packets() -> None:
    sound = tone(300, 1.0)
    blocks = sound.reshape(-1, 960)
    one, other = OpusEncoder(32), OpusEncoder(32)
    for block in blocks[:20]:
        one.encode(block)
    other.copy_state(one)
    assert [one.encode(b) for b in blocks[20:]] == [other.encode(b) for b in blocks[20:]]


def test_a_reset_encoder_is_like_a_new_one() -> None:
    block = tone(300, 0.02)
    used, new = OpusEncoder(32), OpusEncoder(32)
    for _ in range(5):
        used.encode(block)
    used.reset()
    assert used.encode(block) == new.encode(block)


def test_a_lost_packet_is_replaced_by_something_alike_without_a_click() -> None:
    microphone, decoder = Microphone(), OpusDecoder()
    packets = [microphone.encode(b) for b in tone(400, 1.0).reshape(-1, 960)]
    out = np.zeros((50, 5_760), np.int16)
    for i, packet in enumerate(packets):
        if i == 30:
            decoder.conceal(960, out[i], packets[i + 1])
        else:
            decoder.decode(packet, out[i])
    heard = np.ascontiguousarray(out[20:40, :960]).reshape(-1)
    assert power_db(heard[10 * 960 : 11 * 960], 400) > -24
    assert largest_bend(heard) < 4 * 0.1 * (2 * np.pi * 400 / 48_000) ** 2


def test_forward_error_correction_brings_back_what_extrapolation_cannot() -> None:
    microphone, sound = Microphone(voip=True), speech(2.0)
    packets = [microphone.encode(b) for b in sound.reshape(-1, 960)]
    lost = range(25, 95, 10)

    def hear(corrected: bool | None) -> npt.NDArray[np.float64]:
        decoder, out = OpusDecoder(), np.zeros((100, 5_760), np.int16)
        for i, packet in enumerate(packets):
            if i in lost and corrected is not None:
                decoder.conceal(960, out[i], packets[i + 1] if corrected else None)
            else:
                decoder.decode(packet, out[i])
        return out[lost, :960].astype(np.float64)

    whole = hear(None)
    error = {corrected: np.square(hear(corrected) - whole).sum() for corrected in (True, False)}
    assert error[True] < error[False] / 3


def test_garbage_is_an_opus_error_and_the_decoder_lives_on() -> None:
    microphone, decoder = Microphone(), OpusDecoder()
    out = np.zeros(5_760, np.int16)
    with pytest.raises(OpusError):
        decoder.decode(b"\xff\xff\xff", out)
    assert decoder.decode(microphone.encode(tone(400, 0.02)), out) == 960


def test_concealment_from_a_bad_following_packet_is_silence() -> None:
    out = np.ones(5_760, np.int16)
    OpusDecoder().conceal(960, out, b"\xff\xff\xff")
    assert not out[:960].any()


def test_a_machine_without_libopus_is_told_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(name: str) -> ctypes.PyDLL:
        raise OSError(name)

    monkeypatch.setattr(av, "__file__", str(tmp_path / "av" / "__init__.py"))
    monkeypatch.setattr(ctypes, "PyDLL", refuse)
    with pytest.raises(SeamError, match="libopus0"):
        load_library.__wrapped__()
