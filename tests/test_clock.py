"""Time: a fake clock that moves when told, and a ticker that never drifts and never queues."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.clock import NS_PER_S, FakeClock, SystemClock, Tick, Ticker

NEVER = threading.Event()


def advance_to(clock: FakeClock, at_ns: int) -> None:
    clock.advance(ns=at_ns - clock.now_ns())


def wait_for_waiter(thread: threading.Thread, clock: FakeClock) -> None:
    """Until the thread stands in ``wait_until``; it leaves it only by the clock or the event."""
    while not clock._moved._waiters:  # type: ignore[attr-defined]
        assert thread.is_alive()
        time.sleep(0.001)


def test_the_fake_clock_moves_only_when_told() -> None:
    clock = FakeClock(start_ns=5, unix_ms=1000)
    assert clock.now_ns() == 5
    clock.advance(ns=1, ms=2, s=0.5)
    assert clock.now_ns() == 5 + 1 + 2_000_000 + 500_000_000
    assert clock.unix_ms() == 1000 + 502


def test_a_thread_waiting_on_the_fake_clock_wakes_when_its_time_has_come() -> None:
    clock = FakeClock()
    woken: list[bool] = []
    deadline_ns = clock.now_ns() + NS_PER_S
    thread = threading.Thread(target=lambda: woken.append(clock.wait_until(deadline_ns, NEVER)))
    thread.start()
    wait_for_waiter(thread, clock)
    clock.advance(ms=999)
    assert woken == []
    clock.advance(ms=1)
    thread.join(10)
    assert woken == [False]


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()], ids=["fake", "system"])
def test_a_stop_ends_every_wait(clock: FakeClock | SystemClock) -> None:
    stop = threading.Event()
    ended: list[bool] = []
    hour_ns = clock.now_ns() + 3600 * NS_PER_S
    thread = threading.Thread(target=lambda: ended.append(clock.wait_until(hour_ns, stop)))
    thread.start()
    stop.set()
    thread.join(10)
    assert ended == [True]
    assert clock.wait_until(0, stop) is True, "also when the time has come long ago"


def test_the_system_clock_waits_until_the_deadline_and_not_less() -> None:
    clock = SystemClock()
    deadline_ns = clock.now_ns() + 20_000_000
    assert clock.wait_until(deadline_ns, NEVER) is False
    assert clock.now_ns() >= deadline_ns
    assert clock.wait_until(clock.now_ns() - 1, NEVER) is False
    assert abs(clock.unix_ms() - time.time() * 1000) < 5000


def test_beats_come_when_they_are_due() -> None:
    clock = FakeClock()
    start_ns = clock.now_ns()
    ticker = Ticker(clock, 50)
    for index in range(5):
        advance_to(clock, start_ns + index * 20_000_000)
        assert ticker.wait(NEVER) == Tick(index=index, late_ns=0, skipped=0)


@given(rate_hz=st.integers(1, 240), hours=st.integers(1, 1000))
def test_a_beat_is_due_where_it_belongs_after_any_time(rate_hz: int, hours: int) -> None:
    clock = FakeClock()
    ticker = Ticker(clock, rate_hz)
    beats = hours * 3600 * rate_hz
    assert ticker.due_ns(beats) - clock.now_ns() == hours * 3600 * NS_PER_S


def test_thirty_beats_a_second_do_not_drift_although_a_beat_is_no_whole_number_of_ns() -> None:
    clock = FakeClock()
    start_ns = clock.now_ns()
    ticker = Ticker(clock, 30)
    for index in range(300):
        advance_to(clock, ticker.due_ns(index))
        tick = ticker.wait(NEVER)
        assert tick is not None
        assert (tick.index, tick.late_ns) == (index, 0)
    assert ticker.due_ns(300) - start_ns == 10 * NS_PER_S


def test_a_late_beat_is_counted_and_the_next_one_is_on_time_again() -> None:
    clock = FakeClock()
    ticker = Ticker(clock, 50)
    ticker.wait(NEVER)
    clock.advance(ms=20 + 7)
    assert ticker.wait(NEVER) == Tick(index=1, late_ns=7_000_000, skipped=0)
    clock.advance(ms=13)
    assert ticker.wait(NEVER) == Tick(index=2, late_ns=0, skipped=0)


def test_beats_that_were_missed_are_skipped_never_queued() -> None:
    clock = FakeClock()
    ticker = Ticker(clock, 50)
    ticker.wait(NEVER)
    clock.advance(ms=20 + 65)
    assert ticker.wait(NEVER) == Tick(index=4, late_ns=5_000_000, skipped=3)
    clock.advance(ms=15)
    assert ticker.wait(NEVER) == Tick(index=5, late_ns=0, skipped=0)


@given(rate_hz=st.integers(1, 120), delays_ns=st.lists(st.integers(0, 3 * NS_PER_S), max_size=40))
def test_however_late_each_beat_is_within_its_own_time_and_none_comes_twice(
    rate_hz: int, delays_ns: list[int]
) -> None:
    clock = FakeClock()
    ticker = Ticker(clock, rate_hz)
    last = -1
    for delay_ns in delays_ns:
        advance_to(clock, max(clock.now_ns(), ticker.due_ns(last + 1)) + delay_ns)
        tick = ticker.wait(NEVER)
        assert tick is not None
        assert tick.index == last + 1 + tick.skipped
        assert ticker.due_ns(tick.index) + tick.late_ns == clock.now_ns()
        assert clock.now_ns() <= ticker.due_ns(tick.index + 1)
        last = tick.index


def test_a_stopped_ticker_beats_no_more() -> None:
    stop = threading.Event()
    stop.set()
    assert Ticker(FakeClock(), 30).wait(stop) is None


def test_a_rate_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="rate_hz"):
        Ticker(FakeClock(), 0)
