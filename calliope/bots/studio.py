"""Where bots' loops are recorded: one thread, each loop once, kept for all who ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import TypeVar

from calliope.bots.bot import PictureLoop
from calliope.bots.loops import SoundPacket, record_picture, record_pips, record_sound

T = TypeVar("T")
_FACES = 25
"""So many bots look and sound different; then they begin again, or memory would grow with them."""
_SIDE = 4
"""Widths and heights are multiples of this."""


@dataclass(frozen=True, slots=True)
class Film:
    """What cameras take: full size in pixels, pictures a second, numbers in them or not."""

    width: int
    height: int
    fps: int
    stamped: bool = False


class Studio:
    """Records on a thread of its own, from its making until the end of its block."""

    def __init__(self) -> None:
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="bot-recorder")
        self._pictures: dict[tuple[Film, int, Fraction], asyncio.Future[PictureLoop]] = {}
        self._sounds: dict[int | None, asyncio.Future[tuple[SoundPacket, ...]]] = {}

    def __enter__(self) -> Studio:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread; what it records now is waited for, what waits is not recorded."""
        self._recorder.shutdown(wait=True, cancel_futures=True)

    async def picture(self, film: Film, seat: int, size: Fraction) -> PictureLoop:
        """The loop of a seat's camera at this share of the full size."""
        key = film, seat % _FACES, size
        if key not in self._pictures:
            width, height = (_side(side * size) for side in (film.width, film.height))
            self._pictures[key] = self._record(
                partial(record_picture, key[1], width, height, film.fps, stamped=film.stamped)
            )
        return await asyncio.shield(self._pictures[key])

    async def sound(self, seat: int) -> tuple[SoundPacket, ...]:
        """The loop of a seat's microphone."""
        face = seat % _FACES
        if face not in self._sounds:
            self._sounds[face] = self._record(partial(record_sound, face))
        return await asyncio.shield(self._sounds[face])

    async def pips(self) -> tuple[SoundPacket, ...]:
        """The loop that tells the time by ear."""
        if None not in self._sounds:
            self._sounds[None] = self._record(record_pips)
        return await asyncio.shield(self._sounds[None])

    def _record(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._recorder, work)


def _side(exact: Fraction) -> int:
    return max(_SIDE, round(exact / _SIDE) * _SIDE)
