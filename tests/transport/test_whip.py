"""Publishers that are no browsers: ffmpeg's WHIP client sends H264 and is seen."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from calliope.tls import make_certificate
from tests.transport.calls import FakeRooms, house, until

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("profile", ["baseline", "high"])
async def test_ffmpeg_publishes_h264_and_leaves(tmp_path: Path, profile: str) -> None:
    rooms = FakeRooms()
    certificate = tmp_path / "publisher.pem"
    certificate.write_bytes(make_certificate(["publisher"]))
    async with house(tmp_path, rooms) as server:
        url = f"http://127.0.0.1:{server.http.port}/api/rooms/demo/sessions?name=OBS"
        publisher = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.transport.whip_publisher"),
            *(url, profile, str(certificate)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
        )
        try:
            await until(lambda: bool(rooms.members) and rooms.last.feed is not None, 60)
            member = rooms.last
            assert (member.request.role, member.request.name) == ("publisher", "OBS")
            feed = member.feed
            assert feed is not None
            frame = feed.source.latest()
            assert frame is not None
            assert (frame.width, frame.height) == (640, 360)
            assert int(frame.y.max()) - int(frame.y.min()) <= 2  # one grey, as it was sent
            await until(lambda: len(member.heard) > 10)
            assert publisher.stdin is not None
            publisher.stdin.close()
            assert await asyncio.wait_for(publisher.wait(), 30) == 0
            await until(lambda: member.left)
            assert member.events == ["connected", "video", "left"]  # its DELETE
        finally:
            if publisher.returncode is None:
                publisher.kill()
                await publisher.wait()
