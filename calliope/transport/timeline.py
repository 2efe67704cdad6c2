"""One session's mapping from a room's media time to the wall clock that its sender reports carry.

Sound and picture of one session share one timeline, so a browser can align them (RFC 3550
section 6.4.1): what has the same media time is played at the same time.
"""

from __future__ import annotations

from calliope.clock import NS_PER_S, Clock

_NTP_EPOCH_S = 2_208_988_800  # 1970 counted from 1900


class Timeline:
    """Media time (seconds since the room's start) against NTP time, without steps.

    The wall clock is read once: NTP corrections of the machine never move the picture.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._unix_offset_ns = clock.unix_ms() * 1_000_000 - clock.now_ns()
        self._start_ns: int | None = None

    def now_ns(self) -> int:
        """The session's clock."""
        return self._clock.now_ns()

    @property
    def unix_offset_ns(self) -> int:
        """What has to be added to the clock to get the time since 1970."""
        return self._unix_offset_ns

    def anchor(self, pts: int, clock_hz: int) -> None:
        """Say that media of time ``pts`` is sent now; only the first call counts."""
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns() - pts * NS_PER_S // clock_hz

    def ntp_now(self) -> int:
        """The NTP time as a 64-bit number: seconds since 1900 and their fraction."""
        unix_ns = self._clock.now_ns() + self._unix_offset_ns
        seconds = (unix_ns // NS_PER_S + _NTP_EPOCH_S) & 0xFFFF_FFFF  # they wrap in 2036
        return seconds << 32 | ((unix_ns % NS_PER_S) << 32) // NS_PER_S

    def pts_now(self, clock_hz: int) -> int:
        """The media time of what would be sent now, in units of ``clock_hz``."""
        if self._start_ns is None:
            return 0
        return (self._clock.now_ns() - self._start_ns) * clock_hz // NS_PER_S
