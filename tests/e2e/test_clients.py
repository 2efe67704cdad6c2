"""Clients that are no browsers: a publisher that sends H264, and audience that only receives."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from calliope.tls import make_certificate
from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.visitor import Camera, Colour, Microphone, Visitor, until, visitors

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parents[2]
SMALL = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600"),
)
GREEN = (120, 60, 70)
NO_PICTURE = (0, 0, 0)
PITCH_HZ = 600.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ServerProcess]:
    async with run_server(*SMALL) as server:
        yield server


@contextlib.asynccontextmanager
async def publish(
    url: str, profile: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """ffmpeg's WHIP client with x264 of this profile; its standard input, closed, ends it."""
    certificate = folder / "publisher.pem"
    certificate.write_bytes(make_certificate(["publisher"]))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.transport.whip_publisher", url, profile, str(certificate)),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_a_publisher_sends_as_h264_stands_in_the_picture_of_all(
    server: ServerProcess, tmp_path: Path
) -> None:
    async with visitors() as (http, present):
        ada, watcher = Visitor(camera=Camera(GREEN)), Visitor()
        present += [ada, watcher]
        for visitor, name in ((ada, "Ada"), (watcher, "Watcher")):
            await visitor.call(http, f"{server.url}/stage", name)
        url = f"http://127.0.0.1:{server.port}/api/rooms/stage/sessions?name=OBS"
        async with publish(url, "high", tmp_path) as publisher:
            for visitor in present:
                await visitor.meets("Ada", "OBS")
                shades: set[Colour] = set()

                def changes(visitor: Visitor = visitor, shades: set[Colour] = shades) -> bool:
                    shade = visitor.colour_of("OBS") or NO_PICTURE
                    # the publisher counts its pictures in all three planes
                    if max(shade) - min(shade) < 8:
                        shades.add(shade)
                    return len(shades) > 8 and visitor.sees("Ada", GREEN)

                await until(changes)
            assert publisher.stdin is not None
            publisher.stdin.close()
            assert await asyncio.wait_for(publisher.wait(), 30) == 0
        for visitor in present:
            await visitor.meets("Ada")


async def test_audience_sees_hears_and_chats_and_stands_in_no_list(server: ServerProcess) -> None:
    async with visitors() as (http, present):
        ada = Visitor(camera=Camera(GREEN), microphone=Microphone(PITCH_HZ))
        watcher = Visitor()
        present += [ada, watcher]
        await watcher.call(http, f"{server.url}/hall", "Watcher")
        await ada.call(http, f"{server.url}/hall", "Ada")
        await until(lambda: watcher.sees("Ada", GREEN))
        await until(lambda: watcher.hears(PITCH_HZ))
        watcher.send({"type": "chat", "text": "bravo"})
        watcher.send({"type": "state", "muted": True})
        await until(lambda: (ada.last("chat") or {}).get("text") == "bravo")
        await until(lambda: (watcher.last("error") or {}).get("code") == "forbidden")
        chat = ada.last("chat")
        assert chat is not None
        assert (chat["from"], chat["name"]) == (watcher.you, "Watcher")
        assert set(ada.names()) == set(watcher.names()) == {ada.you}
        await watcher.close()
        ada.send({"type": "chat", "text": "still here"})
        await until(lambda: (ada.last("chat") or {}).get("text") == "still here")
        assert not ada.all("left")
        assert ada.sees("Ada", GREEN)
        assert not ada.hears(PITCH_HZ)  # one's own voice
