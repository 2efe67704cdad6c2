"""The texture's book-keeping."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.mixer.shelves import Shelves, Slot

_SIDES = st.tuples(st.integers(1, 40), st.integers(1, 30))


def _overlap(a: Slot, b: Slot) -> bool:
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


@given(st.lists(st.tuples(_SIDES, st.booleans()), max_size=60))
def test_slots_are_even_large_enough_inside_and_apart(
    wishes: list[tuple[tuple[int, int], bool]],
) -> None:
    shelves = Shelves(64, 64)
    held: list[Slot] = []
    for (w, h), keep in wishes:
        slot = shelves.reserve(w, h)
        if slot is None:
            continue
        assert slot.w >= w
        assert slot.h >= h
        assert slot.x % 2 == slot.y % 2 == slot.w % 2 == slot.h % 2 == 0
        assert slot.x + slot.w <= 64
        assert slot.y + slot.h <= 64
        assert not any(_overlap(slot, other) for other in held)
        if keep:
            held.append(slot)
        else:
            shelves.release(slot)


@given(st.lists(_SIDES, max_size=40), st.randoms())
def test_whatever_was_given_back_the_whole_texture_is_free_again(
    sizes: list[tuple[int, int]], random: Random
) -> None:
    shelves = Shelves(64, 64)
    slots = [slot for w, h in sizes if (slot := shelves.reserve(w, h)) is not None]
    random.shuffle(slots)
    for slot in slots:
        shelves.release(slot)
    assert shelves.reserve(64, 64) == Slot(0, 0, 64, 64)


def test_a_full_texture_says_so() -> None:
    shelves = Shelves(32, 8)
    assert shelves.reserve(32, 8) is not None
    assert shelves.reserve(1, 1) is None


def test_what_is_wider_than_the_texture_has_no_place() -> None:
    shelves = Shelves(32, 32)
    assert shelves.reserve(34, 4) is None
    assert shelves.reserve(32, 32) is not None  # and left nothing behind


@pytest.mark.parametrize("size", [(0, 8), (8, -2), (7, 8), (8, 7)])
def test_odd_or_empty_textures_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="even sides"):
        Shelves(*size)
