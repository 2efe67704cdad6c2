"""Names of rooms and people: what is accepted, and what a fresh one looks like."""

from __future__ import annotations

import re
import secrets
import unicodedata

from calliope.errors import BadRequest

NAME_MAX = 64
RESERVED_ROOMS = frozenset({"api", "static", "healthz", "metrics"})
_ROOM = re.compile(r"[a-z0-9_-]{1,64}")
_BIDI_CONTROLS = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
_ROOM_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without look-alikes: people read them aloud


def clean_room(raw: str) -> str:
    """The room's name as the server keeps it; BadRequest (``bad_room``) if it is none."""
    room = raw.lower()
    if not _ROOM.fullmatch(room):
        raise BadRequest(
            "A room's name has 1 to 64 letters a-z, digits, '-' or '_'.", code="bad_room"
        )
    if room in RESERVED_ROOMS:
        raise BadRequest(f"'{room}' is a reserved word; choose another room.", code="bad_room")
    return room


def clean_name(raw: str | None) -> str:
    """A person's name, trimmed and NFC; "Guest" if absent; BadRequest (``bad_name``) if unfit."""
    if raw is None:
        return "Guest"
    name = unicodedata.normalize("NFC", raw.strip())
    if not 1 <= len(name) <= NAME_MAX:
        raise BadRequest(f"A name has 1 to {NAME_MAX} characters.", code="bad_name")
    if all(unicodedata.category(character) in ("Cf", "Mn", "Zs") for character in name):
        raise BadRequest("A name needs something that can be seen.", code="bad_name")
    for character in name:
        if character in _BIDI_CONTROLS or unicodedata.category(character) in (
            "Cc",
            "Cs",
            "Zl",
            "Zp",
        ):
            raise BadRequest(
                "A name must not hold control or text-direction characters.", code="bad_name"
            )
    return name


def random_room() -> str:
    """A fresh room name of at least 64 random bits, easy to read aloud: ``abcd-efgh-...``."""
    letters = [secrets.choice(_ROOM_ALPHABET) for _ in range(16)]
    return "-".join("".join(letters[i : i + 4]) for i in range(0, 16, 4))
