"""A call over a link that loses packets: two network namespaces, a packet filter between them.

The filter drops a random share both ways. Needs root, ``ip`` and ``iptables``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from calliope.bots.crowd import quantile
from tests.e2e.server_process import run_server

LOSS = 0.05
_SERVER, _CLIENTS = f"cal-s{os.getpid()}", f"cal-c{os.getpid()}"
_SERVER_IP, _CLIENTS_IP = "10.213.7.1", "10.213.7.2"
_PORT = 8050
_EXTRA_S = 60.0


class Unavailable(Exception):
    """This machine cannot do it; the message says why."""


async def measure(launcher: Sequence[str], seconds: float) -> dict[str, float]:
    """Three participants and one who decodes, all of them behind the lossy link."""
    _require()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        async with (
            _link(),
            run_server(
                "--server-host",
                "0.0.0.0",
                port=_PORT,
                launcher=["ip", "netns", "exec", _SERVER, *launcher],
            ),
        ):
            await _run(
                "ip",
                "netns",
                "exec",
                _CLIENTS,
                sys.executable,
                "-m",
                "calliope",
                "bots",
                "--url",
                f"http://{_SERVER_IP}:{_PORT}",
                "--count",
                "3",
                "--fps",
                "30",
                "--watch",
                "--seconds",
                str(seconds),
                "--json",
                str(report),
                timeout_s=seconds + _EXTRA_S,
            )
        sight = json.loads(report.read_text())["sight"]
    delays = sight["picture_ms"]
    return {
        "frozen_share": sight["frozen_s"] / sight["seconds"],
        "freezes": sight["freezes"],
        "longest_gap_s": sight["longest_gap_s"],
        "fps": sight["frames"] / sight["seconds"],
        "p50_ms": quantile(delays, 0.5),
        "p95_ms": quantile(delays, 0.95),
    }


def _require() -> None:
    if os.geteuid() != 0:
        raise Unavailable("network namespaces need root")
    for program in ("ip", "iptables"):
        if shutil.which(program) is None:
            raise Unavailable(f"there is no {program}")


@contextlib.asynccontextmanager
async def _link() -> AsyncIterator[None]:
    """Two namespaces and the cable between them, both ends of which lose packets."""
    with_ip = ("ip", "netns", "exec")
    try:
        for space in (_SERVER, _CLIENTS):
            await _run("ip", "netns", "add", space)
        await _run(
            "ip",
            "link",
            "add",
            "cal0",
            "netns",
            _SERVER,
            "type",
            "veth",
            "peer",
            "name",
            "cal1",
            "netns",
            _CLIENTS,
        )
        for space, device, address in (
            (_SERVER, "cal0", _SERVER_IP),
            (_CLIENTS, "cal1", _CLIENTS_IP),
        ):
            inside = (*with_ip, space)
            await _run(*inside, "ip", "addr", "add", f"{address}/24", "dev", device)
            await _run(*inside, "ip", "link", "set", device, "up")
            await _run(*inside, "ip", "link", "set", "lo", "up")
            await _run(
                *inside,
                "iptables",
                "-A",
                "INPUT",
                "-i",
                device,
                "-p",
                "udp",
                "-m",
                "statistic",
                "--mode",
                "random",
                "--probability",
                str(LOSS),
                "-j",
                "DROP",
            )
        yield
    finally:
        for space in (_SERVER, _CLIENTS):
            with contextlib.suppress(Unavailable):
                await _run("ip", "netns", "del", space)


async def _run(*command: str, timeout_s: float = 10.0) -> None:
    """Unavailable with what the program said, if it failed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(timeout_s):
            _, said = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise Unavailable(
            f"{' '.join(command[:6])}: {said.decode(errors='replace').strip()[-300:]}"
        )
