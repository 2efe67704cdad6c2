"""All rooms of a server: opened by the first join, closed behind the last session."""

from __future__ import annotations

import logging
from collections import Counter

from calliope.clock import Clock
from calliope.config import Config
from calliope.errors import Unavailable
from calliope.media import Post
from calliope.member import JoinRequest, Member, Outlet
from calliope.metrics import Metrics
from calliope.mixing import Mixers
from calliope.names import clean_room
from calliope.room import Room

_log = logging.getLogger(__name__)

RETRY_AFTER_S = 10


class Rooms:
    """The registry. Lives on the event loop; ``sweep`` is to be called a few times a second."""

    def __init__(
        self, config: Config, clock: Clock, metrics: Metrics, mixers: Mixers, post: Post
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._mixers = mixers
        self._post = post
        self._rooms: dict[str, Room] = {}
        self._closing: list[Room] = []
        self.draining = False

    @property
    def room_count(self) -> int:
        return len(self._rooms)

    def join(self, request: JoinRequest, outlet: Outlet) -> Member:
        """Seat a session. RoomFull, Unavailable, BadRequest (``bad_room``, ``bad_name``)."""
        if self.draining:
            raise Unavailable(
                "The server is stopping; try again soon.", retry_after_s=RETRY_AFTER_S
            )
        name = clean_room(request.room)
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) >= self._config.limits.rooms:
                raise Unavailable(
                    f"All {self._config.limits.rooms} rooms of this server are in use.",
                    retry_after_s=RETRY_AFTER_S,
                )
            room = self._open(name)
        try:
            return room.join(request, outlet)
        finally:
            self.close_empty()  # a first join that was refused leaves no room behind

    def _open(self, name: str) -> Room:
        room = Room(name, self._config, self._clock, self._metrics, self._mixers, self._post)
        self._rooms[name] = room
        self._metrics.rooms.set(len(self._rooms))
        return room

    def close_empty(self) -> None:
        """Close rooms whose last session has ended."""
        for name in [name for name, room in self._rooms.items() if not room.members]:
            room = self._rooms.pop(name)
            room.close()
            self._closing.append(room)
        self._closing = [room for room in self._closing if room.alive]
        self._metrics.rooms.set(len(self._rooms))

    def sweep(self) -> None:
        """Let time pass in every room."""
        self.close_empty()
        for room in self._rooms.values():
            try:
                room.sweep()
            except Exception:  # a fault in one room is no matter of the others
                _log.exception("The sweep of a room failed; the next one goes on")
        for role in ("participant", "publisher", "audience"):
            count = sum(
                member.seat.role == role
                for room in self._rooms.values()
                for member in room.members
                if member.is_connected
            )
            self._metrics.sessions.labels(role=role).set(count)
        watching = Counter(
            member.stream[1]
            for room in self._rooms.values()
            for member in room.members
            if member.stream is not None
        )
        for text in self._config.mixer.renditions:
            name = text.partition(":")[0]
            self._metrics.viewers.labels(rendition=name).set(watching[name])

    def join_mixers(self) -> None:
        """Wait for the mixer threads of closed rooms; blocks for about a tick."""
        for room in self._closing:
            room.wait_closed()
        self._closing.clear()

    def drain(self) -> None:
        """Take no more joins and tell everybody in a call."""
        self.draining = True
        notice = {"type": "error", "code": "draining", "reason": "The server is stopping."}
        for room in self._rooms.values():
            room.broadcast(notice)
