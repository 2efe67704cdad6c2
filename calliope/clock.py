"""Time, injected: a monotonic clock, a fake one for tests, and a drift-free ticker."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Where the server reads time and how its threads wait."""

    def now_ns(self) -> int:
        """Monotonic nanoseconds."""

    def unix_ms(self) -> int:
        """Wall-clock milliseconds since 1970, for people's eyes only."""

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        """Sleep until ``deadline_ns``; True at once when ``stop`` is set, else False."""


class SystemClock:
    """The machine's own monotonic clock."""

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def unix_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns <= 0:
            return stop.is_set()
        return stop.wait(remaining_ns / NS_PER_S)


class FakeClock:
    """A clock that moves only when told to; threads waiting on it wake when it reaches them."""

    def __init__(self, start_ns: int = NS_PER_S, unix_ms: int = 1_700_000_000_000) -> None:
        self._now_ns = start_ns
        self._unix_offset_ms = unix_ms - start_ns // 1_000_000
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        with self._moved:
            return self._now_ns

    def unix_ms(self) -> int:
        return self._unix_offset_ms + self.now_ns() // 1_000_000

    def advance(self, *, ns: int = 0, ms: int = 0, s: float = 0) -> None:
        """Move on and wake whoever waited for a time that has now come."""
        with self._moved:
            self._now_ns += ns + ms * 1_000_000 + round(s * NS_PER_S)
            self._moved.notify_all()

    def wait_until(self, deadline_ns: int, stop: threading.Event) -> bool:
        with self._moved:
            while self._now_ns < deadline_ns and not stop.is_set():
                self._moved.wait(0.01)  # ``stop`` has no hook of its own to wake us
        return stop.is_set()


@dataclass(frozen=True, slots=True)
class Tick:
    """One beat: its number since the start, how late it began, how many were passed over."""

    index: int
    late_ns: int
    skipped: int


class Ticker:
    """Beats at a fixed rate without drift: beat *n* is due at ``start + n / rate``.

    A beat that could not begin before the next one was due is skipped and counted, never queued.
    """

    def __init__(self, clock: Clock, rate_hz: int) -> None:
        if rate_hz <= 0:
            raise ValueError(f"rate_hz must be positive, not {rate_hz}")
        self._clock = clock
        self._rate_hz = rate_hz
        self._start_ns = clock.now_ns()
        self._next = 0

    def due_ns(self, index: int) -> int:
        """When beat ``index`` is due."""
        return self._start_ns + index * NS_PER_S // self._rate_hz

    def wait(self, stop: threading.Event) -> Tick | None:
        """Wait for the next beat; None when ``stop`` was set."""
        due_ns = self.due_ns(self._next)
        if self._clock.wait_until(due_ns, stop):
            return None
        late_ns = max(0, self._clock.now_ns() - due_ns)
        skipped = late_ns * self._rate_hz // NS_PER_S
        index = self._next + skipped
        late_ns = max(0, self._clock.now_ns() - self.due_ns(index))
        self._next = index + 1
        return Tick(index=index, late_ns=late_ns, skipped=skipped)
