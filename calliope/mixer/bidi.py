"""The Unicode bidirectional algorithm (UAX #9) for one line of a name.

Raqm orders the glyphs of one font only, but a name may need several, so runs are ordered here.
Names hold no explicit direction characters (``calliope.names`` refuses them): rules X1 to X8 fall
away, and with them isolates; the whole line is one isolating run sequence.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar

T = TypeVar("T")

BRACKETS = dict(
    zip(
        "([{⁅⁽₍⌈⌊❨❪❬❮❰❲❴⟦⟨⟪⟬⟮⦃⦅⦇〈《「『【〔〖〘〚﹙﹛﹝（［｛｟｢",
        ")]}⁆⁾₎⌉⌋❩❫❭❯❱❳❵⟧⟩⟫⟭⟯⦄⦆⦈〉》」』】〕〗〙〛﹚﹜﹞）］｝｠｣",
        strict=True,
    )
)
"""Opening to closing, of Bidi_Paired_Bracket those that names may plausibly hold."""

_CLOSING = {closing: opening for opening, closing in BRACKETS.items()}
_NEUTRAL = frozenset({"B", "S", "WS", "ON"})
_IGNORED = frozenset(
    {"BN", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
)  # X9, and what never comes
_OPEN_BRACKETS_MAX = 63  # BD16


def base_level(text: str) -> int:
    """0 if the paragraph runs left to right, 1 if right to left, by its first strong letter."""
    for character in text:
        kind = unicodedata.bidirectional(character)
        if kind in ("L", "R", "AL"):
            return int(kind != "L")
    return 0


def levels(text: str, base: int) -> list[int]:
    """The embedding level of every character; odd ones run right to left."""
    kinds = [unicodedata.bidirectional(character) or "L" for character in text]
    kept = [i for i, kind in enumerate(kinds) if kind not in _IGNORED]
    types = _resolve([text[i] for i in kept], [kinds[i] for i in kept], base)
    resolved = [base] * len(text)
    for i, kind in zip(kept, types, strict=True):
        resolved[i] = base + _rise(kind, base)
    for i, kind in enumerate(kinds):
        if kind in _IGNORED and i:
            resolved[i] = resolved[i - 1]
    _reset_separators(resolved, kinds, base)
    return resolved


def visual_order(items: Sequence[T], level_of: Callable[[T], int]) -> list[T]:
    """Items of a line from left to right (rule L2)."""
    ordered = list(items)
    highest = max((level_of(item) for item in ordered), default=0)
    for level in range(highest, 0, -1):
        turned: list[T] = []
        for inside, part in groupby(ordered, partial(_reaches, level_of, level)):
            run = list(part)
            turned += reversed(run) if inside else run
        ordered = turned
    return ordered


def _reaches(level_of: Callable[[T], int], level: int, item: T) -> bool:
    return level_of(item) >= level


def _resolve(text: list[str], kinds: list[str], base: int) -> list[str]:
    """Rules W1 to W7 and N0 to N2: every type becomes L, R, EN or AN."""
    embedding = "R" if base else "L"
    types = _weak(kinds, embedding)
    _pair_brackets(text, kinds, types, embedding)
    _neutral(types, embedding)
    return types


def _weak(kinds: list[str], embedding: str) -> list[str]:
    types = list(kinds)
    for i, kind in enumerate(types):  # W1
        if kind == "NSM":
            types[i] = types[i - 1] if i else embedding
    strong = embedding
    for i, kind in enumerate(types):  # W2, W3
        if kind in ("L", "R", "AL"):
            strong = kind
        elif kind == "EN" and strong == "AL":
            types[i] = "AN"
    types = ["R" if kind == "AL" else kind for kind in types]
    for i in range(1, len(types) - 1):  # W4
        around = (types[i - 1], types[i + 1])
        if types[i] in ("ES", "CS") and around == ("EN", "EN"):
            types[i] = "EN"
        elif types[i] == "CS" and around == ("AN", "AN"):
            types[i] = "AN"
    at = 0
    for kind, part in groupby(list(types)):  # W5, W6
        end = at + len(list(part))
        if kind == "ET":
            number = (at and types[at - 1] == "EN") or types[end : end + 1] == ["EN"]
            types[at:end] = ["EN" if number else "ON"] * (end - at)
        elif kind in ("ES", "CS"):
            types[at:end] = ["ON"] * (end - at)
        at = end
    strong = embedding
    for i, kind in enumerate(types):  # W7
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            types[i] = "L"
    return types


def _pair_brackets(text: list[str], kinds: list[str], types: list[str], embedding: str) -> None:
    """N0: both brackets of a pair take one direction, from what is in or before them."""
    for start, end in _bracket_pairs(text, types):
        inside = {_direction(kind) for kind in types[start + 1 : end]} - {None}
        if not inside:
            continue
        if embedding in inside:
            chosen = embedding
        else:
            before = [_direction(kind) for kind in types[:start] if _direction(kind)]
            chosen = (before[-1] or embedding) if before else embedding
        for bracket in (start, end):
            types[bracket] = chosen
            after = bracket + 1
            while after < len(kinds) and kinds[after] == "NSM":
                types[after] = chosen
                after += 1


def _bracket_pairs(text: list[str], types: list[str]) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    opened: list[int] = []
    for i, character in enumerate(text):
        if types[i] != "ON":
            continue
        if character in BRACKETS:
            if len(opened) == _OPEN_BRACKETS_MAX:
                return []
            opened.append(i)
        elif character in _CLOSING:
            for depth in range(len(opened) - 1, -1, -1):
                if BRACKETS[text[opened[depth]]] == character:
                    pairs.append((opened[depth], i))
                    del opened[depth:]
                    break
    return sorted(pairs)


def _neutral(types: list[str], embedding: str) -> None:
    """N1 and N2: neutrals between two of one direction take it, others the line's own."""
    at = 0
    for neutral, part in groupby(list(types), _NEUTRAL.__contains__):
        end = at + len(list(part))
        if neutral:
            before = _direction(types[at - 1]) if at else embedding
            after = _direction(types[end]) if end < len(types) else embedding
            types[at:end] = [before if before == after and before else embedding] * (end - at)
        at = end


def _direction(kind: str) -> str | None:
    """What a resolved type counts as for its neighbours; numbers count as right to left."""
    if kind in ("R", "EN", "AN"):
        return "R"
    return "L" if kind == "L" else None


def _rise(kind: str, base: int) -> int:
    """Rules I1 and I2."""
    if base:
        return int(kind != "R")
    return {"L": 0, "R": 1}.get(kind, 2)


def _reset_separators(resolved: list[int], kinds: list[str], base: int) -> None:
    """L1: separators, and blanks before them or at the end, take the line's own level."""
    blank_from = len(kinds)
    for i in range(len(kinds) - 1, -1, -1):
        if kinds[i] in ("S", "B") or (
            (kinds[i] == "WS" or kinds[i] in _IGNORED) and i + 1 == blank_from
        ):
            resolved[i] = base
            blank_from = i
