"""A link that loses packets: two network namespaces, a packet filter at either end of the cable.

Needs root, ``ip`` and ``iptables``. The clients run in one namespace, the server in the other; what
the filter cannot do (reorder, repeat, limit) a relay does, see ``load_storms.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tests.e2e.server_process import run_server

_SERVER, _CLIENTS = f"cal-s{os.getpid()}", f"cal-c{os.getpid()}"
_SERVER_IP, _CLIENTS_IP = "10.213.7.1", "10.213.7.2"
_PORT = 8050
_EXTRA_S = 120.0


class Unavailable(Exception):
    """This machine cannot do it; the message says why."""


class Filter:
    """Loses UDP packets that come in at both ends of the cable. It is used by the clients' side."""

    def __init__(self, server_space: str) -> None:
        self._ends = ((), ("ip", "netns", "exec", server_space))

    async def lose(self, share: float) -> None:
        """Lose a random share from now on."""
        await self._tell("-F", "INPUT")
        if share:
            random = ("-m", "statistic", "--mode", "random", "--probability", str(share))
            await self._tell("-A", "INPUT", "-p", "udp", *random, "-j", "DROP")

    async def darken(self) -> None:
        """Lose everything, until :meth:`lose` is called."""
        await self._tell("-I", "INPUT", "-p", "udp", "-j", "DROP")

    async def _tell(self, *rule: str) -> None:
        await asyncio.gather(*(run(*end, "iptables", *rule) for end in self._ends))


async def measure(launcher: Sequence[str], seconds: float) -> dict[str, Any]:
    """What an observer behind a bad link saw and heard; ``seconds`` of loss. Unavailable."""
    _require()
    async with (
        _link(),
        run_server(
            *("--server-host", "0.0.0.0"),
            port=_PORT,
            launcher=["ip", "netns", "exec", _SERVER, *launcher],
        ),
    ):
        said = await run(
            *("ip", "netns", "exec", _CLIENTS, sys.executable, "-m", "bench.load_storms"),
            *(f"http://{_SERVER_IP}:{_PORT}", _SERVER, str(seconds)),
            timeout_s=seconds + _EXTRA_S,
        )
    found: dict[str, Any] = json.loads(said)
    return found


def _require() -> None:
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")


@contextlib.asynccontextmanager
async def _link() -> AsyncIterator[None]:
    """Two namespaces and the cable between them."""
    try:
        for space in (_SERVER, _CLIENTS):
            await run("ip", "netns", "add", space)
        ends = ("cal0", "netns", _SERVER, "type", "veth", "peer", "name", "cal1", "netns", _CLIENTS)
        await run("ip", "link", "add", *ends)
        for space, device, address in (
            (_SERVER, "cal0", _SERVER_IP),
            (_CLIENTS, "cal1", _CLIENTS_IP),
        ):
            await run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", device)
            await run("ip", "-n", space, "link", "set", device, "up")
            await run("ip", "-n", space, "link", "set", "lo", "up")
        yield
    finally:
        for space in (_SERVER, _CLIENTS):
            with contextlib.suppress(Unavailable):
                await run("ip", "netns", "del", space)


async def run(*command: str, timeout_s: float = 10.0) -> str:
    """What a program printed; Unavailable with what it complained of, if it failed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            said, complained = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    if process.returncode:
        why = complained.decode(errors="replace").strip()[-300:]
        raise Unavailable(f"{' '.join(command[:6])}: {why}")
    return said.decode()
