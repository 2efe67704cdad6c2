"""What a TrueType or OpenType file says of itself: its faces, their style, their characters.

Pillow draws with a face but does not tell which characters it has. That is in the ``cmap`` table,
so it is read here, straight from the file. Only what choosing a font needs is parsed. Source: the
OpenType specification 1.9 (chapters "OpenType font file", "cmap", "name", "OS/2").
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

Table: TypeAlias = tuple[int, int]  # offset and length in the file
Range: TypeAlias = tuple[int, int]  # first and last code point

_FACES_MAX = 64  # in one collection; a larger count is a damaged file
_TABLES_MAX = 128
_TABLE_BYTES_MAX = 16 * 1024 * 1024
_OUTLINES = frozenset({b"glyf", b"CFF ", b"CFF2"})
_UNICODE_SUBTABLES = ((3, 10), (0, 6), (0, 4), (3, 1), (0, 3), (0, 2), (0, 1), (0, 0))
_TYPOGRAPHIC_FAMILY, _FAMILY = 16, 1
_ITALIC_BIT = 1


class SfntError(Exception):
    """The file is no font that can be used here; whoever looks for fonts passes it over."""


class Coverage:
    """A set of code points, kept as sorted disjoint ranges."""

    def __init__(self, ranges: list[Range]) -> None:
        merged: list[Range] = []
        for first, last in sorted(ranges):
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        self._firsts = [first for first, _ in merged]
        self._lasts = [last for _, last in merged]

    def __contains__(self, code_point: int) -> bool:
        at = bisect_right(self._firsts, code_point) - 1
        return at >= 0 and code_point <= self._lasts[at]

    def __len__(self) -> int:
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)


@dataclass(frozen=True)
class Face:
    """One face of a font file. ``weight`` runs from 100 to 900; 400 is regular."""

    path: Path
    index: int
    family: str
    weight: int
    italic: bool
    cmap: Table = field(repr=False)

    @cached_property
    def coverage(self) -> Coverage:
        """The characters this face has a glyph for, read on first use; none if unreadable."""
        try:
            with self.path.open("rb") as file:
                return Coverage(_cmap_ranges(_read(file, self.cmap)))
        except (OSError, SfntError, struct.error, ValueError, IndexError):
            return Coverage([])


def read_faces(path: Path) -> list[Face]:
    """Every scalable face in the file; SfntError or OSError if it cannot be used."""
    with path.open("rb") as file:
        try:
            return list(_faces(path, file))
        except (struct.error, ValueError, IndexError) as error:
            raise SfntError(f"{path} is damaged: {error}") from error


def _faces(path: Path, file: BinaryIO) -> Iterator[Face]:
    offsets: tuple[int, ...] = (0,)
    tag, _, count = struct.unpack(">4sLL", _read(file, (0, 12)))
    if tag == b"ttcf":
        if not 1 <= count <= _FACES_MAX:
            raise SfntError(f"{path} announces {count} faces")
        offsets = struct.unpack(f">{count}L", _read(file, (12, 4 * count)))
    elif tag not in (b"\x00\x01\x00\x00", b"OTTO", b"true"):
        raise SfntError(f"{path} is no TrueType or OpenType file")
    for index, offset in enumerate(offsets):
        tables = _table_directory(file, offset)
        if b"cmap" not in tables or _OUTLINES.isdisjoint(tables):
            continue  # a bitmap-only face cannot be drawn at any size
        style = _read(file, tables[b"OS/2"]) if b"OS/2" in tables else b""
        yield Face(
            path=path,
            index=index,
            family=_family(_read(file, tables[b"name"])) if b"name" in tables else path.stem,
            weight=struct.unpack_from(">H", style, 4)[0] if len(style) >= 64 else 400,
            italic=bool(struct.unpack_from(">H", style, 62)[0] & _ITALIC_BIT)
            if len(style) >= 64
            else False,
            cmap=tables[b"cmap"],
        )


def _read(file: BinaryIO, table: Table) -> bytes:
    offset, length = table
    if length > _TABLE_BYTES_MAX:
        raise SfntError(f"a table of {length} bytes is more than any font needs")
    file.seek(offset)
    data = file.read(length)
    if len(data) != length:
        raise SfntError("the file ends inside a table")
    return data


def _table_directory(file: BinaryIO, offset: int) -> dict[bytes, Table]:
    count = struct.unpack_from(">H", _read(file, (offset, 12)), 4)[0]
    if count > _TABLES_MAX:
        raise SfntError(f"{count} tables are more than any font has")
    records = struct.iter_unpack(">4sLLL", _read(file, (offset + 12, 16 * count)))
    return {tag: (start, length) for tag, _, start, length in records}


def _family(name: bytes) -> str:
    """The family's name: the typographic one before the four-style one, English before others."""
    _, count, strings = struct.unpack_from(">HHH", name)
    best: tuple[bool, bool, str] | None = None
    for platform, _, language, identifier, length, offset in struct.iter_unpack(
        ">HHHHHH", name[6 : 6 + 12 * count]
    ):
        if platform != 3 or identifier not in (_FAMILY, _TYPOGRAPHIC_FAMILY):
            continue
        text = name[strings + offset : strings + offset + length].decode("utf-16-be", "replace")
        found = (identifier == _TYPOGRAPHIC_FAMILY, language == 0x0409, text)
        best = found if best is None else max(best, found)
    return best[2] if best else ""


def _cmap_ranges(cmap: bytes) -> list[Range]:
    count = struct.unpack_from(">H", cmap, 2)[0]
    subtables = {
        (platform, encoding): offset
        for platform, encoding, offset in struct.iter_unpack(">HHL", cmap[4 : 4 + 8 * count])
    }
    for kind in _UNICODE_SUBTABLES:
        if kind not in subtables:
            continue
        subtable = cmap[subtables[kind] :]
        form = struct.unpack_from(">H", subtable)[0]
        if form == 4:
            return _segment_ranges(subtable)
        if form == 12:
            return _group_ranges(subtable)
    return []  # symbol fonts and last-resort fonts: no characters to choose them by


def _segment_ranges(subtable: bytes) -> list[Range]:
    """Format 4: segments of the basic plane, some with an array of glyph ids that may hold 0."""
    size = struct.unpack_from(">H", subtable, 6)[0] // 2
    words = np.frombuffer(subtable[: len(subtable) // 2 * 2], dtype=">u2")
    lasts = words[7 : 7 + size].astype(np.int64)
    firsts = words[8 + size : 8 + 2 * size].astype(np.int64)
    deltas = words[8 + 2 * size : 8 + 3 * size].astype(np.int64)
    offsets = words[8 + 3 * size : 8 + 4 * size].astype(np.int64)
    ranges: list[Range] = []
    for i in range(size):
        first, last = int(firsts[i]), min(int(lasts[i]), 0xFFFE)
        if last < first:
            continue
        code_points = np.arange(first, last + 1)
        if offsets[i] == 0:
            glyphs = (code_points + deltas[i]) & 0xFFFF
        else:
            at = 8 + 3 * size + i + offsets[i] // 2 + (code_points - first)
            glyphs = words[np.minimum(at, len(words) - 1)]
        ranges += _runs(code_points[glyphs != 0])
    return ranges


def _group_ranges(subtable: bytes) -> list[Range]:
    """Format 12: groups of consecutive code points and glyph ids over all planes."""
    count = struct.unpack_from(">L", subtable, 12)[0]
    ranges: list[Range] = []
    for first, last, glyph in struct.iter_unpack(">LLL", subtable[16 : 16 + 12 * count]):
        first += glyph == 0  # only the group's first character can stand for the missing glyph
        if first <= last <= 0x10FFFF:
            ranges.append((first, last))
    return ranges


def _runs(code_points: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> list[Range]:
    if not len(code_points):
        return []
    parts = np.split(code_points, np.flatnonzero(np.diff(code_points) != 1) + 1)
    return [(int(part[0]), int(part[-1])) for part in parts]
