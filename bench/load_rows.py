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

from bench import bench_delay, load_network, load_storms
from bench.decoding import measure_decoding
from bench.gauge import Reading, read_gauge
from bench.load_goals import (
    VIDEO_TICKS,
    Flow,
    Row,
    Window,
    audience_rows,
    call_rows,
    decoding_rows,
    delay_rows,
    disorder_rows,
    growth_rows,
    join_rows,
    loss_rows,
    narrow_rows,
    peer_row,
    quality_rows,
    soak_rows,
)  # fmt: skip
from bench.quality import measure_quality
from calliope.bots import Crowd, Options, Report, Studio
from calliope.bots.crowd import quantile
from calliope.bots.observer import Sight
from calliope.clock import SystemClock
from tests.e2e.server_process import ServerProcess, run_server

JOIN_S = 40.0
SETTLE_S = 4.0
SINGLE_S = 1.1
"""Between single joins: each is to find no keyframe that another one has just asked for."""
KEYFRAMES = "calliope_keyframes_total"
ENCODE_S = "calliope_encode_seconds_sum"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much."""

    call_s: float
    window_s: float
    sizes: tuple[int, ...]
    audiences: tuple[int, ...]
    peers: tuple[int, ...]
    single_joins: int
    loss_s: float
    soak_minutes: float


FULL = Plan(
    call_s=300,
    window_s=12,
    sizes=(5, 10, 15, 20, 25),
    audiences=(50, 150, 250, 300),
    peers=(2, 3, 4, 5, 6),
    single_joins=10,
    loss_s=60,
    soak_minutes=2,
)
QUICK = Plan(
    call_s=12,
    window_s=5,
    sizes=(5, 25),
    audiences=(50, 150),
    peers=(2, 4),
    single_joins=4,
    loss_s=12,
    soak_minutes=0.5,
)


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
    sight = watched.report.sight
    assert sight is not None
    bench.found["full_call"] = {
        "cores": window.cores,
        "loop_cores": window.after.loop_cores(window.before),
        "encode_s_per_frame": window.share(ENCODE_S, VIDEO_TICKS),
        "tool": asdict(window.report.tool),
        "picture_ms": [quantile(sight.picture_ms, share) for share in (0.5, 0.95)],
        "sound_ms": [quantile(sight.sound_ms, share) for share in (0.5, 0.95)],
    }
    return call_rows(window, watched)


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
    bench.found["growth"] = cores
    return growth_rows(cores, limited)


async def audience(bench: Bench) -> list[Row]:
    """What one more packet costs when it is one more viewer's."""
    flows: dict[int, Flow] = {}
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
            sent = sum(report.packets for report in reports) + sum(bot.lost_packets for bot in bots)
            flows[size] = Flow(sent / window.seconds, window.cores)
            kbps = statistics.median(bot.kbps for bot in bots)
            limited |= window.limited
    bench.found["audience"] = {size: asdict(flow) for size, flow in flows.items()}
    return audience_rows(flows, kbps, limited)


async def joins(bench: Bench) -> list[Row]:
    """From POST to the first picture that can be decoded."""
    async with bench.server() as server:
        room = bench.new_room()
        async with bench.joined(server.url, room=room, count=3):
            single: list[float] = []
            for _ in range(bench.plan.single_joins):
                await asyncio.sleep(SINGLE_S)
                report = await _join(bench, server.url, room=room, count=0, audience=1)
                single += _first_frames_ms(report)
            pid, url = server.pid, server.url
            before = await asyncio.to_thread(read_gauge, pid, url)
            many = await _join(bench, url, room=room, count=0, audience=20, joins_per_s=20.0)
            after = await asyncio.to_thread(read_gauge, pid, url)
    at_once = _first_frames_ms(many)
    keyframes_s = after.counted(KEYFRAMES, before) / (after.at_s - before.at_s)
    bench.found["joins"] = {"single_ms": single, "at_once_ms": at_once}
    return join_rows(single, at_once, keyframes_s, many.tool.is_limit)


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
    return delay_rows(found["picture_ms"], found["sound_ms"], found["lip_sync_ms"])


async def quality(bench: Bench) -> list[Row]:
    """What is paid in picture for the encoder's speed."""
    found = await asyncio.to_thread(measure_quality)
    bench.found["quality"] = {name: asdict(value) for name, value in found.items()}
    return quality_rows(found["calliope"], found["aiortc"])


async def decoding(bench: Bench) -> list[Row]:
    """What uplinks sized to the tile leave to decode."""
    found = await asyncio.to_thread(measure_decoding)
    bench.found["decoding"] = asdict(found)
    return decoding_rows(found)


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
        rows.append(peer_row(count, theirs, ours.cores))
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
    bench.found["soak"] = [
        {"s": r.at_s - begun_s, "rss_mb": r.rss_mb, "threads": r.threads, "files": r.files}
        for r in readings
    ]
    return soak_rows(readings, begun_s, bench.plan.soak_minutes, 6 * rounds)


async def network(bench: Bench) -> list[Row]:
    """Loss and outages between network namespaces; by a relay what no packet filter does."""
    rows: list[Row] = []
    try:
        found = await load_network.measure(bench.launcher, bench.plan.loss_s)
    except load_network.Unavailable as error:
        rows.append(
            Row("loss and outages between network namespaces", f"not here: {error}", "", None)
        )
    else:
        sights = {name: Sight(**seen) for name, seen in found.items()}
        bench.found["network"] = found
        rows += loss_rows(**sights)
    seconds = bench.plan.window_s
    async with bench.server() as server:
        rows += disorder_rows(
            await load_storms.disorder(server.url, bench.new_room(), bench.studio, seconds)
        )
        rows += narrow_rows(
            await load_storms.narrow(
                server.url, server.pid, bench.new_room(), bench.studio, seconds
            )
        )
    return rows


ROWS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "call": full_call,
    "growth": growth,
    "audience": audience,
    "joins": joins,
    "delay": delay,
    "quality": quality,
    "decoding": decoding,
    "peers": peers,
    "network": network,
    "soak": soak,
}


def _first_frames_ms(report: Report) -> list[float]:
    return [1000 * bot.first_frame_s for bot in report.bots if bot.first_frame_s is not None]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
