"""How far apart picture and sound come out, of what was sent, arrived and was dated."""

from __future__ import annotations

from calliope.bots.lip_sync import LipSync

MS = 1_000_000
APART = 5_000_000_000 * MS
"""Between the sender's clock and the wall clock of the reports."""


def test_it_is_the_difference_of_what_both_are_dated_late() -> None:
    lips = LipSync()
    lips.see(1000 * MS, APART + 1015 * MS)
    lips.hear(1000 * MS, APART + 1040 * MS)
    lips.see(2000 * MS, APART + 2050 * MS)
    lips.hear(2010 * MS, APART + 2030 * MS)
    assert lips.distances_ms == (-25.0, 30.0)


def test_what_is_not_dated_yet_says_nothing() -> None:
    lips = LipSync()
    lips.hear(0, APART)  # no picture yet
    lips.see(0, None)
    lips.hear(0, APART)
    lips.see(0, APART)
    lips.hear(0, None)
    assert lips.distances_ms == ()


def test_a_mark_forgets_distances_not_the_picture() -> None:
    lips = LipSync()
    lips.see(0, APART)
    lips.hear(0, APART + MS)
    lips.mark()
    lips.hear(0, APART + 2 * MS)
    assert lips.distances_ms == (-2.0,)
