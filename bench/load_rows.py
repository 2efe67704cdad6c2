"""The rows of ``make load``: what each measures, against which goal, and how."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass

from bench import bench_delay, load_network
from bench.gauge import Reading, read_gauge
from bench.quality import measure_quality
from calliope.bots import Crowd, Options, Report, Studio
from calliope.bots.crowd import quantile
from calliope.clock import SystemClock
from tests.e2e.server_process import ServerProcess, run_server

JOIN_S = 40.0
SETTLE_S = 4.0
VIDEO_TICKS = 'calliope_ticks_total{kind="video"}'
LATE_TICKS = 'calliope_late_ticks_total{kind="video"}'
SKIPPED_TICKS = 'calliope_skipped_ticks_total{kind="video"}'
KEYFRAMES = "calliope_keyframes_total"
ENCODE_S = "calliope_encode_seconds_sum"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what it is of, the goal in words, whether it is met (None: there is no goal)."""

    case: str
    figure: str
    goal: str
    met: bool | None
    limited: bool = False

    def text(self) -> str:
        mark = {True: "met", False: "MISSED", None: ""}[self.met]
        limit = " (the clients were the limit)" if self.limited else ""
        return f"{self.case:58} {self.figure:34} {self.goal:30} {mark}{limit}"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much."""

    call_s: float
    window_s: float
    sizes: tuple[int, ...]
    audiences: tuple[int, ...]
    peers: tuple[int, ...]
    single_joins: int
    soak_minutes: float


FULL = Plan(90, 12, (5, 10, 15, 20, 25), (50, 150, 250, 300), (2, 3, 4, 5, 6), 10, 0)
QUICK = Plan(12, 5, (5, 25), (50, 150), (2, 4), 4, 0)


@dataclass(frozen=True, slots=True)
class Window:
    """What one stretch of a call came to: the server before and after, and its clients."""

    before: Reading
    after: Reading
    report: Report

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


class Bench:
    """What all rows share: the plan, the recordings, where the server runs."""

    def __init__(self, plan: Plan, studio: Studio, launcher: Sequence[str]) -> None:
        self.plan = plan
        self.studio = studio
        self.found: dict[str, object] = {}
        """Figures for the JSON file and the plot, by name."""
        self.launcher = launcher
        self._rooms = 0

    @contextlib.asynccontextmanager
    async def server(self, *options: str) -> AsyncIterator[ServerProcess]:
        """A server of its own on its own core."""
        async with run_server(*options, launcher=self.launcher) as server:
            yield server

    def new_room(self) -> str:
        self._rooms += 1
        return f"load-{self._rooms}"

    def crowd(self, url: str, **options: object) -> Crowd:
        """Clients that send 640x360 at 30 fps, or smaller where the tile is."""
        chosen = {"fps": 30, "room": self.new_room(), **options}
        return Crowd(Options(url=url, **chosen), self.studio, SystemClock())  # type: ignore[arg-type]

    @contextlib.asynccontextmanager
    async def joined(self, url: str, **options: object) -> AsyncIterator[Crowd]:
        """Clients that are all in, and have been for a while."""
        crowd = self.crowd(url, **options)
        async with crowd.running():
            await crowd.wait_joined(JOIN_S + crowd.options.total / 10)
            await asyncio.sleep(SETTLE_S)
            yield crowd

    async def window(self, pid: int, url: str | None, crowd: Crowd, seconds: float) -> Window:
        """Let a call run, and see what it cost."""
        crowd.mark()
        before = await asyncio.to_thread(read_gauge, pid, url)
        await asyncio.sleep(seconds)
        report = crowd.report()
        return Window(before, await asyncio.to_thread(read_gauge, pid, url), report)


# -- the rows ---------------------------------------------------------------------------------


async def full_call(bench: Bench) -> list[Row]:
    """25 participants with camera and microphone."""
    async with (
        bench.server() as server,
        bench.joined(server.url, count=25, watched=True, observer_waits=True) as crowd,
    ):
        window = await bench.window(server.pid, server.url, crowd, bench.plan.call_s)
        crowd.observing.set()
        await crowd.wait_joined(JOIN_S)
        await asyncio.sleep(SETTLE_S)
        watched = await bench.window(server.pid, server.url, crowd, bench.plan.window_s)
    report, limited = window.report, window.limited
    slowest = min(bot.fps for bot in report.bots)
    sent = min(bot.sent_fps for bot in report.bots)
    late = window.share(LATE_TICKS, VIDEO_TICKS)
    skipped = window.counted(SKIPPED_TICKS)
    sight = watched.report.sight
    assert sight is not None
    bench.found["full_call"] = {
        "cores": window.cores,
        "loop_cores": window.after.loop_cores(window.before),
        "encode_s_per_frame": window.share(ENCODE_S, VIDEO_TICKS),
        "tool": asdict(report.tool),
        "picture_ms": [quantile(sight.picture_ms, share) for share in (0.5, 0.95)],
        "sound_ms": [quantile(sight.sound_ms, share) for share in (0.5, 0.95)],
    }
    name = "25 participants, 30 fps in, 720p30 out"
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
        Row("  memory", f"{window.after.rss_mb:.0f} MB", "at most 700", window.after.rss_mb <= 700),
        Row(
            "  ticks over 5 ms late, or skipped",
            f"{100 * late:.2f}%, {skipped:.0f} skipped",
            "at most 0.1%",
            late <= 0.001 and skipped == 0,
            limited,
        ),
        Row(
            "  picture, sender to composed, of all 25",
            _spread(sight.picture_ms),
            "p50 50, p95 80 ms",
            _within(sight.picture_ms, 50, 80),
            watched.limited,
        ),
        Row(
            "  sound, likewise",
            _spread(sight.sound_ms),
            "p95 80 ms",
            _within(sight.sound_ms, None, 80),
            watched.limited,
        ),
    ]


async def growth(bench: Bench) -> list[Row]:
    """What one more participant costs."""
    cores: dict[int, float] = {}
    limited = False
    async with bench.server() as server:
        for count in bench.plan.sizes:
            async with bench.joined(server.url, count=count) as crowd:
                window = await bench.window(server.pid, server.url, crowd, bench.plan.window_s)
            cores[count] = window.cores
            limited |= window.limited
    slope = _slope(cores)
    bench.found["growth"] = cores
    shown = ", ".join(f"{count}: {value:.2f}" for count, value in cores.items())
    return [
        Row(f"cores of a call of {shown}", "", "", None),
        Row(
            "  one more participant",
            f"{100 * slope:.1f}% of a core",
            "at most 3%",
            slope <= 0.03,
            limited,
        ),
    ]


async def audience(bench: Bench) -> list[Row]:
    """What one more packet costs when it is one more viewer's."""
    cpu: dict[int, tuple[float, float]] = {}  # audience: packets a second, cores
    limited = False
    room = bench.new_room()
    kbps = 0.0
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(bench.server())
        crowds = [await stack.enter_async_context(bench.joined(server.url, room=room, count=1))]
        present = 0
        for size in bench.plan.audiences:
            more = bench.joined(
                server.url,
                room=room,
                count=0,
                audience=size - present,
                sound=False,
                joins_per_s=25.0,
            )
            crowds.append(await stack.enter_async_context(more))
            present = size
            for crowd in crowds[:-1]:
                crowd.mark()
            window = await bench.window(server.pid, server.url, crowds[-1], bench.plan.window_s)
            reports = [crowd.report() for crowd in crowds[1:-1]] + [window.report]
            bots = [bot for report in reports for bot in report.bots]
            seconds = window.after.at_s - window.before.at_s
            sent = sum(report.packets for report in reports) + sum(bot.lost_packets for bot in bots)
            cpu[size] = sent / seconds, window.cores
            kbps = statistics.median(bot.kbps for bot in bots)
            limited |= window.limited
    us = 1e6 * _slope(dict(cpu.values()))
    bench.found["audience"] = {size: {"packets_s": p, "cores": c} for size, (p, c) in cpu.items()}
    most = max(cpu)
    alone = cpu[min(cpu)][1] - cpu[min(cpu)][0] * us / 1e6
    beyond = cpu[most][1] - alone
    return [
        Row(
            f"one packet to one more viewer ({min(cpu)} to {most} audience)",
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


async def joins(bench: Bench) -> list[Row]:
    """From POST to the first picture that can be decoded."""
    rows: list[Row] = []
    async with bench.server() as server:
        room = bench.new_room()
        async with bench.joined(server.url, room=room, count=3):
            single: list[float] = []
            for _ in range(bench.plan.single_joins):
                report = await _join(bench, server.url, room=room, count=0, audience=1)
                single += _first_frames_ms(report)
            pid, url = server.pid, server.url
            before = await asyncio.to_thread(read_gauge, pid, url)
            many = await _join(bench, url, room=room, count=0, audience=20, joins_per_s=20.0)
            after = await asyncio.to_thread(read_gauge, pid, url)
        at_once = _first_frames_ms(many)
        keyframes = after.counted(KEYFRAMES, before) / (after.at_s - before.at_s)
        limited = many.tool.is_limit
        bench.found["joins"] = {"single_ms": single, "at_once_ms": at_once}
        rows += [
            Row(
                "POST to the first picture, single joins",
                _spread(single),
                "p95 300 ms",
                _within(single, None, 300),
            ),
            Row(
                "  20 joins within a second",
                _spread(at_once),
                "p95 700 ms",
                _within(at_once, None, 700),
                limited,
            ),
            Row(
                "  keyframes meanwhile", f"{keyframes:.1f} a second", "at most 2", keyframes <= 2.05
            ),
        ]
    return rows


async def _join(bench: Bench, url: str, **options: object) -> Report:
    """Let clients join, wait for the first picture of each, let them go."""
    crowd = bench.crowd(url, **options)
    async with crowd.running(), asyncio.timeout(JOIN_S):
        await crowd.wait_joined(JOIN_S)
        while any(bot.first_frame_s is None for bot in crowd.report().bots):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return crowd.final_report


async def delay(bench: Bench) -> list[Row]:
    """Flashes and beeps of a stock client, to the arrival of the packets that carry them."""
    found = await bench_delay.measure()
    bench.found["delay"] = found
    picture, sound = found["picture_ms"], found["sound_ms"]
    lips = [abs(value) for value in found["lip_sync_ms"]]
    return [
        Row(
            "picture, sender to composed at another",
            _spread(picture),
            "p50 50, p95 80 ms",
            _within(picture, 50, 80),
        ),
        Row("  sound, likewise", _spread(sound), "p95 80 ms", _within(sound, None, 80)),
        Row(
            "  apart at playout",
            f"{_spread(lips)}, most {max(lips):.0f}",
            "p95 40 ms",
            _within(lips, None, 40),
        ),
    ]


async def quality(bench: Bench) -> list[Row]:
    """What is paid in picture for the encoder's speed."""
    found = await asyncio.to_thread(measure_quality)
    bench.found["quality"] = {name: asdict(value) for name, value in found.items()}
    ours, stock = found["calliope"], found["aiortc"]
    behind = stock.psnr_db - ours.psnr_db
    return [
        Row(
            f"720p at 1.2 Mbit/s: stock {stock.psnr_db:.2f} dB, {stock.ms:.1f} ms a frame",
            f"{ours.psnr_db:.2f} dB, {ours.ms:.1f} ms",
            "at most 0.5 dB below",
            behind <= 0.5,
        )
    ]


async def peers(bench: Bench) -> list[Row]:
    """The usual way, one composition and encode per viewer, beside ours."""
    rows: list[Row] = []
    cores: dict[int, tuple[float, float]] = {}
    for count in bench.plan.peers:
        async with (
            bench.server() as server,
            bench.joined(server.url, count=count) as crowd,
        ):
            ours = await bench.window(server.pid, server.url, crowd, bench.plan.window_s)
        async with (
            _run_peer(bench) as (pid, url),
            bench.joined(url, count=count) as crowd,
        ):
            theirs = await bench.window(pid, None, crowd, bench.plan.window_s)
        cores[count] = ours.cores, theirs.cores
        fps = min(bot.fps for bot in theirs.report.bots)
        rows.append(
            Row(
                f"{count} participants, one composition and encode per viewer",
                f"{theirs.cores:.2f} cores, {fps:.1f} fps",
                f"(ours {ours.cores:.2f})",
                None,
                theirs.limited,
            )
        )
    bench.found["peers"] = cores
    return rows


@contextlib.asynccontextmanager
async def _run_peer(bench: Bench) -> AsyncIterator[tuple[int, str]]:
    """The peer in a process of its own: its id and URL."""
    port = _free_port()
    process = await asyncio.create_subprocess_exec(
        *bench.launcher,
        sys.executable,
        "-m",
        "bench.peers.per_viewer",
        "--port",
        str(port),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process.pid, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            async with asyncio.timeout(10):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def soak(bench: Bench) -> list[Row]:
    """Joins and leaves, all the time: does anything pile up?"""
    readings: list[Reading] = []
    async with bench.server() as server:
        room = bench.new_room()
        async with bench.joined(server.url, room=room, count=3):
            begun_s = time.monotonic()
            end_s = begun_s + 60 * bench.plan.soak_minutes
            rounds = 0
            while time.monotonic() < end_s:
                await _join(bench, server.url, room=room, count=2, audience=4)
                rounds += 1
                await asyncio.sleep(1.5)  # what was left is freed
                readings.append(await asyncio.to_thread(read_gauge, server.pid, server.url))
    settled = [r for r in readings if r.at_s - begun_s >= min(300, 30 * bench.plan.soak_minutes)]
    first, last = settled[0], settled[-1]
    grown = last.rss_mb / first.rss_mb - 1
    bench.found["soak"] = [
        {"s": r.at_s - begun_s, "rss_mb": r.rss_mb, "threads": r.threads, "files": r.files}
        for r in readings
    ]
    same = last.threads <= first.threads and last.files <= first.files
    return [
        Row(
            f"{6 * rounds} joins and leaves in {bench.plan.soak_minutes:g} min: memory",
            f"{100 * grown:+.1f}% ({last.rss_mb:.0f} MB)",
            "within 2%",
            abs(grown) <= 0.02,
        ),
        Row(
            "  threads, open files",
            f"{first.threads} -> {last.threads}, {first.files} -> {last.files}",
            "no more",
            same,
        ),
    ]


async def network(bench: Bench) -> list[Row]:
    """5% of all packets lost both ways, between network namespaces."""
    found = await load_network.measure(bench.launcher, seconds=max(20.0, bench.plan.call_s / 1.5))
    bench.found["network"] = found
    frozen = found["frozen_share"]
    return [
        Row(
            "5% loss both ways: picture frozen",
            f"{100 * frozen:.1f}% of the time",
            "under 2%",
            frozen < 0.02,
        ),
        Row(
            "  picture, sender to composed",
            f"p50 {found['p50_ms']:.0f}, p95 {found['p95_ms']:.0f} ms",
            "",
            None,
        ),
    ]


ROWS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "call": full_call,
    "growth": growth,
    "audience": audience,
    "joins": joins,
    "delay": delay,
    "quality": quality,
    "peers": peers,
}
"""What runs by itself; ``soak`` comes with --minutes, ``network`` with --netns."""
EXTRA = {"soak": soak, "network": network}


# -- numbers ----------------------------------------------------------------------------------


def _slope(points: dict[int, float] | dict[float, float]) -> float:
    """The least-squares slope of values over keys."""
    return statistics.linear_regression(list(points), list(points.values())).slope


def _spread(values_ms: Sequence[float]) -> str:
    if not values_ms:
        return "nothing"
    p50, p95 = (quantile(tuple(values_ms), share) for share in (0.5, 0.95))
    return f"p50 {p50:.0f}, p95 {p95:.0f} ms"


def _within(values_ms: Sequence[float], p50_ms: float | None, p95_ms: float) -> bool:
    values = tuple(values_ms)
    half = p50_ms is None or quantile(values, 0.5) <= p50_ms
    return bool(values) and half and quantile(values, 0.95) <= p95_ms


def _first_frames_ms(report: Report) -> list[float]:
    return [1000 * bot.first_frame_s for bot in report.bots if bot.first_frame_s is not None]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
