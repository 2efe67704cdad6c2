"""Many bots in one room: builds them, lets them join one after the other, reports, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import aiohttp

from calliope.bots.bot import Bot, Call, JoinError, PictureLoop
from calliope.bots.loops import SoundPacket, record_picture, record_sound
from calliope.clock import NS_PER_S, Clock, SystemClock
from calliope.metrics import Metrics

NAMES = (
    "Ada Lovelace", "Андрей Белов", "Ελένη Ωρίων", "ليلى حسن", "נועה לוי", "अदिति शर्मा",
    "山田 さくら", "李小龙", "김민수", "สุชาดา", "Zoë Ångström", "Željko Đurić",
    "Nguyễn Thị Ánh", "عمر Omar", "Fatoumata Koné", "Ғалымжан", "தமிழ்", "Ana Peña",
)  # fmt: skip
"""Names for bots, in several scripts."""

SERVER_WAIT_S = 60
_STATUS_S = 1.0
_REJOIN_S = 2.0
_POLL_S = 0.5
_FAILURES_MAX = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. ``seconds`` None: until stopped. ``width`` and ``height`` are multiples of 4."""

    url: str = "http://127.0.0.1:8050"
    room: str = "demo"
    count: int = 8
    audience: int = 0
    seconds: float | None = None
    fps: int = 15
    width: int = 640
    height: int = 360
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class BotReport:
    """One bot at the end. ``joined_s`` is None if it never joined; rates are over its last stay."""

    name: str
    joined_s: float | None
    fps: float
    kbps: float
    sound_packets: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to. ``failures`` are sentences, one for each join that failed."""

    bots: tuple[BotReport, ...]
    failures: tuple[str, ...]
    rejoins: int

    @property
    def joined(self) -> int:
        return sum(bot.joined_s is not None for bot in self.bots)


async def run_bots(
    options: Options, *, clock: Clock | None = None, show: Callable[[str], None] | None = None
) -> Report:
    """Run bots until ``seconds`` have passed or the process is told to stop (SIGINT, SIGTERM).

    Waits for a server that is not there yet. A bot that is put out or loses its connection comes
    back. ``show`` takes one line of status a second.
    """
    crowd = _Crowd(options, clock or SystemClock())
    with _stopped_by_signals(crowd.stop):
        return await crowd.run(show or (lambda _line: None))


class _Crowd:
    def __init__(self, options: Options, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._metrics = Metrics()
        self._stopping = asyncio.Event()
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="bot-recorder")
        self._bots: dict[int, Bot] = {}
        self._reports: dict[int, BotReport] = {}
        self._failures: list[str] = []
        self._rejoins = 0
        self._waiting = True
        self._joined_ns: dict[int, int] = {}
        self._pictures: dict[tuple[int, int], PictureLoop] = {}

    def stop(self) -> None:
        self._stopping.set()

    async def run(self, show: Callable[[str], None]) -> Report:
        options = self._options
        connector = aiohttp.TCPConnector(ssl=not options.insecure)
        async with aiohttp.ClientSession(connector=connector) as http:
            tasks = [asyncio.create_task(self._show_status(show))]
            try:
                if await self._wait_for_server(http):
                    self._waiting = False
                    tasks += [
                        asyncio.create_task(self._live(seat, http))
                        for seat in range(options.count + options.audience)
                    ]
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(options.seconds):
                            await self._stopping.wait()
            finally:
                self._stopping.set()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._recorder.shutdown(wait=True, cancel_futures=True)
        return Report(
            tuple(self._reports[seat] for seat in sorted(self._reports)),
            tuple(self._failures),
            self._rejoins,
        )

    async def _wait_for_server(self, http: aiohttp.ClientSession) -> bool:
        """Wait until the server takes calls; False if it did not within a minute."""
        url = f"{self._options.url.rstrip('/')}/healthz"
        deadline_ns = self._clock.now_ns() + SERVER_WAIT_S * NS_PER_S
        why = ""
        while not self._stopping.is_set() and self._clock.now_ns() < deadline_ns:
            try:
                async with asyncio.timeout(5), http.get(url) as response:
                    if response.status == 200:
                        return True
                    why = f"it answers {response.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                why = str(error) or "it does not answer"
            await self._pause(_POLL_S)
        if not self._stopping.is_set():
            self._failures.append(f"{self._options.url} takes no calls: {why}.")
        return False

    async def _live(self, seat: int, http: aiohttp.ClientSession) -> None:
        """One bot's life: it joins, stays, and comes back when it was put out."""
        sound: tuple[SoundPacket, ...] = ()
        if self._sends(seat):
            sound = await self._off_loop(partial(record_sound, seat))
            await self._picture(seat, 1)  # nobody joins with a black picture
        previous: str | None = None
        while not self._stopping.is_set():
            bot = self._new_bot(seat, sound, previous)
            self._bots[seat] = bot
            try:
                await bot.join(http)
                self._joined_ns[seat] = self._clock.now_ns()
                await bot.ended.wait()
                self._rejoins += 1
            except JoinError as error:
                if len(self._failures) < _FAILURES_MAX:
                    self._failures.append(str(error))
            finally:
                self._note(seat, bot)
                await bot.leave(http, goodbye=self._stopping.is_set())
            previous = bot.secret or previous  # the seat is kept for a while
            await self._pause(_REJOIN_S)

    def _sends(self, seat: int) -> bool:
        return seat < self._options.count

    def _new_bot(self, seat: int, sound: tuple[SoundPacket, ...], previous: str | None) -> Bot:
        options = self._options
        call = Call(options.url, options.room, options.fps, options.width)
        if not self._sends(seat):
            name = f"Audience {seat - options.count + 1}"
            return Bot(name, call, self._clock, self._metrics, previous=previous)
        again = seat // len(NAMES)
        name = NAMES[seat % len(NAMES)] + (f" {again + 1}" if again else "")
        picture = partial(self._picture, seat)
        return Bot(name, call, self._clock, self._metrics, sound, picture, previous)

    async def _picture(self, seat: int, shrink: int) -> PictureLoop:
        """A bot's picture loop at the full size or half of it, recorded when first asked for."""
        key = seat, shrink
        if key not in self._pictures:
            options = self._options
            width, height = options.width // shrink, options.height // shrink
            self._pictures[key] = await self._off_loop(
                partial(record_picture, seat, width, height, options.fps)
            )
        return self._pictures[key]

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._recorder, work)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but no longer than until the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    # -- what it came to --------------------------------------------------------------------------

    def _note(self, seat: int, bot: Bot) -> None:
        before = self._reports.get(seat)
        joined_s = bot.joined_s
        if joined_s is None and before is not None:
            return  # failed to come back: what it did before still stands
        stayed_ns = self._clock.now_ns() - self._joined_ns.get(seat, 0)
        stayed_s = stayed_ns / NS_PER_S if joined_s is not None else float("inf")
        self._reports[seat] = BotReport(
            name=bot.name,
            joined_s=joined_s,
            fps=bot.video.frames / stayed_s,
            kbps=(bot.video.bytes + bot.audio.bytes) * 8 / 1000 / stayed_s,
            sound_packets=bot.audio.packets,
        )

    async def _show_status(self, show: Callable[[str], None]) -> None:
        before: dict[Bot, tuple[int, int]] = {}
        at_ns = self._clock.now_ns()
        while True:
            await asyncio.sleep(_STATUS_S)
            now_ns = self._clock.now_ns()
            passed_s, at_ns = (now_ns - at_ns) / NS_PER_S, now_ns
            counts = {
                bot: (bot.video.frames, bot.video.bytes + bot.audio.bytes)
                for bot in self._bots.values()
                if bot.connected
            }
            grown = []
            for bot, (frames, received) in counts.items():
                frames_before, received_before = before.get(bot, (0, 0))
                grown.append((frames - frames_before, received - received_before))
            before = counts
            show(self._status(len(counts), grown, passed_s))

    def _status(self, connected: int, grown: list[tuple[int, int]], passed_s: float) -> str:
        if self._waiting:
            return f"waiting for {self._options.url}"
        total = self._options.count + self._options.audience
        line = f"{connected} of {total} connected"
        if grown:
            rates = [frames / passed_s for frames, _ in grown]
            megabits = sum(received for _, received in grown) * 8e-6 / passed_s
            line += (
                f", receiving {sum(rates) / len(rates):.1f} pictures a second"
                f" (least {min(rates):.1f}), {megabits:.1f} Mbit/s in all"
            )
        if self._rejoins:
            line += f", {self._rejoins} came back"
        return line + (f"; {self._failures[-1]}" if self._failures else "")


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let SIGINT and SIGTERM end the run in order; elsewhere than in the main thread they stay."""
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, stop)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
