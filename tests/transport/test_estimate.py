"""The bandwidth estimate, on simulated links: an exact queue, no real time."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.transport import estimate
from calliope.transport.estimate import Estimator

MS = 1_000_000


class Link:
    """A bottleneck of ``bps`` with 400 ms of queue, and some jitter that keeps the order."""

    def __init__(self, bps: int, jitter_ms: float = 0.0, seed: int = 1) -> None:
        self.bps = bps
        self.jitter_ms = jitter_ms
        self.chance = random.Random(seed)
        self.free_ns = 0
        self.last_ns = 0

    def arrival(self, sent_ns: int, size: int) -> int | None:
        """When a packet comes out; None: the queue is full."""
        if self.free_ns - sent_ns > 400 * MS:
            return None
        self.free_ns = max(self.free_ns, sent_ns) + size * 8 * 1_000_000_000 // self.bps
        late = self.free_ns + 20 * MS + round(self.chance.random() * self.jitter_ms * MS)
        self.last_ns = max(self.last_ns, late)
        return self.last_ns


def run(
    estimator: Estimator, link: Link, seconds: float, *, send_bps: int = 0, start_ns: int = 0
) -> int:
    """Send 30 frames a second, at the estimate or at a rate of its own; returns the end."""
    sent_ns = start_ns
    arrivals: list[tuple[int, int, int]] = []
    while sent_ns < start_ns + seconds * 1e9:
        bps = min(send_bps, estimator.bps) if send_bps else estimator.bps
        left = bps // 240
        at_ns = sent_ns
        while left > 0:
            size = min(1200, left)
            left -= size
            arrived_ns = link.arrival(at_ns, size)
            if arrived_ns is not None:
                arrivals.append((arrived_ns, at_ns, size))
            at_ns += MS
        sent_ns += 33_333_333
        while arrivals and arrivals[0][0] <= sent_ns:
            arrived_ns, from_ns, packet = arrivals.pop(0)
            estimator.add(from_ns * (1 << 18) // 1_000_000_000 & 0xFF_FFFF, packet, arrived_ns)
    return sent_ns


def test_a_link_that_carries_it_leaves_the_estimate_alone() -> None:
    estimator = Estimator(2_500_000)
    run(estimator, Link(10_000_000, jitter_ms=8), 30)
    assert estimator.bps >= 2_500_000


def test_a_still_picture_does_not_pull_the_estimate_down() -> None:
    estimator = Estimator(2_500_000)
    run(estimator, Link(10_000_000, jitter_ms=8), 30, send_bps=150_000)
    assert estimator.bps >= 2_500_000


@pytest.mark.parametrize(("spacing_ms", "stall_ms"), [(5, 50), (10, 100), (20, 200), (33, 300)])
def test_a_server_that_stalls_does_not_take_it_for_a_full_link(
    spacing_ms: int, stall_ms: int
) -> None:
    """Once a second the event loop reads nothing for a while, then all that came meanwhile."""
    estimator = Estimator(2_500_000)
    for number in range(30_000 // spacing_ms):
        sent_ns = number * spacing_ms * MS
        arrived_ns = sent_ns + 20 * MS
        stalled_ns = arrived_ns % (1000 * MS)
        if stalled_ns < stall_ms * MS:
            arrived_ns += stall_ms * MS - stalled_ns + number % 40 * 50_000
        estimator.add(sent_ns * (1 << 18) // 1_000_000_000 & 0xFF_FFFF, 100, arrived_ns)
    assert estimator.bps == 2_500_000


def test_a_narrow_link_is_found_within_seconds() -> None:
    estimator = Estimator(2_500_000)
    link = Link(600_000)
    end_ns = run(estimator, link, 5)
    assert estimator.bps < 700_000
    end_ns = run(estimator, link, 20, start_ns=end_ns)
    assert 300_000 < estimator.bps < 800_000
    assert link.free_ns - end_ns < 150 * MS  # the queue is not left standing


def test_a_link_that_recovers_is_used_again() -> None:
    estimator = Estimator(2_500_000)
    link = Link(400_000)
    end_ns = run(estimator, link, 10)
    assert estimator.bps < 600_000
    link.bps = 10_000_000
    run(estimator, link, 30, start_ns=end_ns)
    assert estimator.bps > 1_000_000


def test_a_pause_starts_the_timing_anew_and_keeps_the_estimate() -> None:
    estimator = Estimator(1_000_000)
    link = Link(10_000_000)
    end_ns = run(estimator, link, 3)
    before = estimator.bps
    run(estimator, link, 3, start_ns=end_ns + 3_600_000 * MS)
    assert estimator.bps >= before


def test_send_times_wrap_every_64_seconds() -> None:
    estimator = Estimator(1_000_000)
    run(estimator, Link(10_000_000), 130, send_bps=300_000)
    assert estimator.bps >= 1_000_000


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFF_FFFF), st.integers(0, 1500), st.integers(0, 3_000)),
        max_size=100,
    )
)
def test_whatever_a_sender_claims_the_estimate_stays_in_its_bounds(
    packets: list[tuple[int, int, int]],
) -> None:
    estimator = Estimator(2_500_000)
    now_ns = 0
    for send_time, size, wait_ms in packets:
        now_ns += wait_ms * MS
        estimator.add(send_time, size, now_ns)
        assert estimate.MIN_BPS <= estimator.bps <= estimate.MAX_BPS
