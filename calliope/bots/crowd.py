"""Many bots in one room: builds them, lets them join, looks at them, reports, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import aiohttp

from calliope.bots.bot import SIZES, Bot, Call, JoinError, Way
from calliope.bots.loops import SoundPacket
from calliope.bots.observer import Observer, Sight
from calliope.bots.studio import Film, Studio
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
_BEAT_S = 0.05
_BEATS_KEPT = 20_000
BUSY_SHARE = 0.9
"""A tool that uses so much of a core is the limit of what it measures."""
BUSY_LAG_S = 0.05
"""... or whose loop is so late, one time in a hundred."""


@dataclass(frozen=True, slots=True)
class Options:
    """What to run. ``seconds`` None: until stopped. ``width`` and ``height`` are multiples of 4.

    With ``settle_s`` the counting begins anew so long after all have joined, and ``seconds`` then.
    ``joins_per_s`` None: all at once. ``sound`` False: audience takes the picture only. ``watched``
    stamps the pictures, lets the first bot pip, and sends one more audience member, who decodes;
    ``observer_waits`` until told.
    """

    url: str = "http://127.0.0.1:8050"
    room: str = "demo"
    count: int = 8
    audience: int = 0
    seconds: float | None = None
    settle_s: float | None = None
    fps: int = 15
    width: int = 640
    height: int = 360
    insecure: bool = False
    joins_per_s: float | None = None
    watched: bool = False
    observer_waits: bool = False
    sound: bool = True

    @property
    def total(self) -> int:
        return self.count + self.audience + self.watched


@dataclass(frozen=True, slots=True)
class BotReport:
    """One bot. ``joined_s`` is None if it never joined; all else is since the last mark, or since
    it joined. ``freezes`` are gaps of over 200 ms between two pictures."""

    name: str
    joined_s: float | None
    first_frame_s: float | None
    fps: float
    kbps: float
    sent_fps: float
    sound_packets: int
    lost_packets: int
    freezes: int
    frozen_s: float
    longest_gap_s: float


@dataclass(frozen=True, slots=True)
class ToolReport:
    """How hard the tool itself worked: share of a core, how late its loop was (p99, in s)."""

    core_share: float
    lag_s: float

    @property
    def is_limit(self) -> bool:
        """Whether what was measured says more about the tool than about the server."""
        return self.core_share >= BUSY_SHARE or self.lag_s >= BUSY_LAG_S


@dataclass(frozen=True, slots=True)
class Report:
    """What a run came to. ``failures`` are sentences, one for each join that failed; ``packets``
    all that the bots got since the last mark."""

    bots: tuple[BotReport, ...]
    failures: tuple[str, ...]
    rejoins: int
    packets: int
    joins_per_s: float
    tool: ToolReport
    sight: Sight | None

    @property
    def joined(self) -> int:
        return sum(bot.joined_s is not None for bot in self.bots)

    def lines(self) -> list[str]:
        """The report for people."""
        joined = [bot for bot in self.bots if bot.joined_s is not None]
        if not joined:
            return ["Nobody joined."]
        rates = [bot.fps for bot in joined]
        lines = [
            f"{len(joined)} joined, {self.joins_per_s:.1f} a second;"
            f" {sum(rates) / len(rates):.2f} pictures a second (least {min(rates):.2f});"
            f" {sum(bot.freezes for bot in joined)} freezes, longest gap"
            f" {1000 * max(bot.longest_gap_s for bot in joined):.0f} ms;"
            f" {sum(bot.lost_packets for bot in joined)} packets lost"
        ]
        first = [bot.first_frame_s for bot in joined if bot.first_frame_s is not None]
        if first:
            lines.append(f"from POST to the first picture: {_spread([1000 * s for s in first])}")
        if self.sight is not None:
            seen = self.sight
            lines.append(
                f"the observer saw {seen.frames / max(seen.seconds, 1e-9):.2f} pictures a second,"
                f" frozen {seen.frozen_s:.2f} of {seen.seconds:.0f} s;"
                f" read {seen.read} timecodes, not {seen.unread}"
            )
            lines.append(f"picture, sender to composed: {_spread(seen.picture_ms)}")
            lines.append(f"sound, likewise: {_spread(seen.sound_ms)}")
            apart_ms = [abs(distance) for distance in seen.lip_sync_ms]
            lines.append(f"apart at playout: {_spread(apart_ms)}")
        tool = self.tool
        lines.append(
            f"this tool used {tool.core_share:.2f} of a core, its loop was"
            f" {1000 * tool.lag_s:.0f} ms late (p99)"
            + (": IT IS THE LIMIT, the server may do better" if tool.is_limit else "")
        )
        return lines


def quantile(values: list[float] | tuple[float, ...], share: float) -> float:
    """The value below which this share of them lies; nan of none."""
    if not values:
        return math.nan
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]


def _spread(values_ms: list[float] | tuple[float, ...]) -> str:
    if not values_ms:
        return "nothing measured"
    p50, p95 = quantile(values_ms, 0.5), quantile(values_ms, 0.95)
    return f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, most {max(values_ms):.0f} ms ({len(values_ms)})"


async def run_bots(
    options: Options, *, clock: Clock | None = None, show: Callable[[str], None] | None = None
) -> Report:
    """Run bots until ``seconds`` have passed or the process is told to stop (SIGINT, SIGTERM).

    Waits for a server that is not there yet. A bot that is put out or loses its connection comes
    back. ``show`` takes one line of status a second.
    """
    stopping = asyncio.Event()
    with Studio() as studio, _stopped_by_signals(stopping.set):
        crowd = Crowd(options, studio, clock or SystemClock())
        async with crowd.running(show or (lambda _line: None)):
            if options.settle_s is not None:
                settled = _settle(crowd, options.settle_s)
                await _first_of(stopping.wait(), crowd.refused.wait(), settled, timeout_s=None)
            await _first_of(stopping.wait(), crowd.refused.wait(), timeout_s=options.seconds)
        return crowd.final_report


async def _settle(crowd: Crowd, seconds: float) -> None:
    """Count anew so long after all have joined."""
    await crowd.joined()
    await asyncio.sleep(seconds)
    crowd.mark()


class Crowd:
    """All bots of one run. :meth:`running` is their life; report and mark within it.

    ``ways`` are those of bots that do not go straight to the server, by seat: participants come
    first, then the audience, then the one who decodes.
    """

    def __init__(
        self, options: Options, studio: Studio, clock: Clock, ways: Mapping[int, Way] | None = None
    ) -> None:
        self.refused = asyncio.Event()
        """Set when there was no server within a minute."""
        self.observing = asyncio.Event()
        """Set it to let in an observer who waits."""
        if not options.observer_waits:
            self.observing.set()
        self.options = options
        self._studio = studio
        self._clock = clock
        self._ways = ways or {}
        self._metrics = Metrics()
        self._stopping = asyncio.Event()
        self._film = Film(options.width, options.height, options.fps, options.watched)
        self._bots: dict[int, Bot] = {}
        self._reports: dict[int, BotReport] = {}
        self._failures: list[str] = []
        self._rejoins = 0
        self._waiting = True
        self._joined_ns: dict[int, int] = {}
        self._begun_ns = 0
        self._senders: dict[str, Bot] = {}
        self._observer: Observer | None = None
        self._strain = _Strain(clock)
        self.final_report: Report

    @contextlib.asynccontextmanager
    async def running(
        self, show: Callable[[str], None] = lambda _line: None
    ) -> AsyncIterator[None]:
        """Let them join, and leave at the end; then ``final_report`` is there."""
        connector = aiohttp.TCPConnector(ssl=not self.options.insecure, limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            tasks = [
                asyncio.create_task(work)
                for work in (self._show_status(show), self._strain.watch(), self._come(http))
            ]
            try:
                yield
            finally:
                self._stopping.set()
                self.final_report = self.report()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connected(self) -> int:
        return sum(bot.connected for bot in self._bots.values())

    @property
    def _expected(self) -> int:
        waits = self.options.watched and not self.observing.is_set()
        return self.options.total - waits

    async def joined(self) -> None:
        """Wait until all are in."""
        while self.connected < self._expected:  # noqa: ASYNC110 - many bots, no event
            await asyncio.sleep(0.05)

    async def wait_joined(self, timeout_s: float) -> None:
        """Wait until all are in; TimeoutError with what went wrong."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.joined()
        except TimeoutError:
            why = f": {self._failures[-1]}" if self._failures else ""
            raise TimeoutError(f"{self.connected} of {self._expected} joined{why}") from None

    def mark(self) -> None:
        """Count anew from here on."""
        for bot in self._bots.values():
            bot.mark()
        if self._observer is not None:
            self._observer.mark()
        self._strain.mark()

    def report(self) -> Report:
        """What it came to since the last mark."""
        for seat, bot in self._bots.items():
            self._note(seat, bot)
        seats = sorted(seat for seat in self._reports if seat < self._watching_seat)
        stayed = sorted(self._joined_ns.values())
        begun_s = (stayed[-1] - self._begun_ns) / NS_PER_S if stayed else math.inf
        bots = self._bots.values()
        return Report(
            bots=tuple(self._reports[seat] for seat in seats),
            failures=tuple(self._failures),
            rejoins=self._rejoins,
            packets=sum(bot.video.counts().packets + bot.audio.counts().packets for bot in bots),
            joins_per_s=len(stayed) / begun_s,
            tool=self._strain.report(),
            sight=None if self._observer is None else self._observer.sight(),
        )

    # -- their life -------------------------------------------------------------------------------

    @property
    def _watching_seat(self) -> int:
        """The seat of the one who decodes: the last."""
        return self.options.count + self.options.audience

    async def _come(self, http: aiohttp.ClientSession) -> None:
        options = self.options
        if not await self._wait_for_server(http):
            self.refused.set()
            return
        for seat in range(options.count):  # nobody joins with a black picture
            await self._sound(seat)
            await self._studio.picture(self._film, seat, self._first_size)
        self._waiting = False
        self._begun_ns = self._clock.now_ns()
        async with asyncio.TaskGroup() as group:
            for seat in range(options.total):
                group.create_task(self._live(seat, http))

    async def _wait_for_server(self, http: aiohttp.ClientSession) -> bool:
        """Wait until the server takes calls; False if it did not within a minute."""
        url = f"{self.options.url.rstrip('/')}/healthz"
        deadline_ns = self._clock.now_ns() + SERVER_WAIT_S * NS_PER_S
        why = "there was no time to ask it"
        while self._clock.now_ns() < deadline_ns:
            try:
                async with asyncio.timeout(5), http.get(url) as response:
                    if response.status == 200:
                        return True
                    why = f"it answers {response.status}"
            except (aiohttp.ClientError, TimeoutError) as error:
                why = str(error) or "it does not answer"
            await asyncio.sleep(_POLL_S)
        self._failures.append(f"{self.options.url} takes no calls: {why}.")
        return False

    async def _live(self, seat: int, http: aiohttp.ClientSession) -> None:
        """One bot's life: it joins, stays, and comes back when it was put out."""
        if self.options.joins_per_s is not None:
            await asyncio.sleep(seat / self.options.joins_per_s)
        if seat == self._watching_seat:
            await self.observing.wait()
        sound = await self._sound(seat) if self._sends(seat) else ()
        previous: str | None = None
        while True:
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
                if not self._stopping.is_set():
                    self._note(seat, bot)
                await bot.leave(http, goodbye=self._stopping.is_set())
            previous = bot.secret or previous  # the seat is kept for a while
            await asyncio.sleep(_REJOIN_S)

    def _sends(self, seat: int) -> bool:
        return seat < self.options.count

    async def _sound(self, seat: int) -> tuple[SoundPacket, ...]:
        if self.options.watched and seat == 0:
            return await self._studio.pips()
        return await self._studio.sound(seat)

    @property
    def _first_size(self) -> Fraction:
        """About what the server will ask for once all are there."""
        columns = max(1, math.ceil(math.sqrt(self.options.count)))
        return min(SIZES, key=lambda size: abs(size - Fraction(2, columns)))

    def _new_bot(self, seat: int, sound: tuple[SoundPacket, ...], previous: str | None) -> Bot:
        options = self.options
        call = Call(
            options.url, options.room, options.fps, options.width, self._first_size, options.sound
        )
        way = self._ways.get(seat)
        if seat == self._watching_seat:
            observer = Observer(self._clock, self._metrics, (options.width, options.height))
            observer.meet(self._senders)
            self._observer = observer
            return Bot(
                "Observer", call, self._clock, self._metrics, previous=previous,
                observer=observer, on_welcome=self._greet, way=way,
            )  # fmt: skip
        if not self._sends(seat):
            name = f"Audience {seat - options.count + 1}"
            return Bot(name, call, self._clock, self._metrics, previous=previous, way=way)
        again = seat // len(NAMES)
        name = NAMES[seat % len(NAMES)] + (f" {again + 1}" if again else "")
        picture = partial(self._studio.picture, self._film, seat)
        return Bot(
            name, call, self._clock, self._metrics, sound, picture, previous,
            on_welcome=self._greet, way=way,
        )  # fmt: skip

    def _greet(self, bot: Bot, id: str) -> None:
        self._senders[id] = bot

    # -- what it came to --------------------------------------------------------------------------

    def _note(self, seat: int, bot: Bot) -> None:
        before = self._reports.get(seat)
        joined_s = bot.joined_s
        if joined_s is None and before is not None:
            return  # failed to come back: what it did before still stands
        video, audio = bot.video.counts(), bot.audio.counts()
        seconds = math.inf
        if joined_s is not None:
            stayed_ns = self._clock.now_ns() - self._joined_ns.get(seat, self._clock.now_ns())
            seconds = max(min(video.seconds, stayed_ns / NS_PER_S), 1e-9)
        self._reports[seat] = BotReport(
            name=bot.name,
            joined_s=joined_s,
            first_frame_s=bot.first_frame_s,
            fps=video.frames / seconds,
            kbps=(video.bytes + audio.bytes) * 8 / 1000 / seconds,
            sent_fps=bot.sent_fps(),
            sound_packets=audio.packets,
            lost_packets=video.lost + audio.lost,
            freezes=video.freezes,
            frozen_s=video.frozen_s,
            longest_gap_s=video.longest_gap_s,
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
                for seat, bot in self._bots.items()
                if bot.connected and seat != self._watching_seat
            }
            grown = []
            for bot, (frames, received) in counts.items():
                frames_before, received_before = before.get(bot, (0, 0))
                grown.append((frames - frames_before, received - received_before))
            before = counts
            show(self._status(grown, passed_s))

    def _status(self, grown: list[tuple[int, int]], passed_s: float) -> str:
        if self._waiting:
            return f"waiting for {self.options.url}"
        line = f"{self.connected} of {self.options.total} connected"
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


class _Strain:
    """How hard this process works: its CPU time, and how late its loop wakes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lags_s: deque[float] = deque(maxlen=_BEATS_KEPT)
        self.mark()

    def mark(self) -> None:
        self._lags_s.clear()
        self._since_ns = self._clock.now_ns()
        self._cpu_s = time.process_time()

    async def watch(self) -> None:
        while True:
            begun_ns = self._clock.now_ns()
            await asyncio.sleep(_BEAT_S)
            self._lags_s.append((self._clock.now_ns() - begun_ns) / NS_PER_S - _BEAT_S)

    def report(self) -> ToolReport:
        passed_s = (self._clock.now_ns() - self._since_ns) / NS_PER_S
        share = (time.process_time() - self._cpu_s) / max(passed_s, 1e-9)
        lag_s = max(0.0, quantile(list(self._lags_s), 0.99)) if self._lags_s else 0.0
        return ToolReport(share, lag_s)


async def _first_of(*events: Coroutine[object, object, object], timeout_s: float | None) -> None:
    """Return when one of these coroutines has, or the time is up."""
    tasks = [asyncio.create_task(event) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
