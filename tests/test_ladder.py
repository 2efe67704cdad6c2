"""Which rendition a viewer gets, over simulated links."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.ladder import Ladder, Link, Report
from tests.simulated_link import RUNGS_BPS, SimulatedLink

LAST = len(RUNGS_BPS) - 1


def limited(limit_bps: float = 200e3, **changes: float) -> SimulatedLink:
    """A viewer that was well off for five seconds, and then is not."""
    link = SimulatedLink(**changes)  # type: ignore[arg-type]
    assert not link.run(5, lambda: link.rung > 0)
    link.limit_bps = limit_bps
    return link


def test_a_good_link_has_the_best_rendition_and_no_padding_ever() -> None:
    link = SimulatedLink()
    assert not link.run(120, lambda: link.rung > 0 or link.padding_bps > 0)


@pytest.mark.parametrize("queue_s", [0.05, 0.3, 2.0])
def test_a_link_of_200_kbit_has_the_smallest_within_a_second(queue_s: float) -> None:
    link = limited(queue_s=queue_s)
    assert link.run(1.0, lambda: link.rung == LAST)


@pytest.mark.parametrize("queue_s", [0.05, 0.3, 2.0])
def test_without_estimates_and_with_a_report_a_second_it_takes_a_little_longer(
    queue_s: float,
) -> None:
    link = limited(queue_s=queue_s, report_s=1.0, remb=False)
    assert link.run(4.0, lambda: link.rung == LAST)


@settings(max_examples=60, deadline=None)
@given(st.floats(1.0, 40.0), st.integers(0, 99), st.booleans(), st.booleans())
def test_the_best_is_back_within_15_s_whenever_a_limit_is_lifted(
    seconds: float, seed: int, remb: bool, often: bool
) -> None:
    link = limited(seed=seed, remb=remb, report_s=0.2 if often else 0.8)
    link.run(max(seconds, 4.0))
    assert link.rung == LAST
    link.limit_bps = 100e6
    assert link.run(15.0, lambda: link.rung == 0)
    assert not link.run(20.0, lambda: link.rung > 0)


def test_a_narrow_link_stays_on_what_it_carries_and_is_tried_rarely() -> None:
    link = limited(200e3)
    link.run(3)
    since_ns = link.now_ns
    assert not link.run(60, lambda: link.rung < LAST)
    # what probing costs: padding goes out for a twentieth of the time at most
    spent = 0
    for _ in range(300):
        link.run(0.2)
        spent += link.padding_bps > 0
    assert spent <= 30
    assert link.now_ns > since_ns


@pytest.mark.parametrize("limit_bps", [600e3, 800e3, 1000e3])
def test_a_middling_link_has_the_middle_rendition_most_of_the_time(limit_bps: float) -> None:
    link = limited(limit_bps)
    link.run(20)
    since_ns = link.now_ns
    link.run(120)
    assert link.share_at(1, since_ns) > 0.8


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000))
def test_random_loss_of_5_percent_costs_no_rendition(seed: int) -> None:
    link = SimulatedLink(loss=0.05, seed=seed)
    assert not link.run(60, lambda: link.rung > 0)


def test_much_random_loss_does() -> None:
    link = limited(100e6)
    link.loss = 0.3
    assert link.run(3, lambda: link.rung > 0)


def test_half_a_second_of_darkness_asks_for_nothing_less() -> None:
    link = SimulatedLink()
    for _ in range(10):
        link.run(5)
        link.dark = True
        link.run(0.5)
        link.dark = False
    assert link.rungs == [link.rungs[0]]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_a_busy_receiver_is_not_taken_for_a_narrow_link(seed: int) -> None:
    link = SimulatedLink(busy_s=0.15, seed=seed)
    link.run(60)
    assert link.share_at(0, 0) > 0.97


def test_a_viewer_that_reports_nothing_has_the_best() -> None:
    ladder = Ladder()
    for tick in range(300):
        step = ladder.decide(tick * 200_000_000, Link(sent_bytes=tick * 30_000), RUNGS_BPS)
        assert (step.rung, step.padding_bps, step.pace_bps) == (0, 0, None)


def test_without_padding_the_next_rendition_is_simply_tried() -> None:
    link = limited(200e3, can_pad=False)
    link.run(20)
    assert link.padding_bps == 0
    link.limit_bps = 100e6
    assert link.run(15, lambda: link.rung == 0)
    assert not link.run(20, lambda: link.rung > 0)


def test_who_was_on_a_narrow_link_begins_again_where_it_was() -> None:
    link = SimulatedLink(ladder=Ladder(LAST), rung=LAST)
    link.run(1)
    assert link.rung == LAST
    assert link.run(14, lambda: link.rung == 0)


def test_who_was_limited_is_sent_no_bursts_any_more() -> None:
    link = limited(200e3)
    link.run(5)
    step = link.ladder.decide(link.now_ns, Link(), RUNGS_BPS)
    assert step.pace_bps == 2 * RUNGS_BPS[LAST]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2_000_000_000),
            st.integers(-(1 << 23), (1 << 23) - 1),
            st.integers(0, (1 << 32) - 1),
            st.integers(0, 1000),
            st.one_of(st.none(), st.floats(0, 60_000)),
            st.one_of(st.none(), st.integers(0, 1 << 80)),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_no_report_however_false_leads_off_the_ladder(
    reports: list[tuple[int, int, int, int, float | None, int | None, bool]],
) -> None:
    ladder, now_ns, packets = Ladder(), 0, 0
    for after_ns, lost, highest, sent, rtt_ms, estimate_bps, can_pad in reports:
        now_ns += after_ns
        packets += sent
        report = Report(now_ns, lost, highest, packets, rtt_ms)
        link = Link(0.0, 0.0, report, estimate_bps, packets * 1200, can_pad)
        step = ladder.decide(now_ns, link, RUNGS_BPS)
        assert 0 <= step.rung <= LAST
        assert 0 <= step.padding_bps <= 1.15 * RUNGS_BPS[0]
