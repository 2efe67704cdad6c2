"""One UDP port for the media of all sessions, for firewalls that let no more through.

A check (STUN) names the session by the user name that the answer gave out; an address from which a
session's own check came belongs to that session, and with it all that comes from there. Answers to
checks are known by their transaction.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from aioice import stun

logger = logging.getLogger(__name__)

SEND_BYTES = 1 << 20
RECEIVE_BYTES = 1 << 18
"""A pause of the event loop's worth, about a second of one camera. What a server that cannot keep
up leaves here becomes delay, for messages too (a megabyte was seen to hold them back by ten
seconds); what does not fit is lost, and asked for again or not."""
SHARED_BYTES = 1 << 22
"""Each way: a quarter of a second of 25 cameras and more, or a picture that goes to all at once.
The system may allow less (``short_of``)."""
DATAGRAM_BYTES = 2048
DRAIN_MAX = 32
"""Datagrams read in one turn of the loop: a flood must leave it to the others."""
REMOTES_MAX = 64
"""Addresses of one session."""

_LIMITS = {"net.core.wmem_max": socket.SO_SNDBUF, "net.core.rmem_max": socket.SO_RCVBUF}
_CLASS_BITS = 0x0110  # RFC 8489 section 5
_REQUEST = 0x0000


class Taker(Protocol):
    """A session's end of the port."""

    def take(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One datagram that is for this session."""

    def holds(self, addr: tuple[str, int]) -> bool:
        """Whether its peer was heard just now, and not by another address."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...


class UdpPort(asyncio.DatagramProtocol):
    """A port on one address, from :meth:`open` until :meth:`close`; sessions come and go.

    ``drop`` is told why a datagram went to nobody.
    """

    def __init__(self, sock: socket.socket, drop: Callable[[str], None]) -> None:
        self.sock = sock
        self.is_lost = False
        """It ended by itself: nobody is heard here any more."""
        self._drop = drop
        self._closed = False
        self._transport: asyncio.BaseTransport | None = None
        self._by_name: dict[str, Taker] = {}
        self._by_address: dict[tuple[str, int], Taker] = {}
        self._by_transaction: dict[bytes, Taker] = {}

    @classmethod
    async def open(cls, address: str, port: int, drop: Callable[[str], None]) -> UdpPort:
        """Listen there; OSError where that cannot be."""
        sock = _unbound(address, SHARED_BYTES, SHARED_BYTES)
        try:
            sock.bind((address, port))
        except OSError:
            sock.close()
            raise
        made = cls(sock, drop)
        loop = asyncio.get_running_loop()
        made._transport, _ = await loop.create_datagram_endpoint(lambda: made, sock=sock)
        return made

    def close(self) -> None:
        """Listen no more; sessions are closed before."""
        self._closed = True
        if self._transport is not None:
            cast(asyncio.DatagramTransport, self._transport).close()

    @property
    def short_of(self) -> list[str]:
        """Which limits of the system keep its buffers smaller than ``SHARED_BYTES``."""
        # Linux doubles what it is asked for, for what it needs itself: socket(7).
        counted = 2 if sys.platform == "linux" else 1
        return [
            limit
            for limit, which in _LIMITS.items()
            if self.sock.getsockopt(socket.SOL_SOCKET, which) // counted < SHARED_BYTES
        ]

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left of any session."""
        return not (self._by_name or self._by_address or self._by_transaction)

    def share(self, name: str, taker: Taker) -> Share:
        """Let a session in, whose checks carry this user name."""
        self._by_name[name] = taker
        made = Share(self, name, taker)
        taker.connection_made(made)
        return made

    # what shares ask for

    def learn(self, addr: tuple[str, int], taker: Taker) -> bool:
        """Give a session this address, unless another one's peer is alive there.

        A sender can put any address on its checks. Who is refused and is really there asks again.
        """
        owner = self._by_address.get(addr)
        if owner is not None and owner is not taker and owner.holds(addr):
            self._drop("taken")
            return False
        self._by_address[addr] = taker
        return True

    def expect(self, transaction_id: bytes, taker: Taker) -> None:
        self._by_transaction[transaction_id] = taker

    def answered(self, transaction_id: bytes) -> None:
        self._by_transaction.pop(transaction_id, None)

    def leave(self, name: str, taker: Taker, addresses: set[tuple[str, int]]) -> None:
        self._by_name.pop(name, None)
        for addr in addresses:
            if self._by_address.get(addr) is taker:  # else it is another session's by now
                del self._by_address[addr]

    # asyncio.DatagramProtocol

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        drain(self.sock, self._sort, cast(bytes, data), addr)

    def error_received(self, exc: Exception) -> None:
        """One datagram could not be read; the next may."""
        self._drop("error")
        logger.debug("The shared UDP port: %s", exc)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self.is_lost = True
            logger.error("The shared UDP port is lost, a restart opens it again: %s", exc)

    def _sort(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data and data[0] < 4:
            taker = self._taker_of_check(data)
        else:
            taker = self._by_address.get((addr[0], addr[1]))
        if taker is None:
            self._drop("stranger")
        else:
            taker.take(data, addr)

    def _taker_of_check(self, data: bytes) -> Taker | None:
        if len(data) < 20:
            return None
        if int.from_bytes(data[:2], "big") & _CLASS_BITS != _REQUEST:
            return self._by_transaction.get(data[8:20])
        try:
            name = stun.parse_message(data).attributes.get("USERNAME", "")
        except Exception:  # attributes of odd lengths raise whatever unpacking raises
            return None
        return self._by_name.get(str(name).partition(":")[0])


class Share(asyncio.DatagramTransport):
    """One session's part of a :class:`UdpPort`, in the shape of a socket of its own."""

    def __init__(self, port: UdpPort, name: str, taker: Taker) -> None:
        super().__init__()
        self._port = port
        self._name = name
        self._taker = taker
        self._addresses: set[tuple[str, int]] = set()
        self._closed = False

    def learn(self, addr: tuple[str, int]) -> None:
        """This session's own check came from there: what else comes from there is its."""
        if self._closed or len(self._addresses) >= REMOTES_MAX:
            return
        if self._port.learn(addr, self._taker):
            self._addresses.add(addr)

    def expect(self, transaction_id: bytes) -> None:
        """An answer with this is for this session."""
        self._port.expect(transaction_id, self._taker)

    def answered(self, transaction_id: bytes) -> None:
        """No answer is waited for any more."""
        self._port.answered(transaction_id)

    # asyncio.DatagramTransport

    def sendto(self, data: Any, addr: Any = None) -> None:
        if not self._closed:
            try:
                self._port.sock.sendto(data, addr)
            except OSError:  # full, or no way there: UDP may lose it
                return

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._port.leave(self._name, self._taker, self._addresses)
            asyncio.get_running_loop().call_soon(self._taker.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closed

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"socket": self._port.sock, "sockname": self._port.sock.getsockname()}
        return known.get(name, default)


def drain(
    sock: socket.socket,
    sort: Callable[[bytes, tuple[Any, ...]], None],
    data: bytes,
    addr: tuple[Any, ...],
) -> None:
    """Sort this datagram and what else has come meanwhile.

    asyncio reads one a turn of the loop, which costs several times what the packet does; a frame's
    packets come together.
    """
    sort(data, addr)
    if not _is_rtp(data):
        return  # nothing comes on its heels
    for _ in range(DRAIN_MAX):
        try:
            more, source = sock.recvfrom(DATAGRAM_BYTES)
        except OSError:  # there is no more, or the socket was closed by what came
            return
        sort(more, source)


def _is_rtp(data: bytes) -> bool:
    """RFC 5761 section 4: the payload types of RTCP are not used for RTP."""
    return len(data) > 1 and 128 <= data[0] < 192 and not 192 <= data[1] < 224


def bind(address: str, ports: Sequence[int] | None) -> socket.socket | None:
    """A non-blocking UDP socket on one address, on any or one of ``ports``; None: all taken."""
    sock = _unbound(address, RECEIVE_BYTES, SEND_BYTES)
    candidates: Sequence[int] = [0]
    if ports is not None:
        start = random.randrange(len(ports))
        candidates = [*ports[start:], *ports[:start]]
    for port in candidates:
        try:
            sock.bind((address, port))
        except OSError:
            continue
        return sock
    sock.close()
    return None


def _unbound(address: str, receive_bytes: int, send_bytes: int) -> socket.socket:
    """A non-blocking UDP socket for an address of this kind."""
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    return sock
