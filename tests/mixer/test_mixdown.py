"""Summing and limiting: against a slow NumPy twin, and the limiter's promises."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.mixer.mixdown import CEILING, Mixdown
from calliope.mixer.opus import Samples
from tests.mixer.sound import tone

ROW = np.zeros(1, np.int64)
LATE = 120


def integers(sound: Samples) -> npt.NDArray[np.int16]:
    return np.round(sound * 32_768).clip(-32_768, 32_767).astype(np.int16)


def run_blocks(mixdown: Mixdown, voices: npt.NDArray[np.int16]) -> Samples:
    """Mix (slots, samples) block by block into row 0."""
    heard = []
    for first in range(0, voices.shape[1], 960):
        mixdown.blocks[:] = voices[:, first : first + 960]
        mixdown.run(ROW)
        heard.append(mixdown.mixes[0].copy())
    return np.concatenate(heard)


def test_quiet_voices_are_summed_exactly_and_come_a_grain_later() -> None:
    voices = np.stack([integers(tone(440, 0.1)), integers(tone(700, 0.1))])
    mixdown = Mixdown(2, 1)
    mixdown.gains[:] = mixdown.targets[:] = 1.0
    heard = run_blocks(mixdown, voices)
    wanted = voices.astype(np.float64).sum(axis=0) / 32_768
    np.testing.assert_allclose(heard[LATE:], wanted[:-LATE], atol=1e-6)


def test_a_gain_reaches_its_target_in_a_straight_line_over_one_block() -> None:
    voices = np.full((1, 1_920), 8_192, np.int16)
    mixdown = Mixdown(1, 1)
    mixdown.targets[:] = 1.0
    heard = run_blocks(mixdown, voices)
    np.testing.assert_allclose(heard[LATE : LATE + 960], np.arange(960) / 960 / 4, atol=1e-5)
    np.testing.assert_allclose(heard[LATE + 960 :], 0.25, atol=1e-5)
    assert mixdown.gains[0, 0] == 1.0


def test_every_mix_has_gains_of_its_own() -> None:
    mixdown = Mixdown(2, 3)
    mixdown.blocks[0], mixdown.blocks[1] = 1_000, 3_000
    mixdown.targets[:] = np.array([[1, 1], [0, 1], [1, 0.5]])
    mixdown.gains[:] = mixdown.targets
    rows = np.arange(3)
    mixdown.run(rows)
    mixdown.run(rows)
    np.testing.assert_allclose(mixdown.mixes[:, 500] * 32_768, [4_000, 3_000, 2_500], rtol=1e-4)
    np.testing.assert_allclose(mixdown.powers * 32_768**2, [1_000**2, 3_000**2], rtol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    slots=st.integers(1, 8),
    loudness=st.lists(st.sampled_from([0, 300, 8_000, 32_767]), min_size=3, max_size=6),
)
def test_nothing_ever_passes_the_ceiling(seed: int, slots: int, loudness: list[int]) -> None:
    """However loud, however many, and wherever in a block it begins."""
    rng = np.random.default_rng(seed)
    envelope = np.repeat(loudness, 960)
    envelope[: rng.integers(0, 960)] = 0
    voices = (rng.choice([-1, 1], (slots, len(envelope))) * envelope).astype(np.int16)
    mixdown = Mixdown(slots, 1)
    mixdown.targets[:] = rng.uniform(0, 2, slots)
    heard = run_blocks(mixdown, voices)
    assert np.abs(heard).max() <= CEILING * (1 + 1e-5)
    assert mixdown.peaks[0] == np.abs(heard[-960:]).max()


def test_the_limiter_never_steps() -> None:
    """The gain it applies is a chain of ramps: no sample to sample jump above 1/120."""
    level = np.full((1, 9_600), 0.5, np.float32)
    level[0, 2_000:4_000] = 0.99
    mixdown = Mixdown(1, 1)
    mixdown.gains[:] = mixdown.targets[:] = 2.0
    heard = run_blocks(mixdown, integers(level))
    sounded = (integers(level)[0] / 32_768 * 2)[:-LATE]
    gain = heard[LATE:] / sounded
    assert np.abs(np.diff(gain)).max() <= 1 / 120
    assert gain[3_000] == pytest.approx(CEILING / 1.98, rel=0.01)


def test_the_limiter_lets_go_again_within_a_quarter_of_a_second() -> None:
    level = np.full((1, 24_000), 0.4, np.float32)
    level[0, 960:1_920] = 0.99
    mixdown = Mixdown(1, 1)
    mixdown.gains[:] = mixdown.targets[:] = 2.0
    heard = run_blocks(mixdown, integers(level))
    np.testing.assert_allclose(heard[1_920 + 12_000 + LATE :], 0.8, rtol=1e-3)


def test_a_copied_row_goes_on_exactly_alike() -> None:
    rng = np.random.default_rng(7)
    mixdown = Mixdown(2, 2)
    mixdown.targets[:] = 2.0
    for _ in range(3):
        mixdown.blocks[:] = rng.integers(-32_000, 32_000, (2, 960))
        mixdown.run(ROW)
    mixdown.copy_row(0, 1)
    mixdown.blocks[:] = rng.integers(-32_000, 32_000, (2, 960))
    mixdown.run(np.arange(2))
    np.testing.assert_array_equal(mixdown.mixes[0], mixdown.mixes[1])


def test_silence_is_digital_silence() -> None:
    mixdown = Mixdown(2, 1)
    mixdown.targets[:] = 1.0
    mixdown.blocks[:] = 5_000
    mixdown.run(ROW)
    mixdown.blocks[:] = 0
    mixdown.run(ROW)
    mixdown.run(ROW)
    assert mixdown.peaks[0] == 0.0
    assert not mixdown.mixes[0].any()
