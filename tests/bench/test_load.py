"""The load tool's arithmetic: from figures to rows, goals met and missed, pieces put together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import load_goals as goals
from bench.decoding import Decoding
from bench.gauge import Reading
from bench.load import keep, load, merged
from bench.load_goals import Flow, Row, Window
from bench.load_report import BEGIN, END, table
from bench.load_rows import ROWS
from bench.load_storms import Narrow, has_moved
from bench.quality import Quality
from bench.report import between_marks
from calliope.bots import BotReport, Report
from calliope.bots.crowd import ToolReport
from calliope.bots.observer import Sight

BOT = BotReport("Ada", 0.1, 0.2, 30.0, 1200.0, 30.0, 50, 0, 0, 0.0, 0.04)
SIGHT = Sight(
    seconds=60.0, frames=1800, freezes=0, frozen_s=0.0, longest_gap_s=0.05, read=1800, unread=0,
    picture_ms=(20.0, 30.0), sound_ms=(40.0,) * 60, lip_sync_ms=(),
)  # fmt: skip


def reading(at_s: float = 0.0, cpu_s: float = 0.0, rss_mb: float = 300.0, **more: Any) -> Reading:
    metrics = more.pop("metrics", {})
    return Reading(at_s, cpu_s, 0.0, rss_mb, more.pop("threads", 7), more.pop("files", 30), metrics)


def report(*bots: BotReport, busy: float = 0.5, sight: Sight | None = None) -> Report:
    return Report(bots, (), 0, 100, 1.0, ToolReport(busy, 0.001), sight)


def window(
    cpu_s: float = 9.0, rss_mb: float = 300.0, late: int = 0, skipped: int = 0, **of: Any
) -> Window:
    """Ten seconds and a thousand ticks."""
    counted = {
        goals.VIDEO_TICKS: 1000,
        goals.LATE_TICKS: late,
        goals.SKIPPED_TICKS: skipped,
        goals.LOOP_LOOKS: 50,
        goals.LOOP_PROMPT: 49,
    }
    before = reading(100.0, 50.0, metrics=dict.fromkeys(counted, 500.0))
    after = {name: 500.0 + count for name, count in counted.items()}
    bots = of.pop("bots", (BOT, BOT))
    return Window(before, reading(110.0, 50.0 + cpu_s, rss_mb, metrics=after), report(*bots, **of))


def missed(rows: list[Row]) -> list[str]:
    return [row.case.strip() for row in rows if row.met is False]


# -- numbers --------------------------------------------------------------------------------------


def test_a_window_is_what_came_between_two_readings() -> None:
    seen = window(cpu_s=9.0, late=3)
    assert seen.seconds == 10
    assert seen.cores == pytest.approx(0.9)
    assert seen.counted(goals.LATE_TICKS) == 3
    assert seen.counted("calliope_of_nothing") == 0
    assert seen.share(goals.LATE_TICKS, goals.VIDEO_TICKS) == pytest.approx(0.003)
    assert seen.share(goals.LATE_TICKS, "calliope_of_nothing") == 3  # and no division by zero


def test_the_slope_is_that_of_the_line_through_all() -> None:
    assert goals.slope({5: 0.5, 10: 0.6, 15: 0.7}) == pytest.approx(0.02)
    assert goals.slope({0: 0.0, 1: 1.0, 2: 0.0}) == pytest.approx(0.0)


def test_limits_hold_for_the_median_and_the_95th_percentile() -> None:
    values = [10.0] * 94 + [100.0] * 6
    assert goals.spread(values) == "p50 10, p95 100 ms"
    assert goals.within(values, 10, 100)
    assert not goals.within(values, 9, 100)
    assert not goals.within(values, None, 99)
    assert goals.within([10.0] * 96 + [100.0] * 4, None, 10)
    assert not goals.within([], None, 100)  # nothing measured meets no goal
    assert goals.spread([]) == "nothing"


# -- rows -----------------------------------------------------------------------------------------


def test_a_row_says_whether_its_goal_is_met_and_whose_limit_it_was() -> None:
    row = Row("cores", "0.9", "at most 1.0", True)
    assert row.text().split() == ["cores", "0.9", "at", "most", "1.0", "met"]
    assert replace(row, met=False).verdict == "MISSED"
    assert replace(row, met=None).verdict == ""
    assert replace(row, limited=True).verdict == "met (the clients were the limit)"


def test_a_call_within_all_its_goals() -> None:
    rows = goals.call_rows(window(late=1), window(sight=SIGHT))
    assert missed(rows) == []
    assert "0.90 cores" in rows[0].figure
    assert rows[0].case.startswith("2 participants")
    assert not any(row.limited for row in rows)
    assert [row.figure for row in rows if "event loop" in row.case] == ["2.0%"]


@pytest.mark.parametrize(
    ("what", "row"),
    [
        ({"cpu_s": 10.1}, "2 participants, 30 fps in, 720p30 out, 10 s: server"),
        ({"bots": (BOT, replace(BOT, fps=29.4))}, "slowest receiver"),
        ({"rss_mb": 701.0}, "memory"),
        ({"late": 2}, "ticks over 5 ms late, or skipped"),
        ({"skipped": 1}, "ticks over 5 ms late, or skipped"),
    ],
)
def test_each_goal_of_a_call_can_be_missed(what: dict[str, Any], row: str) -> None:
    assert missed(goals.call_rows(window(**what), window(sight=SIGHT))) == [row]


@pytest.mark.parametrize(
    ("sight", "row"),
    [
        (replace(SIGHT, picture_ms=(51.0,)), "picture, sender to composed, of all"),
        (replace(SIGHT, picture_ms=(40.0, 40.0, 81.0)), "picture, sender to composed, of all"),
        (replace(SIGHT, picture_ms=()), "picture, sender to composed, of all"),
        (replace(SIGHT, sound_ms=(81.0,)), "sound, likewise"),
    ],
)
def test_delays_of_a_call_can_be_missed(sight: Sight, row: str) -> None:
    assert missed(goals.call_rows(window(), window(sight=sight))) == [row]


def test_where_the_clients_were_busy_it_is_said() -> None:
    rows = goals.call_rows(window(busy=0.95), window(sight=SIGHT, busy=0.5))
    assert [row.limited for row in rows] == [True, True, False, True, False, False, False]


def test_one_more_participant_may_cost_three_percent_of_a_core() -> None:
    assert missed(goals.growth_rows({5: 0.50, 25: 1.09}, limited=False)) == []
    assert missed(goals.growth_rows({5: 0.50, 25: 1.11}, limited=False)) == ["one more participant"]


def test_a_packet_costs_the_slope_of_cores_over_packets() -> None:
    """10 us a packet beside 0.4 of a core that is spent on nobody."""
    flows = {size: Flow(size * 100.0, 0.4 + size * 100 * 10e-6) for size in (50, 150, 300)}
    packet, whole = goals.audience_rows(flows, 1200.0, limited=False)
    assert packet.figure == "10.0 us"
    assert whole.figure == "0.30 cores"
    assert (packet.met, whole.met) == (True, True)
    dear = {size: Flow(size * 100.0, 0.4 + size * 100 * 40e-6) for size in (50, 300)}
    assert missed(goals.audience_rows(dear, 1200.0, limited=False)) == [
        "one packet to one more viewer (50 to 300 audience)",
        "300 audience at 1200 kbit/s, the encode excluded",
    ]
    assert goals.audience_rows({50: flows[50], 150: flows[150]}, 1.0, limited=False)[1].met is None


def test_joins_and_keyframes() -> None:
    assert missed(goals.join_rows([300.0], [700.0] * 20, 2.0, limited=False)) == []
    assert missed(goals.join_rows([301.0], [701.0] * 20, 2.5, limited=False)) == [
        "POST to the first picture, single joins",
        "20 joins within a second",
        "keyframes meanwhile",
    ]


def test_picture_and_sound_may_be_apart_either_way() -> None:
    assert missed(goals.delay_rows([50.0], [80.0], [-40.0, 40.0])) == []
    assert missed(goals.delay_rows([50.0], [80.0], [-41.0])) == ["apart at playout"]


def test_quality_may_be_half_a_decibel_behind() -> None:
    stock = Quality(41.5, 8.0, 1200.0)
    assert missed(goals.quality_rows(Quality(41.0, 6.0, 1200.0), stock)) == []
    assert missed(goals.quality_rows(Quality(40.9, 6.0, 1200.0), stock))


def test_a_room_of_cameras_may_cost_two_and_a_half_canvases_to_decode() -> None:
    assert missed(goals.decoding_rows(Decoding(canvas_ms=1.0, cameras_ms=2.5))) == []
    assert missed(goals.decoding_rows(Decoding(canvas_ms=1.0, cameras_ms=2.6)))


def test_peers_have_no_goal() -> None:
    row = goals.peer_row(4, window(), 0.5)
    assert (row.figure, row.goal, row.met) == ("0.90 cores, 30.0 fps", "(ours 0.50)", None)


def test_memory_is_judged_from_five_minutes_on_or_the_half() -> None:
    begun_s = 1000.0
    grows = [reading(begun_s + s, rss_mb=mb) for s, mb in ((10, 100), (310, 300), (3600, 305))]
    assert missed(goals.soak_rows(grows, begun_s, 60, joins=6)) == []
    assert "+1.7%" in goals.soak_rows(grows, begun_s, 60, joins=6)[0].figure
    leaks = [*grows[:2], reading(begun_s + 3600, rss_mb=310, threads=8)]
    assert missed(goals.soak_rows(leaks, begun_s, 60, joins=6)) == [
        "6 joins and leaves in 60 min: memory",
        "threads, open files",
    ]
    short = [reading(begun_s + s, rss_mb=mb) for s, mb in ((10, 100), (31, 300), (60, 300))]
    assert missed(goals.soak_rows(short, begun_s, 1, joins=6)) == []


def test_a_bad_network_that_does_not_hurt() -> None:
    dark = replace(SIGHT, longest_gap_s=0.95)
    during = replace(SIGHT, frozen_s=1.19)
    rows = goals.loss_rows(SIGHT, during, SIGHT, dark)
    assert missed(rows) == []
    assert rows[0].figure == "1.98% of the time"
    assert rows[3].figure == "at most 450 ms"


@pytest.mark.parametrize(
    ("sights", "row"),
    [
        ({"during": replace(SIGHT, frozen_s=1.2)}, "5% loss both ways for 60 s: picture frozen"),
        ({"during": replace(SIGHT, sound_ms=(40.0,) * 55)}, "sounds heard of those sent"),
        (
            {"after": replace(SIGHT, picture_ms=(51.0,))},
            "picture and sound after it, beside before (p95)",
        ),
        (
            {"after": replace(SIGHT, sound_ms=(61.0,))},
            "picture and sound after it, beside before (p95)",
        ),
        (
            {"after": replace(SIGHT, picture_ms=())},
            "picture and sound after it, beside before (p95)",
        ),
        (
            {"dark": replace(SIGHT, longest_gap_s=1.01)},
            "outages of 500 ms: picture back after their end",
        ),
    ],
)
def test_each_goal_of_a_bad_network_can_be_missed(sights: dict[str, Sight], row: str) -> None:
    calm = dict.fromkeys(("before", "during", "after", "dark"), SIGHT)
    assert missed(goals.loss_rows(**{**calm, **sights})) == [row]


def test_disorder_must_not_be_seen_at_all() -> None:
    assert missed(goals.disorder_rows(SIGHT)) == []
    bad = replace(SIGHT, frozen_s=0.3, frames=1700)
    assert len(missed(goals.disorder_rows(bad))) == 2


def test_only_the_one_on_a_narrow_link_may_move() -> None:
    assert missed(goals.narrow_rows(Narrow(2.0, 15.0, 0, 30.0))) == []
    assert len(missed(goals.narrow_rows(Narrow(None, None, 0, 30.0)))) == 2
    assert len(missed(goals.narrow_rows(Narrow(2.0, 15.1, 1, 30.0)))) == 2


@pytest.mark.parametrize(
    ("best", "smaller", "moved", "back"),
    [(26, 1, True, False), (27, 0, False, True), (26, 0, False, False), (0, 0, False, False)],
)
def test_a_viewer_that_dropped_out_has_neither_moved_nor_come_back(
    best: int, smaller: int, moved: bool, back: bool
) -> None:
    metrics = {
        'calliope_viewers{rendition="720p"}': float(best),
        'calliope_viewers{rendition="360p"}': 0.0,
        'calliope_viewers{rendition="180p"}': float(smaller),
        "calliope_rooms": 1.0,
    }
    found = reading(metrics=metrics)
    assert has_moved(found, 27, smaller=True) == moved
    assert has_moved(found, 27, smaller=False) == back


# -- what is kept ---------------------------------------------------------------------------------

ROW = Row("cores", "0.9", "at most 1.0", True)


def test_pieces_measured_on_one_machine_make_one_table_in_the_usual_order() -> None:
    earlier, _, later, *_ = ROWS
    first = merged({}, "here", {later: [ROW]}, {"growth": {5: 0.5}})
    both = merged(first, "here", {earlier: [ROW]}, {"peers": {}})
    assert list(both["rows"]) == [earlier, later]
    assert set(both["found"]) == {"growth", "peers"}
    again = merged(both, "here", {later: [replace(ROW, figure="0.8")]}, {})
    assert again["rows"][later][0]["figure"] == "0.8"
    elsewhere = merged(both, "there", {earlier: [ROW]}, {})
    assert list(elsewhere["rows"]) == [earlier]


def test_what_is_kept_is_found_again_and_drawn(tmp_path: Path) -> None:
    path = tmp_path / "new" / "load.json"
    assert load(path) == {}
    found: dict[str, object] = {
        "growth": {5: 0.5, 10: 0.6},
        "peers": {2: [0.4, 0.7]},
        "audience": {50: {"packets_s": 5000.0, "cores": 0.5}},
    }
    keep(path, merged({}, "here", {"call": [ROW]}, found))
    assert load(path)["found"]["growth"] == {"5": 0.5, "10": 0.6}
    assert "<svg" in path.with_suffix(".svg").read_text()


def test_the_table_names_the_machine_and_says_what_was_missed() -> None:
    rows = [ROW, Row("  memory", "800 MB", "at most 700", False)]
    made = table(merged({}, "a fast one", {"call": rows}, {}))
    assert "Measured on: a fast one." in made
    assert made.splitlines()[-2:] == [
        "| cores | 0.9 | at most 1.0 | met |",
        "| ... memory | 800 MB | at most 700 | MISSED |",
    ]


def test_the_readme_has_its_place_for_it() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    once = between_marks(readme, "one", BEGIN, END)
    twice = between_marks(once, "two", BEGIN, END)
    assert "\ntwo\n" in twice
    assert "\none\n" not in twice
    with pytest.raises(ValueError, match="no line"):
        between_marks(readme.replace(END, ""), "one", BEGIN, END)
