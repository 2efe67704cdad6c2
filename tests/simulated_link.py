"""A link in a simulation: frames and padding in, what a receiver reports of them out.

Time is a number here, so that a minute of a bad network takes a moment.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from calliope.ladder import Ladder, Link, Report, Step

_NS = 1_000_000_000
FRAME_NS = _NS // 30
POLL_NS = _NS // 5
PACKET_BITS = 9600
RUNGS_BPS = (1_200_000, 400_000, 120_000)
SOUND_BPS = 45_000


@dataclass
class SimulatedLink:
    """One viewer behind a link of ``limit_bps`` with a queue of ``queue_s``.

    ``loss`` is a share lost at random. The receiver reports every ``report_s``; with ``remb`` it
    also estimates, in the manner of browsers: 85% of what arrives when the queue grows, else 8% a
    second more, to at most one and a half times what arrives. What is ``dark`` loses everything.
    """

    ladder: Ladder = field(default_factory=Ladder)
    limit_bps: float = 100e6
    queue_s: float = 0.3
    loss: float = 0.0
    report_s: float = 0.2
    remb: bool = True
    can_pad: bool = True
    dark: bool = False
    busy_s: float = 0.0
    """The receiver's machine stands still for so long at a time, once a second."""
    seed: int = 1
    now_ns: int = _NS
    sent_packets: int = 0
    sent_bytes: int = 0
    rung: int = 0
    padding_bps: int = 0
    rungs: list[tuple[int, int]] = field(default_factory=list)
    """When the viewer was moved, and where to."""

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._free_ns = 0  # when the link has sent all that it was given
        self._coming: list[tuple[int, int, int]] = []  # arrival, number or -1, bits
        self._received = 0
        self._highest = -1
        self._recent: list[tuple[int, int]] = []
        self._estimate = 600_000.0
        self._queue_ns = 0
        self._report: Report | None = None
        self._report_ns = self.now_ns
        self._poll_ns = self.now_ns
        self._asked_ns = 0
        self._credit = 0.0

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass; True as soon as the condition holds."""
        end_ns = self.now_ns + round(seconds * _NS)
        while self.now_ns < end_ns:
            self._send_frame()
            self._receive()
            if self.now_ns >= self._report_ns:
                self._report_ns += round(self.report_s * _NS)
                self._make_report()
            if self.now_ns >= self._poll_ns:
                self._poll_ns += POLL_NS
                self._decide()
            if until():
                return True
            self.now_ns += FRAME_NS
        return False

    def share_at(self, rung: int, since_ns: int) -> float:
        """The share of the time since then that was spent on one rung."""
        moments = [*self.rungs, (self.now_ns, -1)]
        spent = 0
        for (start, place), (end, _) in itertools.pairwise(moments):
            if place == rung:
                spent += max(0, end - max(start, since_ns))
        return spent / (self.now_ns - since_ns)

    def _send_frame(self) -> None:
        bits = RUNGS_BPS[self.rung] // 30
        while bits > 0:
            self._send(min(bits, PACKET_BITS), self.sent_packets)
            self.sent_packets += 1
            bits -= PACKET_BITS
        self._credit += self.padding_bps / 30
        while self._credit > 0:
            self._send(PACKET_BITS, -1)
            self._credit -= PACKET_BITS
        self._free_ns = max(self._free_ns, self.now_ns)
        self._free_ns += round(SOUND_BPS / 30 / self.limit_bps * _NS)

    def _send(self, bits: int, number: int) -> None:
        self.sent_bytes += bits // 8
        if self.dark or self._chance.random() < self.loss:
            return
        start_ns = max(self._free_ns, self.now_ns)
        if start_ns - self.now_ns > self.queue_s * _NS:
            return
        self._free_ns = start_ns + round(bits / self.limit_bps * _NS)
        self._queue_ns = self._free_ns - self.now_ns
        heapq.heappush(self._coming, (self._free_ns + 20_000_000, number, bits))

    def _is_busy(self) -> bool:
        return self.now_ns % _NS < self.busy_s * _NS

    def _receive(self) -> None:
        while self._coming and self._coming[0][0] <= self.now_ns and not self._is_busy():
            at_ns, number, bits = heapq.heappop(self._coming)
            self._recent.append((at_ns, bits))
            if number >= 0:
                self._received += 1
                self._highest = max(self._highest, number)
        self._recent = [one for one in self._recent if one[0] > self.now_ns - _NS // 2]

    def _make_report(self) -> None:
        if self._highest < 0 or self.dark or self._is_busy():
            return
        arrived_bps = sum(bits for _, bits in self._recent) * 2
        if self._queue_ns > 50_000_000 or (self.busy_s and self._chance.random() < 0.3):
            self._estimate = min(self._estimate, 0.85 * arrived_bps)
        elif self._estimate < 1.5 * arrived_bps + 10_000:
            self._estimate *= 1 + 0.08 * self.report_s
        often = self.padding_bps > 0 or self.now_ns - self._asked_ns >= _NS
        if often:
            self._asked_ns = self.now_ns
        delay_ms = self._chance.uniform(0, 1000 * self.busy_s)
        self._report = Report(
            at_ns=self.now_ns,
            lost=self._highest + 1 - self._received,
            highest=40_000 + self._highest,
            sent_packets=self.sent_packets,
            rtt_ms=40 + self._queue_ns / 1e6 + delay_ms if often else None,
        )

    def _decide(self) -> None:
        link = Link(
            report=self._report,
            estimate_bps=round(self._estimate) if self.remb and self._report else None,
            sent_bytes=self.sent_bytes,
            can_pad=self.can_pad,
        )
        step = self.ladder.decide(self.now_ns, link, RUNGS_BPS)
        assert isinstance(step, Step)
        if step.rung != self.rung or not self.rungs:
            self.rung = step.rung
            self.rungs.append((self.now_ns, step.rung))
        self.padding_bps = step.padding_bps
