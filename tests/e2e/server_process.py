"""The real server in a process of its own, as ``make run`` starts it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence

START_TIMEOUT_S = 300  # the first start of a fresh checkout compiles the kernels
STOP_TIMEOUT_S = 20


class ServerProcess:
    """A running server: its URL, what it has printed, and its end."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process = process
        self.port = port
        self.url = f"http://localhost:{port}"
        self.output: list[str] = []
        self._reader = asyncio.create_task(self._read())
        self._ready = asyncio.Event()  # or it has ended before
        self._is_up = False

    @property
    def pid(self) -> int:
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.output.append(line.decode(errors="replace").rstrip())
            found = re.search(r"ready: open (\w+)://[^ ]*:(\d+)", self.output[-1])
            if found:
                self.port = int(found[2])
                self.url = f"{found[1]}://localhost:{self.port}"
                self._is_up = True
                self._ready.set()
        self._ready.set()

    async def wait_ready(self) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._ready.wait()
        assert self._is_up, "\n".join(self.output)

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def wait(self) -> int:
        """The exit status, once it has ended by itself."""
        async with asyncio.timeout(STOP_TIMEOUT_S):
            status = await self._process.wait()
            await self._reader
        return status

    async def end(self) -> None:
        """End it as an operator does; by force if that does not help."""
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await self.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
                raise


@contextlib.asynccontextmanager
async def run_server(
    *options: str,
    environ: Mapping[str, str] | None = None,
    port: int = 0,
    launcher: Sequence[str] = (),
) -> AsyncIterator[ServerProcess]:
    """Start ``calliope serve`` on a free port of the loopback; it is ended behind the block.

    ``launcher`` is a command that prepares the ground and then becomes the server.
    """
    process = await asyncio.create_subprocess_exec(
        *launcher, sys.executable, "-m", "calliope", "serve",
        "--server-host", "127.0.0.1", "--server-port", str(port), "--server-drain-s", "1", *options,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=dict(os.environ if environ is None else environ),
    )  # fmt: skip
    server = ServerProcess(process, port)
    try:
        await server.wait_ready()
        yield server
    finally:
        await server.end()
