"""Taps: exact totals, exact footprints, never beyond the source."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.mixer.resample import Span, Taps, taps
from tests.mixer.planes import matrix


def dense(found: Taps, length: int) -> np.ndarray:
    result = np.zeros((found.start.size, length))
    for index in range(found.start.size):
        for tap in range(found.width):
            result[index, found.start[index] + tap] += found.weight[index, tap] / found.unit
    return result


def test_five_to_two_by_hand() -> None:
    found = taps(5, Span(0, 5, 1), 2)
    assert found.start.tolist() == [0, 2]
    assert found.rounded(100).tolist() == [[40, 40, 20], [20, 40, 40]]


def test_two_to_one_takes_the_mean() -> None:
    found = taps(6, Span(0, 6, 1), 3)
    assert found.start.tolist() == [0, 2, 4]
    assert found.rounded(100).tolist() == [[50, 50]] * 3


def test_one_to_one_takes_the_sample() -> None:
    found = taps(4, Span(0, 4, 1), 4)
    assert found.start.tolist() == [0, 1, 2, 3]
    assert found.rounded(100).tolist() == [[100]] * 4


def test_enlarging_interpolates_between_centres_and_clamps_at_the_edges() -> None:
    found = taps(2, Span(0, 2, 1), 4)
    assert found.start.tolist() == [0, 0, 0, 0]
    assert found.rounded(100).tolist() == [[100, 0], [75, 25], [25, 75], [0, 100]]


def test_a_single_sample_fills_everything() -> None:
    assert taps(1, Span(0, 1, 1), 3).rounded(100).tolist() == [[100]] * 3


@given(data=st.data())
def test_taps_are_the_exact_average_or_interpolation(data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 90), "length")
    count = data.draw(st.integers(1, 60), "count")
    scale = data.draw(st.integers(1, 12), "scale")
    origin = data.draw(st.integers(0, length * scale - 1), "origin")
    extent = data.draw(st.integers(1, length * scale - origin), "extent")
    span = Span(origin, extent, scale)
    found = taps(length, span, count)
    assert (found.weight.sum(axis=1) == found.unit).all()
    assert (found.rounded(16384).sum(axis=1) == 16384).all()
    assert found.start.min() >= 0
    assert found.start.max() + found.width <= length
    assert np.abs(dense(found, length) - matrix(length, span, count)).max() < 1e-9


@pytest.mark.parametrize(
    ("length", "span", "count"),
    [
        (4, Span(0, 0, 1), 2),
        (4, Span(0, 4, 1), 0),
        (4, Span(-1, 3, 1), 2),
        (4, Span(2, 7, 2), 2),
    ],
)
def test_a_span_outside_the_source_is_refused(length: int, span: Span, count: int) -> None:
    with pytest.raises(ValueError, match=r"nothing to sample|leaves a source"):
        taps(length, span, count)
