"""The way from a mixer's thread to the event loop: in order, and never without bound."""

from __future__ import annotations

from collections.abc import Callable

from calliope.mailbox import Mailbox


class Desk:
    """A mailbox whose event loop runs only when told; items are lists, merged by joining."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []
        self.taken: list[list[int]] = []
        self.merges: list[int] = []
        self.box = Mailbox[list[int]](
            self.calls.append,
            self.taken.append,
            merge=lambda older, newer: older + newer,
            merged=self.merges.append,
            limit=4,
        )

    def run(self) -> None:
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()


def test_items_come_once_in_order_and_with_one_call() -> None:
    desk = Desk()
    for item in range(3):
        desk.box.put([item])
    assert len(desk.calls) == 1
    desk.run()
    desk.box.put([3])
    desk.run()
    assert desk.taken == [[0], [1], [2], [3]]
    assert desk.merges == []


def test_while_the_loop_stands_still_the_oldest_become_one_and_it_is_told() -> None:
    desk = Desk()
    for item in range(10):
        desk.box.put([item])
    desk.run()
    assert desk.taken == [[0, 1, 2, 3, 4, 5, 6], [7], [8], [9]]
    assert desk.merges == [6]
