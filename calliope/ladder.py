"""Which rendition a viewer's link carries: down at once when it is too much, up by probing.

Pure: time and what the link tells come in as arguments. It is asked a few times a second.

No sign is good alone. A receiver's own estimate (REMB) stays near what it receives, so it means
something only when it *fell* below that; even then its machine may just have been busy, which also
lengthens round trips. What counts is what arrived: the reports' packets against those sent. So it
is too much when little arrived and the estimate fell, when much is lost in two windows running
(one is an outage: it asks for a keyframe, not for less), or when a queue stands. A link that
carries more is found by adding padding up to what the next rendition needs, first a part of it: if
that arrives, the viewer moves up by one. A probe that failed is tried again later.

Sources: draft-ietf-rmcat-gcc-02 (loss and delay as signs), RFC 3550 section 6.4 (reports); probing
by retransmissions is WebRTC's own practice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

_MS = 1_000_000

WINDOW_NS = 1000 * _MS
"""Over so long the rate sent is measured, and a fall of the estimate remembered."""
FRESH_NS = 500 * _MS
"""Nothing is judged before so much was seen of a rendition."""
HEADROOM = 1.15
"""What a rendition needs of a link, as a share of its bitrate: headers, and some to spare."""
FELL = 0.9
"""An estimate has fallen when it is below this share of the highest within the window."""
ALONE = 0.35
"""One that fell below this share of what is sent, and stays there, needs no other sign, unless
reports say that all arrives."""
STAYED_NS = 400 * _MS
BELOW = 0.75
"""One below this share is a sign beside another."""
LITTLE = 0.5
"""So small a share that arrived in one window, beside an estimate that fell, is too little."""
NOT_ALL = 0.8
"""A smaller share than this that arrived, in two windows running, is too little too."""
CAUTION = 0.6
"""Down to what fits into this share of what the link seems to carry: the first guess is high."""
REPORT_WINDOW_NS = 450 * _MS
REPORT_PACKETS = 20
"""A share of fewer packets than this says nothing."""
LOSS_TOO_MUCH = 0.15
"""Lost in two windows running: random loss of 5% stays below it, however it falls."""
LOSS_IN_PROBE = 0.10
LOSS_ENDS_PROBE = 0.30
PROBE_PACKETS = 10
QUEUE_TOO_LONG_MS = 300.0
QUEUE_NS = 2500 * _MS
"""A queue that was too long in three round trips and all of so long stands."""
QUEUE_A_SIGN_MS = 60.0
QUEUE_ENDS_PROBE_MS = 100.0
BASE_NS = 20_000 * _MS
"""The shortest round trip of the last so long is that of the empty link."""
STAY_NS = 1000 * _MS
"""No move up sooner after the last."""
WAITS_NS = (3000 * _MS, 6000 * _MS, 8000 * _MS)
"""How long to wait after a move down or a probe that failed: the first time, the next, from then
on. With the probes themselves the best one is back within 15 s whenever a limit is lifted."""
PROVEN_NS = 10_000 * _MS
"""A rendition that lasts so long was the right one: the next wait is short again."""
GENTLE_NS = 600 * _MS
GENTLE_SHARE = 0.25
"""A probe goes so much of the way for so long, to do little harm on a link that carries no more:
its queue grows, but does not overflow."""
PROBE_NS = 1600 * _MS
PROBE_MAX_NS = 3000 * _MS
"""How long a probe takes, and at most where reports are rare."""


@dataclass(frozen=True, slots=True)
class Report:
    """One receiver report, beside what had been sent when it came.

    ``lost`` counts packets since the start, ``highest`` is the highest sequence number received
    (32 bits); ``sent_packets`` leaves out padding and what was sent again. ``rtt_ms`` is None
    where the report measures no new one.
    """

    at_ns: int
    lost: int
    highest: int
    sent_packets: int
    rtt_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """What a session knows of its way to the viewer.

    ``loss`` (0 to 1) and ``rtt_ms`` are smoothed. ``report`` is the last one, ``estimate_bps`` the
    viewer's own estimate; None until there is one. ``sent_bytes`` counts all that was sent of the
    picture, padding too; ``can_pad`` says whether that can be had.
    """

    loss: float = 0.0
    rtt_ms: float = 0.0
    report: Report | None = None
    estimate_bps: int | None = None
    sent_bytes: int = 0
    can_pad: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What a viewer gets now: a rendition by its place (0 is the best), so much padding beside it,
    and no faster than ``pace_bps`` (None: as fast as can be)."""

    rung: int
    padding_bps: int = 0
    pace_bps: int | None = None


@dataclass(frozen=True, slots=True)
class _Share:
    """What became of the packets between two reports."""

    expected: int
    lost: float
    arrived: float

    @classmethod
    def between(cls, first: Report, last: Report) -> _Share:
        expected = (last.highest - first.highest) & 0xFFFF_FFFF
        if expected >= 1 << 31:  # the numbers went backwards: nonsense
            return cls(0, 0.0, 1.0)
        lost = min(expected, max(0, last.lost - first.lost))
        sent = max(1, last.sent_packets - first.sent_packets)
        return cls(expected, lost / max(1, expected), min(1.0, (expected - lost) / sent))


class _Signs:
    """What a link's reports say since the last move."""

    def __init__(self) -> None:
        self._base: deque[tuple[int, float]] = deque()  # round trips, rising: the first is least
        self._rtts: deque[tuple[int, float]] = deque()
        self._report: Report | None = None
        self.restart(0)

    def restart(self, now_ns: int) -> None:
        """Another rate is sent from now on: only the empty link's round trip stays known."""
        self._start_ns = now_ns
        self._sent: deque[tuple[int, int]] = deque()
        self._estimates: deque[tuple[int, int]] = deque()
        self.fell: int | None = None
        """The estimate, if it fell within the window."""
        self._low_since_ns: int | None = None
        self._first = self._window = self._report
        self._shares: deque[_Share] = deque(maxlen=2)
        self._share_ns = now_ns
        self._rtts.clear()

    def note(self, now_ns: int, link: Link) -> None:
        _push(self._sent, (now_ns, link.sent_bytes), now_ns - WINDOW_NS)
        self.fell = None
        if link.estimate_bps is not None:
            _push(self._estimates, (now_ns, link.estimate_bps), now_ns - WINDOW_NS)
            if link.estimate_bps < FELL * max(bps for _, bps in self._estimates):
                self.fell = link.estimate_bps
        if link.report is not None and link.report is not self._report:
            self._note_report(link.report)
        low = self.fell is not None and self.fell < ALONE * self.sent_bps
        self._low_since_ns = (self._low_since_ns or now_ns) if low else None

    def _note_report(self, report: Report) -> None:
        self._report = report
        self._first = self._first or report
        window = self._window = self._window or report
        share = _Share.between(window, report)
        sent = report.sent_packets - window.sent_packets
        if report.at_ns - window.at_ns >= REPORT_WINDOW_NS and sent >= REPORT_PACKETS:
            self._window = report
            self._shares.append(share)
            self._share_ns = report.at_ns
        if report.rtt_ms is not None:
            self._note_rtt(report.at_ns, report.rtt_ms)

    def _note_rtt(self, now_ns: int, rtt_ms: float) -> None:
        while self._base and self._base[-1][1] >= rtt_ms:
            self._base.pop()
        self._base.append((now_ns, rtt_ms))
        while self._base[0][0] < now_ns - BASE_NS:
            self._base.popleft()
        self._rtts.append((now_ns, rtt_ms))
        while self._rtts[0][0] < now_ns - QUEUE_NS:
            self._rtts.popleft()

    @property
    def sent_bps(self) -> int:
        """What was sent over the window; 0 while there are no two points."""
        if len(self._sent) < 2:
            return 0
        (first_ns, first), (last_ns, last) = self._sent[0], self._sent[-1]
        return (last - first) * 8_000_000_000 // max(1, last_ns - first_ns)

    def has_news(self, link: Link) -> bool:
        """Whether the link tells anything that it did not tell before."""
        estimate_bps = self._estimates[-1][1] if self._estimates else None
        return link.report is not self._report or link.estimate_bps != estimate_bps

    def queue_ms(self, round_trips: int) -> float:
        """The shortest queue in the last so many round trips; 0 while there were fewer."""
        if len(self._rtts) < round_trips:
            return 0.0
        latest = list(self._rtts)[-round_trips:]
        return min(rtt_ms for _, rtt_ms in latest) - self._base[0][1]

    @property
    def last_arrived(self) -> float:
        """The share of packets that arrived in the last window; 1 before there was one."""
        return self._shares[-1].arrived if self._shares else 1.0

    @property
    def whole(self) -> _Share | None:
        """What became of everything since the restart."""
        if self._first is None or self._report is None or self._first is self._report:
            return None
        return _Share.between(self._first, self._report)

    def carried_bps(self, now_ns: int) -> int | None:
        """What the link seems to carry, if that is less than what is sent; else None."""
        if now_ns - self._start_ns < FRESH_NS:
            return None
        sent, fell = self.sent_bps, self.fell
        low = fell is not None and fell < BELOW * sent
        last = self._shares[-1] if self._shares else None
        if last is not None and last.arrived < LITTLE and fell is not None and low:
            return min(fell, int(last.arrived * sent))  # its window began before the trouble
        low_since_ns = self._low_since_ns
        stays = low_since_ns is not None and now_ns - low_since_ns >= STAYED_NS
        good = last is not None and last.arrived >= NOT_ALL and now_ns < self._share_ns + WINDOW_NS
        if fell is not None and stays and not good:
            return fell
        if len(self._shares) == 2:
            arrived = max(share.arrived for share in self._shares)
            if min(share.lost for share in self._shares) > LOSS_TOO_MUCH or (
                arrived < NOT_ALL and (low or self.queue_ms(1) > QUEUE_A_SIGN_MS)
            ):
                return int(arrived * sent)
        lasts = bool(self._rtts) and self._rtts[-1][0] - self._rtts[0][0] > QUEUE_NS // 2
        if lasts and self.queue_ms(max(3, len(self._rtts))) > QUEUE_TOO_LONG_MS:
            return int(CAUTION * sent)
        return None


class Ladder:
    """One viewer's place among the renditions, ``rung``: 0 is the best."""

    def __init__(self, rung: int = 0) -> None:
        self.rung = rung
        self._signs = _Signs()
        self._failures = 0
        self._moved_ns: int | None = None
        self._climb_ns = 0  # no probe before this
        self._probe: tuple[int, int] | None = None  # when it began, what was sent then
        self._was_limited = rung > 0
        self._step = Step(rung)

    def decide(self, now_ns: int, link: Link, rungs_bps: Sequence[int]) -> Step:
        """Where the viewer belongs now. ``rungs_bps`` are the renditions' bitrates, best first."""
        if self._moved_ns is None:
            self._moved_ns = now_ns
            self._climb_ns = now_ns + WAITS_NS[0]
            self._signs.restart(now_ns)
        signs = self._signs
        if self.rung == 0 and signs.fell is None and not signs.has_news(link):
            return self._step  # as for most viewers at most times
        signs.note(now_ns, link)
        if self._probe is not None:
            self._judge_probe(now_ns, self._probe[0])
        elif (carried := signs.carried_bps(now_ns)) is not None:
            self._descend(now_ns, carried, rungs_bps)
        elif self.rung > 0 and now_ns >= self._climb_ns:
            self._climb_or_probe(now_ns, link, rungs_bps)
        if self.rung == 0 and now_ns - self._moved_ns > PROVEN_NS:
            self._failures = 0
        pace = 2 * rungs_bps[self.rung] if self._was_limited else None
        self._step = Step(self.rung, self._padding(now_ns, rungs_bps), pace)
        return self._step

    def _descend(self, now_ns: int, carried_bps: int, rungs_bps: Sequence[int]) -> None:
        last = len(rungs_bps) - 1
        if self.rung == last:
            self._signs.restart(now_ns)
            self._climb_ns = max(self._climb_ns, now_ns + WAITS_NS[0])
            return
        fitting = (
            rung
            for rung in range(self.rung + 1, last + 1)
            if rungs_bps[rung] * HEADROOM <= CAUTION * carried_bps
        )
        self._move(now_ns, next(fitting, last))
        self._was_limited = True
        self._put_off(now_ns)

    def _climb_or_probe(self, now_ns: int, link: Link, rungs_bps: Sequence[int]) -> None:
        needed = rungs_bps[self.rung - 1] * HEADROOM
        known = link.estimate_bps is not None and link.estimate_bps >= needed
        if known or not link.can_pad:
            self._climb(now_ns)
        else:
            self._probe = now_ns, self._signs.sent_bps
            self._signs.restart(now_ns)

    def _judge_probe(self, now_ns: int, begun_ns: int) -> None:
        """End a probe that harms, or that has lasted long enough."""
        signs, whole = self._signs, self._signs.whole
        slow = signs.fell is not None or signs.last_arrived < NOT_ALL
        harms = signs.queue_ms(2) > QUEUE_ENDS_PROBE_MS or (
            slow and signs.queue_ms(1) > QUEUE_A_SIGN_MS
        )
        known = whole is not None and whole.expected >= PROBE_PACKETS
        if whole is not None and known:
            harms = harms or whole.lost > LOSS_ENDS_PROBE
        if not harms and now_ns - begun_ns < (PROBE_NS if known else PROBE_MAX_NS):
            return
        self._probe = None
        if whole is not None and known and not harms and whole.lost <= LOSS_IN_PROBE:
            self._climb(now_ns)
        else:
            signs.restart(now_ns)
            self._put_off(now_ns)

    def _climb(self, now_ns: int) -> None:
        self._move(now_ns, self.rung - 1)
        self._climb_ns = now_ns + STAY_NS

    def _move(self, now_ns: int, rung: int) -> None:
        self.rung = rung
        self._moved_ns = now_ns
        self._signs.restart(now_ns)

    def _put_off(self, now_ns: int) -> None:
        """Wait before the next probe, the longer the more of them failed."""
        self._climb_ns = now_ns + WAITS_NS[min(self._failures, len(WAITS_NS) - 1)]
        self._failures += 1

    def _padding(self, now_ns: int, rungs_bps: Sequence[int]) -> int:
        if self._probe is None:
            return 0
        begun_ns, sent_bps = self._probe
        missing = max(0, round(rungs_bps[self.rung - 1] * HEADROOM) - sent_bps)
        return round(GENTLE_SHARE * missing) if now_ns - begun_ns < GENTLE_NS else missing


def _push(points: deque[tuple[int, int]], point: tuple[int, int], since_ns: int) -> None:
    """Append a point, and forget those before ``since_ns`` save the last one of them."""
    points.append(point)
    while len(points) > 2 and points[1][0] <= since_ns:
        points.popleft()
