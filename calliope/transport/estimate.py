"""How much a sender may send: the bandwidth estimate that REMB tells it.

Delay-based, as in draft-ietf-rmcat-gcc-02, with the trend of the one-way delay found by linear
regression: when packets come in ever later than they were sent, a queue grows somewhere on the way,
and the rate falls to 85% of what arrives. Else it grows by 8% a second, to at most 1.5 times
what arrives: a still picture lets it stay where it is, never fall. Losses are the sender's own
business; it knows them from receiver reports.

Written anew since aiortc's estimator (a Kalman filter) took 60 us of CPU a packet, two thirds of
all that receiving one cost. Send times are those of the abs-send-time extension: 24 bits, in units
of 1/2^18 s.
"""

from __future__ import annotations

from collections import deque

_MS = 1_000_000
_UNITS_A_MS = (1 << 18) / 1000
_GROUP_UNITS = round(5 * _UNITS_A_MS)  # packets sent within 5 ms are one burst
_BURST_NS = 5 * _MS
_BURST_MAX_NS = 100 * _MS
_PAUSE_NS = 2_000 * _MS
_TREND_GROUPS = 20
_SMOOTHING = 0.9
_GAIN = 4.0
_THRESHOLD_MS = 12.5
_THRESHOLD_MIN_MS = 6.0
_THRESHOLD_MAX_MS = 600.0
_THRESHOLD_UP = 0.0087  # a millisecond: the limit follows the trend up slowly
_THRESHOLD_DOWN = 0.039
_OVERUSE_NS = 10 * _MS
_RATE_WINDOW_NS = 500 * _MS
_GROWTH_A_S = 0.08
_BACKOFF = 0.85
_HOLD_NS = 300 * _MS  # after a decrease: the queue needs time to drain
MIN_BPS = 50_000
MAX_BPS = 20_000_000


class Estimator:
    """One sender's estimate, in ``bps``. Feed it every packet that carries its send time."""

    def __init__(self, start_bps: int) -> None:
        self.bps = start_bps
        self._arrivals: deque[tuple[int, int]] = deque()  # (arrived, bits) of each group
        self._bits = 0
        self._restart(0)

    def _restart(self, now_ns: int) -> None:
        """Forget all timing, but not the estimate: the sender paused."""
        self._group_first = -1
        self._group_last = 0
        self._group_ns = now_ns
        self._group_start_ns = now_ns
        self._group_bits = 0
        self._before: tuple[int, int] | None = None  # send time and arrival of the last group
        self._delay_ms = 0.0
        self._smooth_ms = 0.0
        self._points: deque[tuple[float, float]] = deque(maxlen=_TREND_GROUPS)
        self._groups = 0
        self._threshold_ms = _THRESHOLD_MS
        self._trend_ms = 0.0
        self._over_since_ns: int | None = None
        self._changed_ns = now_ns
        self._held_until_ns = now_ns
        self._start_ns = now_ns
        self._arrivals.clear()
        self._bits = 0

    def add(self, send_time: int, size_bytes: int, now_ns: int) -> bool:
        """Note one packet; True when ``bps`` fell and the sender should know at once."""
        if now_ns - self._group_ns > _PAUSE_NS or self._group_first < 0:
            self._restart(now_ns)
            self._group_first = self._group_last = send_time
        step = (send_time - self._group_first) & 0xFF_FFFF
        if step >= 0x80_0000:  # older than the burst: reordered, or sent again
            self._group_bits += size_bytes * 8
            return False
        fell = False
        if step > _GROUP_UNITS and not self._catches_up(send_time, now_ns):
            fell = self._end_group(now_ns)
            self._group_first = send_time
            self._group_start_ns = now_ns
        self._group_last = send_time
        self._group_ns = now_ns
        self._group_bits += size_bytes * 8
        return fell

    def _catches_up(self, send_time: int, now_ns: int) -> bool:
        """Whether a packet comes on the heels of the last although it was sent well after it.

        Then both waited for the same thing, a busy event loop or a radio's turn, not in a queue
        that our sender filled: they are one group, timed by its last packet.
        """
        since_ns = now_ns - self._group_ns
        if since_ns > _BURST_NS or now_ns - self._group_start_ns > _BURST_MAX_NS:
            return False
        sent_ms = ((send_time - self._group_last) & 0xFF_FFFF) / _UNITS_A_MS
        return since_ns / _MS < sent_ms

    def received_bps(self, now_ns: int) -> int:
        """What has arrived over the last half second."""
        arrivals = self._arrivals
        while arrivals and now_ns - arrivals[0][0] > _RATE_WINDOW_NS:
            self._bits -= arrivals.popleft()[1]
        window_ns = min(_RATE_WINDOW_NS, max(100 * _MS, now_ns - self._start_ns))
        return self._bits * 1_000_000_000 // window_ns

    def _end_group(self, now_ns: int) -> bool:
        self._arrivals.append((self._group_ns, self._group_bits))
        self._bits += self._group_bits
        self._group_bits = 0
        before, self._before = self._before, (self._group_last, self._group_ns)
        if before is None:
            return False
        sent_ms = ((self._group_last - before[0]) & 0xFF_FFFF) / _UNITS_A_MS
        arrived_ms = (self._group_ns - before[1]) / _MS
        self._follow(arrived_ms - sent_ms, arrived_ms)
        return self._adapt(now_ns)

    def _follow(self, late_ms: float, elapsed_ms: float) -> None:
        """Take one more difference of delay into the trend, and the threshold after it."""
        self._groups += 1
        self._delay_ms += late_ms
        self._smooth_ms = _SMOOTHING * self._smooth_ms + (1 - _SMOOTHING) * self._delay_ms
        self._points.append(((self._group_ns - self._start_ns) / _MS, self._smooth_ms))
        self._trend_ms = _slope(self._points) * min(self._groups, 60) * _GAIN
        size = abs(self._trend_ms)
        if size < self._threshold_ms + 15:  # a sudden jump (a route change) is no queue
            pace = _THRESHOLD_DOWN if size < self._threshold_ms else _THRESHOLD_UP
            moved = self._threshold_ms + pace * (size - self._threshold_ms) * min(elapsed_ms, 100)
            self._threshold_ms = min(_THRESHOLD_MAX_MS, max(_THRESHOLD_MIN_MS, moved))

    def _adapt(self, now_ns: int) -> bool:
        """Let the rate follow what the trend says; True if it fell."""
        elapsed_s = min(1.0, (now_ns - self._changed_ns) / 1e9)
        self._changed_ns = now_ns
        if self._trend_ms > self._threshold_ms:
            if self._over_since_ns is None:
                self._over_since_ns = now_ns
            over = now_ns - self._over_since_ns >= _OVERUSE_NS
            if not over or now_ns < self._held_until_ns:
                return False
            self._held_until_ns = now_ns + _HOLD_NS
            slower = max(MIN_BPS, round(_BACKOFF * self.received_bps(now_ns)))
            fell = slower < self.bps
            self.bps = min(self.bps, slower)
            return fell
        self._over_since_ns = None
        if self._trend_ms >= -self._threshold_ms and now_ns >= self._held_until_ns:
            ceiling = min(MAX_BPS, self.received_bps(now_ns) * 3 // 2 + 10_000)
            if self.bps < ceiling:
                grown = self.bps + max(1000, round(self.bps * _GROWTH_A_S * elapsed_s))
                self.bps = min(ceiling, grown)
        return False


def _slope(points: deque[tuple[float, float]]) -> float:
    """The slope of the line of least squares through the points; 0 while there are few."""
    count = len(points)
    if count < _TREND_GROUPS:
        return 0.0
    first_x, first_y = points[0]
    sum_x = sum_y = sum_xx = sum_xy = 0.0
    for at_x, at_y in points:
        x, y = at_x - first_x, at_y - first_y
        sum_x += x
        sum_y += y
        sum_xx += x * x
        sum_xy += x * y
    spread = count * sum_xx - sum_x * sum_x
    return (count * sum_xy - sum_x * sum_y) / spread if spread > 0 else 0.0
