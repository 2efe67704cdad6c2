"""Everything that leans on private names of aioice 0.13: the ICE agent of a session.

Symptoms of the stock one, its causes, and when this may go:

* A dead tab stays for half a minute: consent intervals are module constants.
* One socket for each address on any port: no option for a port range or the addresses.
* A flood fills the memory: its receive queue has no bound.
* An empty datagram from anybody ends the session: aiortc looks at its first byte.
* Every media packet costs a STUN parse, a queue and a task: there is no other way to get at it.

It goes when aioice has options for the first three, and a hook for what is not STUN. ICE itself,
the checks, roles and nomination, is all aioice's. :func:`check` is part of ``aiortc_seams.check``.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any, Protocol, cast

import aioice.ice
from aioice import stun
from aioice.candidate import Candidate, candidate_foundation, candidate_priority

from calliope.errors import SeamError, Unavailable
from calliope.transport.udp_port import Share, UdpPort, bind, drain

_REMOTES_MAX = 64  # addresses of one peer: those it told of, and those its checks came from
_QUEUE_MAX = 256  # DTLS and SCTP datagrams of one session that wait to be read


class Drop(Protocol):
    """Counts one dropped datagram by reason."""

    def __call__(self, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class IceSettings:
    """Where sessions listen and when they notice that nobody is there any more."""

    addresses: tuple[str, ...]
    ports: range | None
    loss_s: float
    drop: Drop
    shared: tuple[UdpPort, ...] = ()
    """The ports that all sessions have in common; ``addresses`` and ``ports`` count for nothing."""


class IceProtocol(aioice.ice.StunProtocol):
    """One UDP socket, or a part of one: sorts datagrams by their first byte (RFC 7983)."""

    sock: socket.socket
    share: Share | None = None

    def datagram_received(self, data: bytes | str, addr: tuple[Any, ...]) -> None:
        drain(self.sock, self.take, cast(bytes, data), addr)

    def send_stun(self, message: stun.Message, addr: tuple[str, int]) -> None:
        """Send an answer, to what was found to be the peer's own check, or a check of ours."""
        if self.share is not None and message.message_class == stun.Class.RESPONSE:
            self.share.learn(addr)
        super().send_stun(message, addr)

    def holds(self, addr: tuple[str, int]) -> bool:
        """Whether the peer was heard just now, and not by another address."""
        return cast(IceConnection, self.receiver).holds(addr)

    async def request(
        self, request: stun.Message, *where: Any, **how: Any
    ) -> tuple[stun.Message, tuple[str, int]]:
        """A check of ours and its answer."""
        if self.share is None:
            return await super().request(request, *where, **how)
        self.share.expect(request.transaction_id)
        try:
            return await super().request(request, *where, **how)
        finally:
            self.share.answered(request.transaction_id)

    def take(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """One datagram."""
        connection = cast(IceConnection, self.receiver)
        first = data[0] if data else 255
        if 128 <= first < 192:
            connection.on_media(data)
        elif first < 4:
            try:
                super().datagram_received(data, addr)
            except Exception:  # attributes of odd lengths raise whatever unpacking raises
                connection.drop("malformed")
        elif 20 <= first < 64 and connection.knows(addr[0], addr[1]):
            connection.data_received(data, self.local_candidate.component)
        else:
            connection.drop("unexpected")


class IceConnection(aioice.ice.Connection):
    """An ICE agent with host candidates only, on the addresses and ports it is told."""

    CONSENT_S = 5.0
    """RFC 7675 section 5.1: consent is asked for every 5 seconds or so."""
    EXPIRY_S = 30.0
    """RFC 7675 section 5.1: nothing may be sent after so long without consent."""
    QUIET_S = 1.0
    """A peer that was not heard for so long is asked whether it is there."""
    HELD_S = 2.0
    """So long after it was heard a peer's address stays its own: twice what it may be quiet."""

    def __init__(self, settings: IceSettings, local_username: str | None, password: str | None):
        super().__init__(
            ice_controlling=False, local_username=local_username, local_password=password
        )
        self.settings = settings
        self.on_media: Callable[[bytes], None] = lambda _data: None
        self.rtt_ms: float | None = None
        self.expired = False
        """The connection was closed because the peer gave no consent any more."""
        self._now = asyncio.get_running_loop().time
        self._heard_s = self._now()

    @property
    def pair(self) -> aioice.ice.CandidatePair | None:
        """The pair of candidates that media goes through, once there is one."""
        return self._nominated.get(1)

    @property
    def route(self) -> tuple[socket.socket, tuple[str, int]] | None:
        """The socket and the address that media is sent through, once there are any."""
        pair = self.pair
        if pair is None:
            return None
        return cast(IceProtocol, pair.protocol).sock, pair.remote_addr

    def heard(self) -> None:
        """The peer is there: it has sent something only it can send."""
        self._heard_s = self._now()

    def holds(self, addr: tuple[str, int]) -> bool:
        """Whether the peer was heard just now, and not by another address."""
        pair = self.pair
        if pair is not None and pair.remote_addr != addr[:2]:
            return False
        return self._now() - self._heard_s < self.HELD_S

    def drop(self, why: str) -> None:
        self.settings.drop(why)

    def knows(self, host: str, port: int) -> bool:
        """Whether an address is a candidate of the peer or has answered for it."""
        return any(c._network_host == host and c.port == port for c in self._remote_candidates)

    def check_incoming(
        self, message: stun.Message, addr: tuple[str, int], protocol: aioice.ice.StunProtocol
    ) -> None:
        """Note where a check came from, but not without end: each address costs checks of ours."""
        if len(self._remote_candidates) < _REMOTES_MAX or self.knows(addr[0], addr[1]):
            super().check_incoming(message, addr, protocol)
        else:
            self.drop("flood")

    def data_received(self, data: bytes, component: int) -> None:
        if data[0] < 4:  # what claims to be STUN and is not comes back here
            self.drop("malformed")
        elif self._queue.qsize() < _QUEUE_MAX:
            super().data_received(data, component)
        else:
            self.drop("flood")

    async def get_component_candidates(
        self,
        component: int,
        addresses: list[str],  # noqa: ARG002
        timeout: int = 5,  # noqa: ARG002, ASYNC109
    ) -> list[Candidate]:
        """Listen on every address; Unavailable if there is no port left on any."""
        for protocol in await self._listen():
            host, port = protocol.sock.getsockname()[:2]
            protocol.local_candidate = Candidate(
                foundation=candidate_foundation("host", "udp", host),
                component=component,
                transport="udp",
                priority=candidate_priority(component, "host", 65535 - len(self._protocols)),
                host=host,
                port=port,
                type="host",
            )
            self._protocols.append(protocol)
        if not self._protocols:
            raise Unavailable("The server has no free UDP port for media.", retry_after_s=5)
        return [protocol.local_candidate for protocol in self._protocols]

    async def _listen(self) -> list[IceProtocol]:
        """A socket of its own on each address, or its share of what all have in common."""
        found: list[IceProtocol] = []
        for udp_port in self.settings.shared:
            protocol = IceProtocol(self)
            protocol.sock = udp_port.sock
            protocol.share = udp_port.share(self.local_username, protocol)
            found.append(protocol)
        if found:
            return found
        loop = asyncio.get_running_loop()
        for address in self.settings.addresses:
            sock = bind(address, self.settings.ports)
            if sock is not None:
                _, protocol = await loop.create_datagram_endpoint(
                    lambda: IceProtocol(self), sock=sock
                )
                protocol.sock = sock
                found.append(protocol)
        return found

    async def query_consent(self) -> None:
        """Keep asking the peer whether it is there; close when it is not (RFC 7675).

        Media that only the peer can have encrypted shows that it lives, so a session with
        traffic is asked every 5 s only; one that went quiet, every second until ``loss_s``.
        """
        self._heard_s = consent_s = self._now()
        interval_s = 0.0
        in_vain = False
        while True:
            await asyncio.sleep(self.QUIET_S)
            now_s = self._now()
            quiet = now_s - self._heard_s >= self.QUIET_S
            if not quiet and now_s - consent_s < interval_s:
                in_vain = False
                continue
            # Once more before the end, unless that was in vain already: it takes over a second.
            if not (in_vain and self._is_gone(consent_s)) and await self._ask_consent():
                self._heard_s = consent_s = self._now()
                interval_s = self.CONSENT_S * (0.8 + 0.4 * random.random())
                in_vain = False
            elif self._is_gone(consent_s):
                self._query_consent_task = None
                self.expired = True
                await self.close()
                return
            else:
                in_vain = True

    def _is_gone(self, consent_s: float) -> bool:
        now_s = self._now()
        return now_s - self._heard_s > self.settings.loss_s or now_s - consent_s > self.EXPIRY_S

    async def _ask_consent(self) -> bool:
        pair = self.pair
        if pair is None or self.remote_password is None:
            return False
        asked_s = self._now()
        try:
            await pair.protocol.request(
                self.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=self.remote_password.encode(),
                retransmissions=1,
            )
        except stun.TransactionError:
            return False
        self.rtt_ms = (self._now() - asked_s) * 1000
        return True


def media_addresses(host: str) -> tuple[str, ...]:
    """The local addresses that sessions listen on, when HTTP listens on ``host``.

    All but loopback for a wildcard: a browser on this machine uses the others too. With loopback
    for a server that is told to listen there, which may be meant for this machine alone or stand
    behind a proxy, and where there is nothing else.
    """
    if host not in ("", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"):
        return (host,)
    found = list(aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True))
    if host in ("localhost", "127.0.0.1", "::1") or not found:
        found.append("::1" if host == "::1" else "127.0.0.1")
    return tuple(dict.fromkeys(found))


def port_range(text: str) -> range | None:
    """``ice.udp_ports``: None for "any", else the ports FIRST to LAST."""
    if text == "any":
        return None
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


def names_used(function: object) -> set[str]:
    """Every global and attribute name in a function's code, nested code included."""
    waiting = [cast(FunctionType, function).__code__]
    names: set[str] = set()
    while waiting:
        code = waiting.pop()
        names.update(code.co_names)
        waiting.extend(inner for inner in code.co_consts if isinstance(inner, CodeType))
    return names


def require_names(owner: object, *names: str) -> None:
    """SeamError unless ``owner`` has every attribute."""
    for name in names:
        if not hasattr(owner, name):
            raise SeamError(f"{getattr(owner, '__name__', owner)} has no {name} any more")


def require_use(function: object, *names: str) -> None:
    """SeamError unless the function's code mentions every name (as attributes set in it are)."""
    missing = set(names) - names_used(function)
    if missing:
        where = getattr(function, "__qualname__", function)
        raise SeamError(f"{where} does not use {', '.join(sorted(missing))} any more")


def check() -> None:
    """SeamError naming what the installed aioice no longer has."""
    connection, protocol = aioice.ice.Connection, aioice.ice.StunProtocol
    require_names(aioice.ice, "get_host_addresses")
    require_names(connection, "build_request", "close", "data_received")
    require_names(protocol, "request", "send_stun", "connection_made", "connection_lost")
    require_use(
        connection.__init__,
        "_nominated",
        "_queue",
        "_protocols",
        "_remote_candidates",
        "_query_consent_task",
    )
    require_use(connection.connect, "query_consent")
    require_use(connection.gather_candidates, "get_component_candidates")
    require_use(connection.check_incoming, "_network_host")
    require_use(protocol.datagram_received, "data_received", "local_candidate")
