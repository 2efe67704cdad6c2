"""Who gets a place in the mix, who keeps it, and who is said to speak."""

from __future__ import annotations

from calliope.mixer.floor import Floor

QUIET = -90.0
TALK = -30.0


def hear(floor: Floor, blocks: int, **loudness: float) -> None:
    for _ in range(blocks):
        floor.hear(loudness)


def test_the_first_syllable_gets_a_free_place_in_its_first_block() -> None:
    floor = Floor(2)
    hear(floor, 10, ada=QUIET, bob=QUIET)
    hear(floor, 1, ada=TALK, bob=QUIET)
    assert floor.heard == {"ada"}


def test_a_rooms_noise_takes_no_place() -> None:
    floor = Floor(2)
    hear(floor, 100, ada=-70.0)
    assert not floor.heard


def test_there_are_never_more_than_the_places() -> None:
    floor = Floor(2)
    hear(floor, 5, ada=TALK, bob=TALK + 1, eve=TALK + 2, kim=TALK + 3)
    assert floor.heard == {"kim", "eve"}


def test_equally_loud_people_do_not_push_each_other_out() -> None:
    floor = Floor(1)
    hear(floor, 5, ada=TALK, bob=QUIET)
    hear(floor, 50, ada=TALK, bob=TALK + 3)
    assert floor.heard == {"ada"}


def test_who_is_clearly_louder_takes_the_quietest_place_at_once() -> None:
    floor = Floor(2)
    hear(floor, 5, ada=TALK, bob=TALK - 10, eve=QUIET)
    hear(floor, 1, ada=TALK, bob=TALK - 10, eve=TALK)
    assert floor.heard == {"ada", "eve"}


def test_a_breath_between_two_words_costs_nobody_the_place() -> None:
    floor = Floor(1)
    hear(floor, 20, ada=TALK, bob=QUIET)
    hear(floor, 10, ada=QUIET, bob=TALK - 12)
    assert floor.heard == {"ada"}


def test_a_second_of_quiet_frees_the_place() -> None:
    floor = Floor(1)
    hear(floor, 20, ada=TALK)
    hear(floor, 49, ada=QUIET)
    assert floor.heard == {"ada"}
    hear(floor, 1, ada=QUIET)
    assert not floor.heard


def test_who_is_muted_or_gone_is_off_the_floor_at_once() -> None:
    floor = Floor(2)
    hear(floor, 20, ada=TALK, bob=TALK)
    hear(floor, 1, bob=TALK)
    assert floor.heard == {"bob"}
    assert floor.speaking == {"bob"}


def test_speaking_is_not_said_of_a_click_but_of_speech() -> None:
    floor = Floor(2)
    hear(floor, 2, ada=TALK)
    hear(floor, 1, ada=QUIET)
    hear(floor, 2, ada=TALK)
    assert not floor.speaking
    hear(floor, 1, ada=TALK)
    assert floor.speaking == {"ada"}


def test_speaking_does_not_flicker_between_words() -> None:
    floor = Floor(2)
    changes = []
    for _ in range(10):
        for dbov, blocks in ((TALK, 10), (QUIET, 20)):
            for _ in range(blocks):
                before = floor.speaking
                floor.hear({"ada": dbov})
                changes.append(floor.speaking is not before)
    assert sum(changes) == 1
    hear(floor, 9, ada=QUIET)
    assert floor.speaking == {"ada"}
    hear(floor, 1, ada=QUIET)
    assert not floor.speaking


def test_more_may_speak_than_are_heard() -> None:
    floor = Floor(1)
    hear(floor, 5, ada=TALK, bob=TALK)
    assert len(floor.heard) == 1
    assert floor.speaking == {"ada", "bob"}
