"""The order of mixed-direction names, held against FriBiDi and examples worked out by hand."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.mixer import bidi

_NEUTRAL_DIRECTION = 0x40  # FRIBIDI_PAR_ON: take the direction from the first strong letter


@pytest.fixture(scope="module")
def fribidi() -> ctypes.CDLL:
    library = ctypes.CDLL("libfribidi.so.0")
    library.fribidi_get_par_embedding_levels_ex.restype = ctypes.c_byte
    return library


def _fribidi_levels(fribidi: ctypes.CDLL, text: str) -> tuple[list[int], int]:
    """Levels and base direction by the library that shaping needs anyway."""
    length = len(text)
    words = ctypes.c_uint32 * length
    characters, kinds, brackets = words(*map(ord, text)), words(), words()
    found = (ctypes.c_byte * length)()
    base = ctypes.c_uint32(_NEUTRAL_DIRECTION)
    fribidi.fribidi_get_bidi_types(characters, length, kinds)
    fribidi.fribidi_get_bracket_types(characters, length, kinds, brackets)
    assert fribidi.fribidi_get_par_embedding_levels_ex(
        kinds, brackets, length, ctypes.byref(base), found
    )
    return list(found), base.value & 1


def _shown(text: str) -> str:
    """The characters of a line from left to right."""
    base = bidi.base_level(text)
    resolved = list(zip(text, bidi.levels(text, base), strict=True))
    return "".join(character for character, _ in bidi.visual_order(resolved, lambda item: item[1]))


def test_hebrew_letters_inside_a_latin_name_are_turned_alone() -> None:
    assert _shown("Ada אבג") == "Ada גבא"


def test_a_name_that_begins_in_arabic_runs_from_the_right() -> None:
    assert _shown("عمر Omar") == "Omar رمع"


def test_numbers_in_a_hebrew_name_keep_their_own_order() -> None:
    assert _shown("אבג 123 ד") == "ד 123 גבא"


def test_brackets_around_latin_in_a_hebrew_name_stay_in_the_hebrew_order() -> None:
    assert bidi.levels("א (b) ג", 1) == [1, 1, 1, 2, 1, 1, 1]


def test_brackets_take_the_direction_of_the_text_before_when_they_hold_its_kind() -> None:
    assert bidi.levels("a ב(ג)", 0) == [0, 0, 1, 1, 1, 1]


def test_a_name_without_strong_letters_runs_left_to_right() -> None:
    assert bidi.base_level("123 ...") == 0


def test_blanks_at_the_end_belong_to_the_paragraph() -> None:
    assert bidi.levels("a ב  ", 0) == [0, 0, 1, 0, 0]


# FriBiDi 1.0 loses a bracket that carries a combining mark, so marks follow letters only here.
_PIECES = ["a", "b", "é", "א", "בָ", "ع", "مّ", "1", "2", "٣", "+", "-", ",", ".", "$", "%", " "]
_PIECES += ["(", ")", "[", "]", "「", "」", "!", "\u200d"]


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=12).map("".join))
def test_levels_agree_with_fribidi_on_any_name(fribidi: ctypes.CDLL, text: str) -> None:
    base = bidi.base_level(text)
    assert (bidi.levels(text, base), base) == _fribidi_levels(fribidi, text)


@given(st.lists(st.integers(0, 4), max_size=20))
def test_visual_order_loses_nothing(found: list[int]) -> None:
    numbered = list(enumerate(found))
    assert sorted(bidi.visual_order(numbered, lambda item: item[1])) == numbered
