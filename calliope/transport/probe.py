"""The server measures itself: a synthetic participant, and one who watches, from another process.

They come over the loopback as anybody would, to a room that nobody else can find. What the one saw
and heard of the other fills the histograms of ``/metrics`` and is the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import calliope
from calliope.clock import NS_PER_S, Clock
from calliope.errors import TooMany, Unavailable
from calliope.metrics import Metrics

SECONDS = 6
"""How long is measured; a pip comes once a second."""
SETTLE_S = 2
"""What buffers take to find their depth is no part of it."""
START_S = 20
"""What the process may take to start, draw its pictures and join."""
GOODBYE_S = 4
"""What it may take to end when it is told to, before it is killed."""
FPS = 15
RETRY_AFTER_S = SECONDS + SETTLE_S + 4
_KINDS = ("picture", "sound", "lip_sync")


class Prober:
    """Probes the server at what ``url`` returns (https: any certificate), one probe at a time.

    Lives on the event loop; ``close`` ends the process of a probe that is under way.
    """

    def __init__(self, url: Callable[[], str], clock: Clock, metrics: Metrics) -> None:
        self._url = url
        self._clock = clock
        self._metrics = metrics
        self._process: asyncio.subprocess.Process | None = None
        self._busy = False
        self._closed = False

    async def probe(self) -> dict[str, object]:
        """Let one watch another, and tell how late and how far apart picture and sound were.

        TooMany while another probe runs, Unavailable when nothing was seen or heard.
        """
        if self._busy:
            raise TooMany("A probe is under way; wait for its end.", retry_after_s=RETRY_AFTER_S)
        self._busy = True
        begun_ns = self._clock.now_ns()
        try:
            found = _delays_s(await self._run())
        except (TimeoutError, ValueError, OSError) as error:
            self._metrics.probes.labels(result="failed").inc()
            raise Unavailable(
                f"The server could not see and hear itself: {str(error) or 'it took too long'}.",
                retry_after_s=RETRY_AFTER_S,
            ) from None
        finally:
            self._busy = False
        self._metrics.probes.labels(result="done").inc()
        histograms = (
            self._metrics.glass_to_glass_s,
            self._metrics.sound_delay_s,
            self._metrics.lip_sync_s,
        )
        for kind, histogram in zip(_KINDS, histograms, strict=True):
            for delay_s in found[kind]:
                histogram.observe(delay_s)
        answer: dict[str, object] = {f"{kind}_ms": _summary(found[kind]) for kind in _KINDS}
        answer["seconds"] = round((self._clock.now_ns() - begun_ns) / NS_PER_S, 1)
        return answer

    async def close(self) -> None:
        """End a probe that is under way: it fails."""
        self._closed = True
        await self._end()

    async def _run(self) -> str:
        """What the participants report; TimeoutError, ValueError, OSError."""
        if self._closed:
            raise ValueError("the server is stopping")
        process = self._process = await asyncio.create_subprocess_exec(
            *_command(self._url()),
            cwd=Path(calliope.__file__).parent.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            if self._closed:
                raise ValueError("the server is stopping")
            async with asyncio.timeout(START_S + SETTLE_S + SECONDS):
                said, _ = await process.communicate()
        finally:
            await self._end()
        return said.decode()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()  # they say goodbye
        try:
            async with asyncio.timeout(GOODBYE_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _command(url: str) -> list[str]:
    """The participants as a command; their room has a name that nobody guesses."""
    return [
        sys.executable, "-m", "calliope", "bots", "--url", url, "--insecure",
        "--room", f"probe-{secrets.token_hex(16)}", "--count", "1", "--watch",
        "--fps", str(FPS), "--size", "640x360", "--settle", str(SETTLE_S),
        "--seconds", str(SECONDS), "--json", "-",
    ]  # fmt: skip


def _delays_s(said: str) -> Mapping[str, Sequence[float]]:
    """The delays of a report, by kind, in seconds; ValueError when there are none."""
    report: Mapping[str, Any] = json.loads(said) if said else {}
    sight = report.get("sight") or {}
    if report.get("failures"):
        raise ValueError(str(report["failures"][0]).rstrip("."))
    found = {kind: [abs(ms) / 1000 for ms in sight.get(f"{kind}_ms", ())] for kind in _KINDS}
    for kind, missing in (("picture", "no picture came"), ("sound", "no sound came")):
        if not found[kind]:
            raise ValueError(missing)
    return found


def _summary(delays_s: Sequence[float]) -> dict[str, float | int | None]:
    """The median and the 95th percentile in milliseconds, and of how many."""
    ordered = sorted(delays_s)

    def at(share: float) -> float | None:
        if not ordered:
            return None
        return round(1000 * ordered[math.ceil(share * len(ordered)) - 1], 1)

    return {"p50": at(0.5), "p95": at(0.95), "count": len(ordered)}
