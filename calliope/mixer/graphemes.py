"""Grapheme clusters: what a reader takes for one letter, and so the least that may be cut or drawn.

Follows UAX #29 with what ``unicodedata`` knows. Where it lacks a property (Extended_Pictographic,
Indic_Conjunct_Break) a wider class stands in, so that a cluster is at most too long, never torn.
"""

from __future__ import annotations

import unicodedata

_ZWJ = "\u200d"
_VIRAMA = 9  # the canonical combining class of the signs that join two consonants
_SPACING_VOWELS = frozenset(
    "\u0e33\u0eb3"
)  # Thai and Lao AM: letters that belong to the one before
_HALFWIDTH_MARKS = frozenset("\uff9e\uff9f")


def clusters(text: str) -> list[str]:
    """The text in clusters, in order; joined they are the text again."""
    found: list[str] = []
    for character in text:
        if found and _continues(found[-1], character):
            found[-1] += character
        else:
            found.append(character)
    return found


def initials_of(name: str) -> str:
    """One or two letters that stand for a name on an avatar: "Ada Lovelace" gives "AL".

    Two only where letters stand alone and have cases (Latin, Greek, Cyrillic); in scripts whose
    letters join or carry a word each, the first. A name without letters gives its first cluster.
    """
    heads = [clusters(word)[0] for word in name.split() if word[0].isalpha()]
    if not heads:
        return clusters(name.strip())[0] if name.strip() else ""
    first, last = heads[0], heads[-1]
    if len(heads) > 1 and _is_cased(first) and _is_cased(last):
        return first.upper() + last.upper()
    return first.upper()


def _is_cased(cluster: str) -> bool:
    return cluster.upper() != cluster.lower()


def _continues(cluster: str, character: str) -> bool:
    last = cluster[-1]
    return (
        _extends(character)
        or _joins_hangul(last, character)
        or _joins_conjunct(cluster, character)
        or (last == _ZWJ and unicodedata.category(character) == "So")  # GB11: emoji sequences
        or _pairs_flag(cluster, character)
    )


def _extends(character: str) -> bool:
    """GB9 and GB9a: marks, joiners, selectors, emoji skin tones and tags."""
    return (
        unicodedata.category(character) in ("Mn", "Me", "Mc")
        or character in "\u200c\u200d"
        or character in _SPACING_VOWELS
        or character in _HALFWIDTH_MARKS
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _joins_hangul(last: str, character: str) -> bool:
    """GB6 to GB8: jamo of one syllable."""
    before, after = _hangul(last), _hangul(character)
    return (
        (before == "L" and after in ("L", "V", "LV", "LVT"))
        or (before in ("LV", "V") and after in ("V", "T"))
        or (before in ("LVT", "T") and after == "T")
    )


def _hangul(character: str) -> str:
    code = ord(character)
    if 0x1100 <= code <= 0x115F or 0xA960 <= code <= 0xA97C:
        return "L"
    if 0x1160 <= code <= 0x11A7 or 0xD7B0 <= code <= 0xD7C6:
        return "V"
    if 0x11A8 <= code <= 0x11FF or 0xD7CB <= code <= 0xD7FB:
        return "T"
    if 0xAC00 <= code <= 0xD7A3:
        return "LV" if (code - 0xAC00) % 28 == 0 else "LVT"
    return ""


def _joins_conjunct(cluster: str, character: str) -> bool:
    """GB9c: a consonant after a virama, joiners between them or not."""
    bare = cluster.rstrip(_ZWJ)
    return (
        unicodedata.category(character) == "Lo"
        and len(bare) > 1
        and unicodedata.combining(bare[-1]) == _VIRAMA
    )


def _pairs_flag(cluster: str, character: str) -> bool:
    """GB12 and GB13: two regional indicators make a flag."""
    return len(cluster) == 1 and _is_regional(cluster) and _is_regional(character)


def _is_regional(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
