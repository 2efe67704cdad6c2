"""The main speaker: who talks on is shown, who coughs is not, and nothing flickers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from calliope.clock import NS_PER_S
from calliope.mixer.lead import CLAIM_NS, HOLD_NS, Lead, follow

MS = NS_PER_S // 1000


def test_the_first_word_leads_at_once() -> None:
    assert follow(Lead(), {"ada": 5 * MS}, 6 * MS) == Lead("ada", 6 * MS)


def test_silence_and_ones_own_speech_change_nothing() -> None:
    ada = Lead("ada", 0)
    assert follow(ada, {}, 100 * NS_PER_S) is ada
    assert follow(ada, {"ada": 0, "lin": 0}, 100 * NS_PER_S) is ada


def test_a_cough_does_not_take_the_lead_and_talking_on_does() -> None:
    ada, began = Lead("ada", 0), 10 * NS_PER_S
    assert follow(ada, {"lin": began}, began + CLAIM_NS - MS) is ada
    assert follow(ada, {"lin": began}, began + CLAIM_NS) == Lead("lin", began + CLAIM_NS)


def test_nobody_loses_the_lead_within_two_seconds() -> None:
    lin = Lead("lin", 10 * NS_PER_S)
    assert follow(lin, {"ada": 0}, lin.since_ns + HOLD_NS - MS) is lin
    assert follow(lin, {"ada": 0}, lin.since_ns + HOLD_NS).id == "ada"


def test_of_several_the_one_who_has_spoken_longest_takes_over() -> None:
    now = 60 * NS_PER_S
    speaking = {"grace": now - 3 * NS_PER_S, "lin": now - 4 * NS_PER_S}
    assert follow(Lead("ada", 0), speaking, now).id == "lin"


@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=200))
def test_however_people_talk_the_lead_changes_at_most_every_two_seconds(
    talk: list[set[str]],
) -> None:
    """One step is 200 ms, as the room looks."""
    lead, since, changes = Lead(), dict[str, int](), list[int]()
    for step, speaking in enumerate(talk):
        now = (step + 1) * 200 * MS
        since = {id: since.get(id, now) for id in speaking}
        after = follow(lead, since, now)
        if after is not lead:
            assert after.id in speaking
            changes.append(now)
        lead = after
    assert all(later - earlier >= HOLD_NS for earlier, later in pairwise(changes))
