"""When Python's garbage collector may look at everything: it stops every thread while it does.

A full collection takes about a millisecond for a thousand objects, and every tick and packet
waits. Sessions are full of cycles, so it cannot be done without; but it can wait until somebody has
left, and it need not come again at once.
"""

from __future__ import annotations

import gc

from calliope.clock import NS_PER_S, Clock

ENDED_MAX = 16
"""Sessions that may have ended before their garbage is collected."""
SPACING_NS = 10 * NS_PER_S
"""Full collections are at least so far apart, except when nobody is there to notice."""
IDLE_NS = 600 * NS_PER_S
"""After so long one comes in any case, for garbage that no session left."""
_NEVER = 1_000_000


class Collector:
    """Keeps full collections to moments of its choice, from :meth:`start` to :meth:`stop`.

    The young generations are collected as ever: they hold little and take a millisecond. One per
    process, on the thread that calls it; the collector itself is the process's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions = 0
        self._ended = 0
        self._collected_ns = clock.now_ns()
        self._thresholds = gc.get_threshold()

    def start(self) -> None:
        """What is there now lives until the end: never look at it again."""
        gc.collect()
        gc.freeze()
        self._thresholds = gc.get_threshold()
        gc.set_threshold(*self._thresholds[:2], _NEVER)
        self._collected_ns = self._clock.now_ns()

    def look(self, sessions: int) -> None:
        """Collect everything if it is time; ``sessions`` is how many there are now."""
        self._ended += max(0, self._sessions - sessions)
        self._sessions = sessions
        passed_ns = self._clock.now_ns() - self._collected_ns
        unnoticed = sessions == 0 and self._ended > 0
        due = self._ended >= ENDED_MAX and passed_ns >= SPACING_NS
        if unnoticed or due or passed_ns >= IDLE_NS:
            gc.collect()
            self._ended = 0
            self._collected_ns = self._clock.now_ns()

    def stop(self) -> None:
        """Leave the collector as it was."""
        gc.set_threshold(*self._thresholds)
        gc.unfreeze()
