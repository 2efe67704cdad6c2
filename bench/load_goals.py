"""From figures to rows: what was measured, the goal beside it, whether it is met.

Pure: numbers come in, rows go out. ``load_rows.py`` measures.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.decoding import PEOPLE, Decoding
from bench.gauge import Reading
from bench.load_storms import GOOD_VIEWERS, OUTAGE_S, Narrow
from bench.quality import Quality
from calliope.bots import Report
from calliope.bots.crowd import quantile
from calliope.bots.observer import Sight

VIDEO_TICKS = 'calliope_ticks_total{kind="video"}'
LATE_TICKS = 'calliope_late_ticks_total{kind="video"}'
SKIPPED_TICKS = 'calliope_skipped_ticks_total{kind="video"}'
LOOP_LOOKS = "calliope_loop_lag_seconds_count"
LOOP_PROMPT = 'calliope_loop_lag_seconds_bucket{le="0.005"}'
SETTLED_S = 300.0
"""Memory is to be flat from then on."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what it is of, the goal in words, whether it is met (None: there is no goal)."""

    case: str
    figure: str
    goal: str
    met: bool | None
    limited: bool = False

    @property
    def verdict(self) -> str:
        mark = {True: "met", False: "MISSED", None: ""}[self.met]
        return mark + (" (the clients were the limit)" if self.limited else "")

    def text(self) -> str:
        return f"{self.case:58} {self.figure:34} {self.goal:30} {self.verdict}"


@dataclass(frozen=True, slots=True)
class Window:
    """What one stretch of a call came to: the server before and after, and its clients."""

    before: Reading
    after: Reading
    report: Report

    @property
    def seconds(self) -> float:
        return self.after.at_s - self.before.at_s

    @property
    def cores(self) -> float:
        return self.after.cores(self.before)

    def counted(self, name: str) -> float:
        return self.after.counted(name, self.before)

    def share(self, name: str, of: str) -> float:
        return self.counted(name) / max(1.0, self.counted(of))

    @property
    def limited(self) -> bool:
        return self.report.tool.is_limit


@dataclass(frozen=True, slots=True)
class Flow:
    """What one size of audience took: packets a second to all of them, the server's cores."""

    packets_s: float
    cores: float


# -- the rows ---------------------------------------------------------------------------------


def call_rows(window: Window, watched: Window) -> list[Row]:
    """25 participants: what the server did in ``window``, what an observer saw in ``watched``."""
    report, limited, sight = window.report, window.limited, watched.report.sight
    assert sight is not None
    slowest = min(bot.fps for bot in report.bots)
    sent = min(bot.sent_fps for bot in report.bots)
    late, skipped = window.share(LATE_TICKS, VIDEO_TICKS), window.counted(SKIPPED_TICKS)
    rss_mb = window.after.rss_mb
    name = f"{len(report.bots)} participants, 30 fps in, 720p30 out, {window.seconds:.0f} s"
    return [
        Row(
            f"{name}: server",
            f"{window.cores:.2f} cores",
            "at most 1.0",
            window.cores <= 1,
            limited,
        ),
        Row(
            "  slowest receiver",
            f"{slowest:.2f} fps (sent {sent:.1f})",
            "at least 29.5",
            slowest >= 29.5,
            limited,
        ),
        Row("  memory", f"{rss_mb:.0f} MB", "at most 700", rss_mb <= 700),
        Row(
            "  ticks over 5 ms late, or skipped",
            f"{100 * late:.2f}%, {skipped:.0f} skipped",
            "at most 0.1%",
            late <= 0.001 and skipped == 0,
            limited,
        ),
        # on one core that decoders and mixers share, it also waits for its turn: no goal for that
        Row(
            "  looks at the event loop that found it over 5 ms late",
            f"{100 * (1 - window.share(LOOP_PROMPT, LOOP_LOOKS)):.1f}%",
            "",
            None,
        ),
        Row(
            "  picture, sender to composed, of all",
            spread(sight.picture_ms),
            "p50 50, p95 80 ms",
            within(sight.picture_ms, 50, 80),
            watched.limited,
        ),
        Row(
            "  sound, likewise",
            spread(sight.sound_ms),
            "p95 80 ms",
            within(sight.sound_ms, None, 80),
            watched.limited,
        ),
    ]


def growth_rows(cores: Mapping[int, float], limited: bool) -> list[Row]:
    """Participants -> the server's cores."""
    step = slope(cores)
    shown = ", ".join(f"{count}: {value:.2f}" for count, value in cores.items())
    return [
        Row("cores of a call by participants", shown, "", None, limited),
        Row(
            "  one more participant",
            f"{100 * step:.1f}% of a core",
            "at most 3%",
            step <= 0.03,
            limited,
        ),
    ]


def audience_rows(flows: Mapping[int, Flow], kbps: float, limited: bool) -> list[Row]:
    """Size of the audience -> what it took; ``kbps`` is what each gets."""
    us = 1e6 * slope({flow.packets_s: flow.cores for flow in flows.values()})
    least, most = min(flows), max(flows)
    alone = flows[least].cores - flows[least].packets_s * us / 1e6
    beyond = flows[most].cores - alone
    return [
        Row(
            f"one packet to one more viewer ({least} to {most} audience)",
            f"{us:.1f} us",
            "at most 12 us",
            us <= 12,
            limited,
        ),
        Row(
            f"  {most} audience at {kbps:.0f} kbit/s, the encode excluded",
            f"{beyond:.2f} cores",
            "at most 1.0 for 300" if most >= 300 else "",
            beyond <= 1 if most >= 300 else None,
            limited,
        ),
    ]


def join_rows(
    single_ms: Sequence[float], at_once_ms: Sequence[float], keyframes_s: float, limited: bool
) -> list[Row]:
    """From POST to the first picture, of each who joined; keyframes a second meanwhile."""
    return [
        Row(
            "POST to the first picture, single joins",
            spread(single_ms),
            "p95 300 ms",
            within(single_ms, None, 300),
        ),
        Row(
            f"  {len(at_once_ms)} joins within a second",
            spread(at_once_ms),
            "p95 700 ms",
            within(at_once_ms, None, 700),
            limited,
        ),
        Row(
            "  keyframes meanwhile",
            f"{keyframes_s:.1f} a second",
            "at most 2",
            keyframes_s <= 2.05,
        ),
    ]


def delay_rows(
    picture_ms: Sequence[float], sound_ms: Sequence[float], lip_sync_ms: Sequence[float]
) -> list[Row]:
    """Of single flashes and beeps; how far apart they are played may have either sign."""
    apart = [abs(value) for value in lip_sync_ms]
    return [
        Row(
            "picture, sender to composed at another",
            spread(picture_ms),
            "p50 50, p95 80 ms",
            within(picture_ms, 50, 80),
        ),
        Row("  sound, likewise", spread(sound_ms), "p95 80 ms", within(sound_ms, None, 80)),
        Row("  apart at playout", spread(apart), "p95 40 ms", within(apart, None, 40)),
    ]


def quality_rows(ours: Quality, stock: Quality) -> list[Row]:
    behind_db = stock.psnr_db - ours.psnr_db
    return [
        Row(
            f"720p at 1.2 Mbit/s: stock {stock.psnr_db:.2f} dB, {stock.ms:.1f} ms a frame",
            f"{ours.psnr_db:.2f} dB, {ours.ms:.1f} ms",
            "at most 0.5 dB below",
            behind_db <= 0.5,
        )
    ]


def decoding_rows(found: Decoding) -> list[Row]:
    """All cameras of a full room, each of its tile's size, beside one canvas."""
    times = found.cameras_ms / found.canvas_ms
    return [
        Row(
            f"decoding {PEOPLE} cameras sized to their tiles",
            f"{found.cameras_ms:.2f} ms, {times:.1f} canvases",
            "at most 2.5 canvases",
            times <= 2.5,
        )
    ]


def peer_row(count: int, theirs: Window, our_cores: float) -> Row:
    """One composition and encode per viewer, beside ours; there is no goal."""
    fps = min(bot.fps for bot in theirs.report.bots)
    return Row(
        f"{count} participants, one composition and encode per viewer",
        f"{theirs.cores:.2f} cores, {fps:.1f} fps",
        f"(ours {our_cores:.2f})",
        None,
        theirs.limited,
    )


def soak_rows(readings: Sequence[Reading], begun_s: float, minutes: float, joins: int) -> list[Row]:
    """Is memory flat, does anything stay? From five minutes on, or half of a shorter time."""
    settled_s = min(SETTLED_S, 30 * minutes)
    settled = [reading for reading in readings if reading.at_s - begun_s >= settled_s]
    first, last = settled[0], settled[-1]
    grown = last.rss_mb / first.rss_mb - 1
    # one more or less may be open just then: what stays is in every reading of the last third
    third = max(1, len(settled) // 3)
    threads, files = (
        [
            min(getattr(reading, kind) for reading in part)
            for part in (settled[:third], settled[-third:])
        ]
        for kind in ("threads", "files")
    )
    return [
        Row(
            f"{joins} joins and leaves in {minutes:g} min: memory",
            f"{100 * grown:+.1f}% ({last.rss_mb:.0f} MB)",
            "within 2%",
            abs(grown) <= 0.02,
        ),
        Row(
            "  threads, open files",
            f"{threads[0]} -> {threads[1]}, {files[0]} -> {files[1]}",
            "no more",
            threads[1] <= threads[0] and files[1] <= files[0],
        ),
    ]


def loss_rows(before: Sight, during: Sight, after: Sight, dark: Sight) -> list[Row]:
    """Behind a link that lost 5% both ways, and then was dark for half a second now and then."""
    frozen = during.frozen_s / during.seconds
    # one a second, but the first or the last may lie on the edge
    heard = min(1.0, len(during.sound_ms) / max(1, math.floor(during.seconds) - 1))
    later = {
        kind: quantile(getattr(after, kind), 0.95) - quantile(getattr(before, kind), 0.95)
        for kind in ("picture_ms", "sound_ms")
    }
    back_ms = 1000 * (dark.longest_gap_s - OUTAGE_S)
    return [
        Row(
            f"5% loss both ways for {during.seconds:.0f} s: picture frozen",
            f"{100 * frozen:.2f}% of the time",
            "under 2%",
            frozen < 0.02,
        ),
        Row("  sounds heard of those sent", f"{100 * heard:.0f}%", "at least 95%", heard >= 0.95),
        Row(
            "  picture and sound after it, beside before (p95)",
            f"{later['picture_ms']:+.0f}, {later['sound_ms']:+.0f} ms",
            "no later (20 ms)",
            all(ms <= 20 for ms in later.values()),
        ),
        Row(
            f"outages of {1000 * OUTAGE_S:.0f} ms: picture back after their end",
            f"at most {back_ms:.0f} ms",
            "at most 500 ms",
            back_ms <= 500,
        ),
    ]


def disorder_rows(sight: Sight) -> list[Row]:
    """A tenth out of order, a tenth twice."""
    frozen = sight.frozen_s / sight.seconds
    return [
        Row(
            "10% out of order, 10% twice: picture frozen",
            f"{100 * frozen:.2f}% of the time",
            "never",
            frozen == 0,
        ),
        Row(
            "  pictures",
            f"{sight.frames / sight.seconds:.1f} fps",
            "at least 29",
            sight.frames / sight.seconds >= 29,
        ),
    ]


def narrow_rows(found: Narrow) -> list[Row]:
    """One viewer at 200 kbit/s among others."""

    def after(seconds: float | None) -> str:
        return "never" if seconds is None else f"after {seconds:.1f} s"

    return [
        Row(
            f"one at 200 kbit/s among {GOOD_VIEWERS}: gets a smaller picture",
            f"{after(found.down_s)}, {found.fps:.0f} fps",
            "only that one",
            found.down_s is not None and found.others_moved == 0,
        ),
        Row(
            "  720p again once the limit is lifted",
            after(found.back_s),
            "at most 15 s",
            found.back_s is not None and found.back_s <= 15,
        ),
    ]


# -- numbers ----------------------------------------------------------------------------------


def slope(points: Mapping[int, float] | Mapping[float, float]) -> float:
    """The least-squares slope of values over keys; two points at least."""
    return statistics.linear_regression(list(points), list(points.values())).slope


def spread(values_ms: Sequence[float]) -> str:
    if not values_ms:
        return "nothing"
    p50, p95 = (quantile(tuple(values_ms), share) for share in (0.5, 0.95))
    return f"p50 {p50:.0f}, p95 {p95:.0f} ms"


def within(values_ms: Sequence[float], p50_ms: float | None, p95_ms: float) -> bool:
    """Whether there are values and they keep to these limits."""
    values = tuple(values_ms)
    half = p50_ms is None or quantile(values, 0.5) <= p50_ms
    return bool(values) and half and quantile(values, 0.95) <= p95_ms
