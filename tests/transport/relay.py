"""A UDP relay between one client and the server: a network of the test's own making.

The client is led to it by the answer it gets (:meth:`Relay.lead`); the server sees the relay as
its client. Each direction is a :class:`Road` that loses, repeats, delays and limits.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

_CANDIDATE = re.compile(r"a=candidate:(\S+) 1 udp (\d+) ([\d.]+) (\d+) typ host.*", re.IGNORECASE)
_OTHERS = re.compile(r"a=(candidate:.*|end-of-candidates)\r\n")


class Road:
    """One direction of a link; what it does may be changed while it is used.

    ``loss``, ``repeated`` and ``reordered`` are shares of the datagrams: one that is reordered
    comes 5 to 40 ms later, behind those that follow it. ``limit_bps`` lets so many bits a second
    of UDP payload through a bucket of ``burst_bytes``; what has to wait for longer than ``queue_s``
    is lost. While ``dark`` nothing passes. Decisions are drawn from a seeded generator.
    """

    def __init__(self, seed: int) -> None:
        self.loss = 0.0
        self.repeated = 0.0
        self.reordered = 0.0
        self.limit_bps: int | None = None
        self.burst_bytes = 3000
        self.queue_s = 0.3
        self.dark = False
        self.passed = 0
        self.passed_bytes = 0
        self.lost = 0
        self.disturbed = 0
        self._chance = random.Random(seed)
        self._full_s = 0.0  # when the bucket will be full again

    def carry(self, data: bytes, deliver: Callable[[bytes], None]) -> None:
        """Pass one datagram on: not at all, once, twice, at once or later."""
        chance = self._chance.random
        if self.dark or chance() < self.loss:
            self.lost += 1
            return
        delay_s = self._wait(len(data))
        if delay_s > self.queue_s:
            self.lost += 1
            return
        if chance() < self.reordered:
            self.disturbed += 1
            delay_s += self._chance.uniform(0.005, 0.04)
        times = 1
        if chance() < self.repeated:
            self.disturbed += 1
            times = 2
        self.passed += 1
        self.passed_bytes += len(data)
        loop = asyncio.get_running_loop()
        for _ in range(times):
            if delay_s > 0:
                loop.call_later(delay_s, deliver, data)
            else:
                deliver(data)

    def _wait(self, size: int) -> float:
        """How long a datagram waits for tokens; takes them if that is within the queue."""
        if self.limit_bps is None:
            return 0.0
        now_s = asyncio.get_running_loop().time()
        rate = self.limit_bps / 8
        full_s = max(self._full_s, now_s) + size / rate
        wait_s = full_s - now_s - self.burst_bytes / rate
        if wait_s <= self.queue_s:
            self._full_s = full_s
        return wait_s


class _End(asyncio.DatagramProtocol):
    def __init__(self, receive: Callable[[bytes, Any], None]) -> None:
        self._receive = receive
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._receive(data, addr)

    def send(self, data: bytes, address: tuple[str, int] | None) -> None:
        if self.transport is not None and not self.transport.is_closing() and address is not None:
            self.transport.sendto(data, address)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def _same(end: _End) -> _End:
    return end


class Relay:
    """``up`` leads to the server, ``down`` to the client. Lead a client once, then close it."""

    def __init__(self, seed: int = 1) -> None:
        self.up = Road(seed)
        self.down = Road(seed + 1)
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int] | None = None
        self._inside = _End(self._from_client)
        self._outside = _End(self._from_server)

    def hide(self, offer: str) -> str:
        """An offer that names no address: the server then knows the relay's only."""
        return without_candidates(offer)

    async def lead(self, answer: str) -> str:
        """The server's answer with this relay as its only candidate, in the first section.

        It listens on the same address as the server: Firefox uses no loopback one.
        """
        found = _CANDIDATE.search(answer)
        assert found is not None, answer
        host = found[3]
        self._server = host, int(found[4])
        loop = asyncio.get_running_loop()
        for end in (self._inside, self._outside):
            await loop.create_datagram_endpoint(partial(_same, end), local_addr=(host, 0))
        assert self._inside.transport is not None
        port = self._inside.transport.get_extra_info("sockname")[1]
        own = f"a=candidate:1 1 udp {found[2]} {host} {port} typ host\r\n"
        head, first, rest = answer.partition("\r\nm=")
        plain = _OTHERS.sub("", rest)
        line, _, body = plain.partition("\r\n")
        return head + first + line + "\r\n" + _behind_connection(body, own)

    def close(self) -> None:
        self._inside.close()
        self._outside.close()

    def _from_client(self, data: bytes, address: Any) -> None:
        self._client = address[:2]
        self.up.carry(data, lambda passed: self._outside.send(passed, self._server))

    def _from_server(self, data: bytes, _address: Any) -> None:
        self.down.carry(data, lambda passed: self._inside.send(passed, self._client))


def _behind_connection(section: str, line: str) -> str:
    """A section's lines with one more behind its ``c=`` line, where RFC 8866 has attributes."""
    connection, end, attributes = section.partition("\r\n")
    assert connection.startswith("c="), connection
    return connection + end + line + attributes


def without_candidates(offer: str) -> str:
    """An offer that names no address: the server then knows the relay's only."""
    return _OTHERS.sub("", offer)
