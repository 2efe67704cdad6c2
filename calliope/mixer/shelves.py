"""Where a rectangle goes in a fixed texture: rows of one height ("shelves"), filled from the left.

Sizes and places are even, so that half-sized chroma has the same shelves. Not thread-safe.
"""

from __future__ import annotations

from dataclasses import dataclass, field

_HEIGHT_STEP = 4  # shelf heights are multiples: masks of nearly one height share shelves


@dataclass(frozen=True, slots=True)
class Slot:
    """A reserved rectangle of the texture, in pixels."""

    x: int
    y: int
    w: int
    h: int


@dataclass(slots=True)
class _Shelf:
    y: int
    h: int
    free: list[tuple[int, int]] = field(default_factory=list)  # (x, width), sorted, apart


class Shelves:
    """Hands out and takes back rectangles of a ``width`` x ``height`` texture, both even."""

    def __init__(self, width: int, height: int) -> None:
        if width <= 0 or height <= 0 or width % 2 or height % 2:
            raise ValueError(f"a texture has positive even sides, not {width} x {height}")
        self._width = width
        self._shelves: list[_Shelf] = []
        self._open: list[tuple[int, int]] = [(0, height)]  # (y, height) without a shelf

    def reserve(self, width: int, height: int) -> Slot | None:
        """A free rectangle of at least this size; None if there is none."""
        w = width + width % 2
        h = -(-height // _HEIGHT_STEP) * _HEIGHT_STEP
        for shelf in self._shelves:
            if shelf.h == h:
                slot = self._take(shelf, w)
                if slot is not None:
                    return slot
        if w > self._width:
            return None
        opened = self._open_shelf(h)
        return self._take(opened, w) if opened is not None else None

    def release(self, slot: Slot) -> None:
        """Give a reserved rectangle back; an empty shelf becomes room for other heights."""
        shelf = next(s for s in self._shelves if s.y == slot.y)
        shelf.free = _merged([*shelf.free, (slot.x, slot.w)])
        if shelf.free == [(0, self._width)]:
            self._shelves.remove(shelf)
            self._open = _merged([*self._open, (shelf.y, shelf.h)])

    def _take(self, shelf: _Shelf, w: int) -> Slot | None:
        for i, (x, free) in enumerate(shelf.free):
            if free >= w:
                shelf.free[i : i + 1] = [(x + w, free - w)] if free > w else []
                return Slot(x, shelf.y, w, shelf.h)
        return None

    def _open_shelf(self, h: int) -> _Shelf | None:
        for i, (y, free) in enumerate(self._open):
            if free >= h:
                self._open[i : i + 1] = [(y + h, free - h)] if free > h else []
                shelf = _Shelf(y, h, [(0, self._width)])
                self._shelves.append(shelf)
                return shelf
        return None


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted (start, length) spans with neighbours joined."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted(spans):
        if joined and sum(joined[-1]) == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((start, length))
    return joined
