"""Work for many sessions, in turns with everything else on the event loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from calliope.media import Post

MEMBERS_AT_ONCE = 50
"""So many sessions are sent to in one go: 16 us each of RTP and some control messages stay below
2 ms, and the event loop goes on with others between."""
WORK_WAITING = 8
"""Ticks of sound and picture that may wait for those before them."""


class Turns:
    """Does one work after the other; each yields after every session. Lives on the event loop."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._work: deque[Iterator[None]] = deque()  # the first one is under way

    @property
    def full(self) -> bool:
        """So much waits that what can be left out is to be left out."""
        return len(self._work) >= WORK_WAITING

    def do(self, work: Iterator[None]) -> None:
        """At once where the sessions are few, else behind what was begun before, with pauses."""
        self._work.append(work)
        if len(self._work) == 1:
            self._go_on()

    def clear(self) -> None:
        """Forget what was not done yet."""
        self._work.clear()

    def _go_on(self) -> None:
        for _ in range(MEMBERS_AT_ONCE):
            if not self._work:
                return
            work = self._work[0]
            try:
                next(work)
            except StopIteration:
                self._end(work)
            except Exception:
                self._end(work)
                if self._work:
                    self._post(self._go_on)
                raise
        if self._work:
            self._post(self._go_on)

    def _end(self, work: Iterator[None]) -> None:
        if self._work and self._work[0] is work:  # else it was cleared meanwhile
            self._work.popleft()
