"""From a mixer's thread to the event loop: a bounded queue that is emptied in one call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from calliope.media import Post

T = TypeVar("T")


class Mailbox(Generic[T]):
    """``put`` is called by one thread; ``take`` runs on the event loop, for each item in order.

    While the loop stands still at most ``limit`` items wait: then the two oldest become one by
    ``merge(older, newer)``, which keeps of the older what must not be lost. ``merged`` is told on
    the loop how often that was, before the items are taken.
    """

    def __init__(
        self,
        post: Post,
        take: Callable[[T], None],
        *,
        merge: Callable[[T, T], T],
        merged: Callable[[int], None],
        limit: int,
    ) -> None:
        self._post = post
        self._take = take
        self._merge = merge
        self._merged = merged
        self._limit = limit
        self._items: list[T] = []
        self._merges = 0
        self._lock = threading.Lock()  # held for an append or a swap

    def put(self, item: T) -> None:
        """Leave an item; waits for nobody."""
        with self._lock:
            self._items.append(item)
            if len(self._items) > self._limit:
                self._items[:2] = [self._merge(self._items[0], self._items[1])]
                self._merges += 1
            first = len(self._items) == 1
        if first:
            self._post(self._empty)

    def _empty(self) -> None:
        with self._lock:
            items, self._items = self._items, []
            merges, self._merges = self._merges, 0
        if merges:
            self._merged(merges)
        for item in items:
            self._take(item)
