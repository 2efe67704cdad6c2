"""Full garbage collections come when nobody minds, and not before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from calliope.clock import FakeClock
from calliope.collector import ENDED_MAX, IDLE_NS, SPACING_NS, Collector


class Knot:
    """Garbage that only the collector frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def collector(clock: FakeClock) -> Iterator[Collector]:
    before = gc.get_threshold()
    made = Collector(clock)
    made.start()
    yield made
    made.stop()
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def old_garbage() -> Callable[[], object]:
    """A knot that has grown too old for the young generations, and is garbage now."""
    knot = Knot()
    gc.collect(1)
    return weakref.ref(knot)


def test_no_full_collection_comes_by_itself(collector: Collector) -> None:
    knot = old_garbage()
    gc.collect(1)
    hoard = [Knot() for _ in range(200_000)]  # by default this is looked through several times
    assert knot() is not None
    del hoard


def test_the_garbage_of_the_last_who_left_is_collected_at_once(collector: Collector) -> None:
    collector.look(1)
    knot = old_garbage()
    collector.look(0)
    assert knot() is None


def test_while_others_are_there_the_garbage_of_a_few_waits(
    collector: Collector, clock: FakeClock
) -> None:
    collector.look(30)
    clock.advance(ns=SPACING_NS)
    knot = old_garbage()
    collector.look(30 - ENDED_MAX + 1)
    assert knot() is not None
    collector.look(30 - ENDED_MAX)
    assert knot() is None


def test_many_who_leave_together_cost_one_collection(
    collector: Collector, clock: FakeClock
) -> None:
    collector.look(100)
    clock.advance(ns=SPACING_NS)
    collector.look(100 - ENDED_MAX)
    knot = old_garbage()
    collector.look(100 - 3 * ENDED_MAX)
    assert knot() is not None
    clock.advance(ns=SPACING_NS)
    collector.look(100 - 3 * ENDED_MAX)
    assert knot() is None


def test_joining_collects_nothing_until_a_long_time_has_passed(
    collector: Collector, clock: FakeClock
) -> None:
    knot = old_garbage()
    for sessions in range(50):
        clock.advance(ns=IDLE_NS // 100)
        collector.look(sessions)
    assert knot() is not None
    clock.advance(ns=IDLE_NS)
    collector.look(50)
    assert knot() is None
