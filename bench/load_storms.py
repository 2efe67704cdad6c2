"""What a bad network does to those behind it: loss, outages, disorder, a narrow link.

``python -m bench.load_storms URL SERVER_SPACE SECONDS`` runs in the clients' network namespace and
prints what an observer saw and heard as JSON; ``load_network.py`` starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass

from bench.gauge import Reading, read_gauge
from bench.load_network import Filter
from calliope.bots import Crowd, Options, Studio, new_loop
from calliope.bots.bot import Way
from calliope.bots.observer import Sight
from calliope.clock import SystemClock
from tests.transport.relay import Relay

LOSS = 0.05
DISORDER = 0.1
LIMIT_BPS = 200_000
OUTAGES = 8
OUTAGE_S = 0.5
OUTAGE_SPACING_S = 2.0
GOOD_VIEWERS = 24
LOOK_S = 8.0
SETTLE_S = 4.0
JOIN_S = 40.0
MOVE_S = 30.0
POLL_S = 0.1


@contextlib.asynccontextmanager
async def _joined(
    options: Options, studio: Studio, ways: Mapping[int, Way] | None = None
) -> AsyncIterator[Crowd]:
    crowd = Crowd(options, studio, SystemClock(), ways)
    async with crowd.running():
        await crowd.wait_joined(JOIN_S)
        await asyncio.sleep(SETTLE_S)
        yield crowd


async def _look(crowd: Crowd, seconds: float) -> Sight:
    """What the observer sees and hears over so long."""
    crowd.mark()
    await asyncio.sleep(seconds)
    sight = crowd.report().sight
    assert sight is not None
    return sight


async def loss_and_outages(url: str, link: Filter, seconds: float) -> dict[str, Sight]:
    """Three participants and an observer behind a link that loses 5% both ways for so long.

    ``before``, ``during`` and ``after`` that, then ``dark``: short outages on a link that is whole.
    """
    options = Options(url=url, room="storms", count=3, fps=30, watched=True)
    with Studio() as studio:
        async with _joined(options, studio) as crowd:
            found = {"before": await _look(crowd, LOOK_S)}
            await link.lose(LOSS)
            found["during"] = await _look(crowd, seconds)
            await link.lose(0)
            await asyncio.sleep(SETTLE_S)
            found["after"] = await _look(crowd, LOOK_S)
            dark = asyncio.create_task(_look(crowd, OUTAGES * OUTAGE_SPACING_S + 1))
            for _ in range(OUTAGES):
                await asyncio.sleep(OUTAGE_SPACING_S - OUTAGE_S)
                await link.darken()
                await asyncio.sleep(OUTAGE_S)
                await link.lose(0)
            found["dark"] = await dark
    return found


async def disorder(url: str, room: str, studio: Studio, seconds: float) -> Sight:
    """An observer to whom a tenth comes out of order, and a tenth twice."""
    relay = Relay()
    options = Options(url=url, room=room, count=3, fps=30, watched=True)
    try:
        async with _joined(options, studio, {options.count: relay}) as crowd:
            for road in (relay.up, relay.down):
                road.reordered = road.repeated = DISORDER
            return await _look(crowd, seconds)
    finally:
        relay.close()


@dataclass(frozen=True, slots=True)
class Narrow:
    """How one viewer of many fared on a narrow link.

    ``down_s`` until it had a smaller picture, ``back_s`` until it had the best again after the
    limit was lifted; None: never. ``others_moved`` counts the others that had a smaller one.
    """

    down_s: float | None
    back_s: float | None
    others_moved: int
    fps: float


async def narrow(url: str, pid: int, room: str, studio: Studio, seconds: float) -> Narrow:
    """One viewer at 200 kbit/s among 24 good ones, for so long."""
    relay = Relay()
    options = Options(url=url, room=room, count=2, audience=GOOD_VIEWERS + 1, joins_per_s=20.0)
    seat = options.total - 1
    try:
        async with _joined(options, studio, {seat: relay}) as crowd:
            begun_s = time.monotonic()
            relay.down.limit_bps = LIMIT_BPS
            down_s = await _until_moved(pid, url, begun_s, options.total, smaller=True)
            crowd.mark()
            moved = 0
            end_s = time.monotonic() + seconds
            while time.monotonic() < end_s:
                await asyncio.sleep(POLL_S)
                reading = await asyncio.to_thread(read_gauge, pid, url)
                moved = max(moved, options.total - best_pictures(reading) - 1)
            fps = crowd.report().bots[seat].fps
            # a probe may have just gone too far: what is timed begins with a smaller picture
            if await _until_moved(pid, url, time.monotonic(), options.total, smaller=True) is None:
                return Narrow(down_s, None, moved, fps)
            relay.down.limit_bps = None
            begun_s = time.monotonic()
            back_s = await _until_moved(pid, url, begun_s, options.total, smaller=False)
            return Narrow(down_s, back_s, moved, fps)
    finally:
        relay.close()


async def _until_moved(
    pid: int, url: str, begun_s: float, total: int, *, smaller: bool
) -> float | None:
    """Seconds until one of ``total`` viewers has a smaller picture, or all have the best.

    None: not within MOVE_S. Who dropped out has neither, and does not count as having moved.
    """
    while time.monotonic() < begun_s + MOVE_S:
        reading = await asyncio.to_thread(read_gauge, pid, url)
        if has_moved(reading, total, smaller=smaller):
            return time.monotonic() - begun_s
        await asyncio.sleep(POLL_S)
    return None


def has_moved(reading: Reading, total: int, *, smaller: bool) -> bool:
    """Whether some of all ``total`` viewers have a smaller picture, or all of them the best."""
    best = best_pictures(reading)
    return best < total == _viewers(reading) if smaller else best == total


def best_pictures(reading: Reading) -> int:
    """How many viewers the server sends the best rendition (720p)."""
    return round(reading.metrics.get('calliope_viewers{rendition="720p"}', 0.0))


def _viewers(reading: Reading) -> int:
    found = [v for name, v in reading.metrics.items() if name.startswith("calliope_viewers{")]
    return round(sum(found))


def main() -> int:
    url, space, seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        found = runner.run(loss_and_outages(url, Filter(space), float(seconds)))
    print(json.dumps({name: asdict(sight) for name, sight in found.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
