"""Where a name may be cut, and what stands for it on an avatar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.mixer.graphemes import clusters, initials_of


@pytest.mark.parametrize(
    "whole",
    [
        "e\u0301",  # a letter and its accent
        "क्षि",  # consonant, virama, consonant, vowel sign
        "र्की",
        "น้ำ",  # a Thai letter with tone and AM
        "각",  # one syllable of three jamo
        "👩‍👩‍👧",  # a family joined by ZWJ
        "👍🏽",  # skin tone
        "🇫🇷",  # two regional indicators
        "✋\ufe0f",
        "葛\U000e0100",  # an ideograph with its variation selector
    ],
)
def test_what_reads_as_one_letter_is_one_cluster(whole: str) -> None:
    assert clusters(f"a{whole}b") == ["a", whole, "b"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Ada", ["A", "d", "a"]),
        ("🇫🇷🇩🇪", ["🇫🇷", "🇩🇪"]),
        ("한국", ["한", "국"]),
        ("山田", ["山", "田"]),
        ("عمر", ["ع", "م", "ر"]),
        ("", []),
    ],
)
def test_separate_letters_stay_separate(text: str, parts: list[str]) -> None:
    assert clusters(text) == parts


@given(st.text(max_size=40))
def test_clusters_joined_are_the_text(text: str) -> None:
    assert "".join(clusters(text)) == text


@pytest.mark.parametrize(
    ("name", "initials"),
    [
        ("Ada Lovelace", "AL"),
        ("ada", "A"),
        ("Jean-Paul Charles Aymard Sartre", "JS"),
        ("Ёлка Щукина", "ЁЩ"),
        ("e\u0301mile zola", "E\u0301Z"),
        ("山田 太郎", "山"),
        ("عمر الخيام", "ع"),
        ("क्षमा राव", "क्ष"),
        ("Ada אבג", "A"),
        ("(guest) Bob", "B"),
        ("7", "7"),
        ("🎉🎉", "🎉"),
        ("  ", ""),
    ],
)
def test_initials(name: str, initials: str) -> None:
    assert initials_of(name) == initials
