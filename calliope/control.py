"""Control messages: the client's parsed and checked, the server's written (docs/protocol.md).

Pure: bytes or text in, a typed value or a :class:`~calliope.errors.ClientError` out.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from calliope.errors import BadRequest, TooLarge
from calliope.mixer.scene import Layout

MESSAGE_MAX_BYTES = 60 * 1024
CHAT_MAX_CHARACTERS = 1000
REACTION_MAX_CHARACTERS = 16
GAIN_MAX = 2.0

ViewChoice: TypeAlias = Literal["auto", "grid", "speaker", "presenter"]


@dataclass(frozen=True, slots=True)
class Chat:
    text: str


@dataclass(frozen=True, slots=True)
class State:
    """What a participant says of itself; None: as it was."""

    muted: bool | None = None
    camera: bool | None = None
    hand: bool | None = None


@dataclass(frozen=True, slots=True)
class Reaction:
    emoji: str


@dataclass(frozen=True, slots=True)
class Volume:
    id: str
    gain: float


@dataclass(frozen=True, slots=True)
class View:
    name: ViewChoice


@dataclass(frozen=True, slots=True)
class Stats:
    on: bool


@dataclass(frozen=True, slots=True)
class Bye:
    pass


ClientMessage: TypeAlias = Chat | State | Reaction | Volume | View | Stats | Bye


def _bad(reason: str) -> BadRequest:
    return BadRequest(reason, code="bad_message")


def parse(raw: str | bytes) -> ClientMessage | None:
    """One message of the client's; None for a type this server does not know (to be ignored).

    Raises TooLarge or BadRequest (``bad_message``) with the sentence the sender is shown.
    """
    size = len(raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass"))
    if size > MESSAGE_MAX_BYTES:
        raise TooLarge(f"A message has at most {MESSAGE_MAX_BYTES} bytes; this one has {size}.")
    try:
        message = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad("A message must be JSON.") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise _bad("A message must be a JSON object with a 'type'.")
    match message["type"]:
        case "chat":
            return _chat(message)
        case "state":
            return State(**{key: _flag(message, key) for key in ("muted", "camera", "hand")})
        case "reaction":
            return _reaction(message)
        case "volume":
            return _volume(message)
        case "view":
            if message.get("name") not in get_args(ViewChoice):
                raise _bad(f"A view is one of {', '.join(get_args(ViewChoice))}.")
            return View(message["name"])
        case "stats":
            on = _flag(message, "on")
            if on is None:
                raise _bad("'stats' needs 'on': true or false.")
            return Stats(on)
        case "bye":
            return Bye()
    return None


def _flag(message: Mapping[str, Any], key: str) -> bool | None:
    value = message.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise _bad(f"'{key}' must be true or false.")


def _text(message: Mapping[str, Any], key: str) -> str:
    value = message.get(key)
    if not isinstance(value, str):
        raise _bad(f"'{key}' must be a text.")
    if any(unicodedata.category(character) == "Cs" for character in value):
        raise _bad(f"'{key}' holds a broken character.")
    return value


def _chat(message: Mapping[str, Any]) -> Chat:
    text = _text(message, "text").strip()
    if not 1 <= len(text) <= CHAT_MAX_CHARACTERS:
        raise _bad(f"A chat message needs a text of 1 to {CHAT_MAX_CHARACTERS} characters.")
    return Chat(text)


def _reaction(message: Mapping[str, Any]) -> Reaction:
    emoji = _text(message, "emoji").strip()
    if not 1 <= len(emoji) <= REACTION_MAX_CHARACTERS:
        raise _bad("A reaction is one emoji.")
    return Reaction(emoji)


def _volume(message: Mapping[str, Any]) -> Volume:
    gain = message.get("gain")
    # bool is an int to Python, and JSON's NaN is a float that passes no comparison
    if isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain <= GAIN_MAX:
        raise _bad(f"'gain' must be a number from 0 to {GAIN_MAX:g}.")
    return Volume(_text(message, "id"), float(gain))


def dumps(message: Mapping[str, object]) -> str:
    """The text of one server message."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def layout_message(layout: Layout, rtp_timestamp: int) -> dict[str, object]:
    """``layout`` as one receiver is told of it; also what ``welcome`` holds, there without type."""
    return {
        "type": "layout",
        "view": layout.view,
        "serial": layout.serial,
        "pts": rtp_timestamp,
        "canvas": list(layout.canvas),
        "tiles": [
            {"id": t.id, "source": t.source, "x": t.x, "y": t.y, "w": t.w, "h": t.h, "fit": t.fit}
            for t in layout.tiles
        ],
    }


def split_chat(
    chat: Iterable[Mapping[str, object]], first_bytes: int, later_bytes: int
) -> list[Sequence[Mapping[str, object]]]:
    """Cut a chat, oldest first, into runs whose JSON fits; the first run may be empty.

    ``first_bytes`` is what fits beside the rest of ``welcome``, ``later_bytes`` into a ``history``.
    """
    runs: list[list[Mapping[str, object]]] = [[]]
    room_left = first_bytes
    for entry in chat:
        size = len(dumps(entry).encode()) + 1
        if size > room_left:
            runs.append([])
            room_left = later_bytes
        runs[-1].append(entry)
        room_left -= size
    return list(runs)
