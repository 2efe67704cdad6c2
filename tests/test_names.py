"""Names of rooms and people: what is accepted, cleaned, refused."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.errors import BadRequest
from calliope.names import NAME_MAX, clean_name, clean_room, random_room


@pytest.mark.parametrize("room", ["a", "blue-otter", "x_1", "0", "a" * 64])
def test_plain_rooms_are_kept(room: str) -> None:
    assert clean_room(room) == room


def test_rooms_are_lower_cased() -> None:
    assert clean_room("Blue-Otter") == "blue-otter"


@pytest.mark.parametrize("room", ["", "a" * 65, "a b", "a/b", "..", "ä", "room\n", "a%20", "١"])
def test_other_rooms_are_refused(room: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean_room(room)
    assert refusal.value.code == "bad_room"


@pytest.mark.parametrize("room", ["api", "static", "healthz", "metrics", "API", "Metrics"])
def test_words_of_the_server_are_no_rooms(room: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean_room(room)
    assert refusal.value.code == "bad_room"
    assert "reserved" in refusal.value.detail


@pytest.mark.parametrize("name", ["Ada", "עדה", "عمر", "अदिति", "山田", "Zoë 🎉", "👩\u200d👧"])
def test_names_in_any_script_are_kept(name: str) -> None:
    assert clean_name(name) == name


def test_an_absent_name_is_guest() -> None:
    assert clean_name(None) == "Guest"


def test_names_are_trimmed_and_composed() -> None:
    assert clean_name("  Zoe\u0308 \t") == "Zoë"


def test_the_length_counts_after_trimming_and_composing() -> None:
    assert len(clean_name(" " + "e\u0301" * NAME_MAX + " ")) == NAME_MAX
    with pytest.raises(BadRequest):
        clean_name("x" * (NAME_MAX + 1))


@pytest.mark.parametrize(
    "name", ["", "   ", "a\nb", "a\x00", "\x7f", "a\u2028b", "\ud800", "a\x85b"]
)
def test_empty_names_and_control_characters_are_refused(name: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean_name(name)
    assert refusal.value.code == "bad_name"


@pytest.mark.parametrize(
    "control", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
def test_characters_that_turn_the_text_around_are_refused(control: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        clean_name(f"Ada{control}nimda")
    assert refusal.value.code == "bad_name"


@given(st.text(max_size=80))
def test_whatever_is_accepted_is_clean_and_stays_so(raw: str) -> None:
    try:
        name = clean_name(raw)
    except BadRequest:
        return
    assert 1 <= len(name) <= NAME_MAX
    assert name == unicodedata.normalize("NFC", name) == clean_name(name)
    assert not any(unicodedata.category(c) == "Cc" for c in name)


def test_random_rooms_are_valid_and_differ() -> None:
    rooms = {random_room() for _ in range(200)}
    assert len(rooms) == 200
    for room in rooms:
        assert clean_room(room) == room
        assert re.fullmatch(r"(?:[a-z2-9]{4}-){3}[a-z2-9]{4}", room)
