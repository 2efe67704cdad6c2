"""What goes to many viewers alike, gathered until it goes out in one native call.

A room hands the same frame to one session after the other. What differs between them is a few
numbers: where they are, their keys, the sequence number and the timestamp. Those are noted here,
and in the same turn of the event loop, when the room has handed out what it had, one call encrypts
and sends for all of them: the way from Python into the kernel is paid once, not once a viewer.
"""

from __future__ import annotations

import asyncio

from calliope.clock import Clock
from calliope.metrics import Metrics
from calliope.transport.burst import HEADER_BYTES, Burst, Template

ENTRIES_MAX = 64
"""Viewers in one call: it takes a millisecond or two, in which the event loop waits."""


class _Group:
    """The payloads of one frame, and whom they go to."""

    __slots__ = ("entries", "kept", "payloads")

    def __init__(self, payloads: tuple[bytes, ...]) -> None:
        self.payloads = payloads
        self.entries: list[int] = []
        self.kept: list[tuple[Burst, Template]] = []  # the native call reads their memory


class Volley:
    """Frames on their way out. Used on the event loop only; nothing waits beyond its next turn."""

    def __init__(self, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._unsent = metrics.drops.labels(queue="network", why="socket")
        self._groups: dict[int, _Group] = {}
        self._scheduled = False

    def add(
        self,
        payloads: tuple[bytes, ...],
        burst: Burst,
        template: Template,
        sequence: int,
        timestamp: int,
    ) -> None:
        """Send a packet for each payload, the last one marked, this way and under these numbers.

        ``burst`` is aimed already.
        """
        group = self._groups.get(id(payloads))
        if group is None:
            group = self._groups[id(payloads)] = _Group(payloads)
            if not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._send)
        group.entries += (burst.at, template.at, sequence, timestamp)
        group.kept.append((burst, template))
        if len(group.kept) >= ENTRIES_MAX:
            del self._groups[id(payloads)]
            self._send_group(group)

    def _send(self) -> None:
        self._scheduled = False
        groups, self._groups = self._groups, {}
        for group in groups.values():
            self._send_group(group)

    def _send_group(self, group: _Group) -> None:
        sent = group.kept[0][0].send_to_all(
            group.entries,
            HEADER_BYTES,
            group.payloads,
            ends_frame=True,
            now_ns=self._clock.now_ns(),
        )
        unsent = len(group.kept) * len(group.payloads) - sent
        if unsent:  # a socket's buffer is full, or its network just went
            self._unsent.inc(unsent)
