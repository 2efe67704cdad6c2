"""The marks: clear at small sizes, and not to be mistaken for each other."""

from __future__ import annotations

from itertools import combinations
from typing import get_args

import numpy as np
import pytest

from calliope.mixer.marks import MarkKind, draw_mark

_KINDS: tuple[MarkKind, ...] = get_args(MarkKind)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("size_px", [14, 18, 24, 40])
def test_a_mark_fills_its_square_with_solid_and_clear_parts(kind: MarkKind, size_px: int) -> None:
    mask = draw_mark(kind, size_px)
    assert mask.shape == (size_px, size_px)
    assert mask.dtype == np.uint8
    assert np.mean(mask > 200) > 0.15
    assert np.mean(mask < 50) > 0.3
    rows, columns = np.flatnonzero(mask.max(axis=1) > 100), np.flatnonzero(mask.max(axis=0) > 100)
    assert np.ptp(rows) >= 0.7 * size_px
    assert np.ptp(columns) >= 0.65 * size_px


def test_marks_differ_widely_at_14_pixels() -> None:
    for one, other in combinations(_KINDS, 2):
        apart = np.abs(draw_mark(one, 14).astype(int) - draw_mark(other, 14)).mean()
        assert apart > 40


@pytest.mark.parametrize("kind", ["muted", "stalled"])
def test_the_slash_is_cut_free_of_what_it_crosses(kind: MarkKind) -> None:
    mask = draw_mark(kind, 48)
    across = [int(mask[22 - step, 22 + step]) for step in range(-6, 7)]  # at right angles to it
    assert across[6] > 200
    assert min(across[:6]) < 60
    assert min(across[7:]) < 60


def test_edges_are_soft() -> None:
    mask = draw_mark("hand", 24)
    assert np.any((mask > 60) & (mask < 190))
