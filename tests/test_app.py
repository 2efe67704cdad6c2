"""The server as a whole: what a call leaves behind, how it ends, where it can start."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import ClientSession
from aiortc import RTCPeerConnection

from calliope.app import Server
from calliope.config import load
from calliope.errors import ConfigError
from calliope.mixer.audio import AudioMixer
from calliope.mixer.video import VideoMixer
from calliope.ring import FrameRing
from calliope.room import Room
from calliope.seat import Seat
from calliope.tls import PEM_NAME, local_address
from calliope.transport.session import Session
from tests.e2e.server_process import run_server
from tests.e2e.visitor import SDP, Camera, Microphone, Visitor, until, visitors
from tests.transport.offers import offer

ROOT = Path(__file__).parent.parent
SMALL = {
    "mixer.width": "320",
    "mixer.height": "180",
    "mixer.fps": "15",
    "mixer.renditions": "180p:150",
}
SMALL_OPTIONS = tuple(
    text for name, value in SMALL.items() for text in (f"--{name.replace('.', '-')}", value)
)
BLUE = (90, 170, 100)
OF_A_CALL = (Room, Seat, Session, FrameRing, VideoMixer, AudioMixer, RTCPeerConnection)


# -- what stays behind ----------------------------------------------------------------------------


def alive() -> Counter[str]:
    """Objects that belong to a call."""
    gc.collect()
    return Counter(type(thing).__name__ for thing in gc.get_objects() if type(thing) in OF_A_CALL)


def threads() -> int:
    """Without asyncio's own pool: aiortc's encoders use it in the callers, and it is kept."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def give_freed_memory_back() -> None:
    """Let glibc map large blocks one by one, so that what is freed leaves the process.

    By itself it keeps them in a heap for each thread, and 100 MB more or less would say nothing.
    """
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_threshold = -1, -3
    assert libc.mallopt(m_mmap_threshold, 128 * 1024)
    assert libc.mallopt(m_trim_threshold, 128 * 1024)


def resident_mb() -> float:
    """Memory of this process, after the allocator has given back what it can."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def test_ten_calls_in_a_row_leave_nothing_behind() -> None:
    give_freed_memory_back()
    # full size, so that what is left of a room weighs; seldom, so that it costs little
    overrides = {"server.host": "127.0.0.1", "server.port": "0", "mixer.fps": "5"}
    server = Server(load(overrides, {}))
    await server.start()
    url = f"http://127.0.0.1:{server.port}/ten"

    async def call(number: int) -> None:
        async with visitors() as (http, present):
            ada = Visitor(camera=Camera(BLUE), microphone=Microphone(700))
            grace = Visitor(camera=Camera(BLUE), microphone=Microphone(900))
            present += [ada, grace]
            await ada.call(http, url, "Ada")
            await grace.call(http, url, "Grace")
            await until(lambda: ada.sees("Grace", BLUE) and ada.hears(900))
            match number % 3:
                case 0:
                    await http.delete(ada.location)
                case 1:
                    ada.send({"type": "bye"})
                case _:
                    await ada.close()
            await until(lambda: "Ada" not in grace.names().values())
        await until(lambda: server.sessions.count == 0)
        await until(lambda: server.metrics.rooms._value.get() == 0)

    try:
        for number in range(3):  # what is made once and kept is no leak
            await call(number)
        await until(lambda: not alive())
        threads_before = threads()
        tasks_before, files_before = len(asyncio.all_tasks()), open_files()
        memory_before_mb = resident_mb()
        for number in range(10):
            await call(number)
        await until(lambda: len(asyncio.all_tasks()) <= tasks_before)
        await until(lambda: threads() <= threads_before)
        await until(lambda: open_files() <= files_before)
        await until(lambda: not alive())
        grown_mb = resident_mb() - memory_before_mb
        print(f"ten calls later: {grown_mb:+.1f} MB")
        assert grown_mb < 40  # a room's canvas, encoder and rings are 20 MB
    finally:
        await server.stop()


# -- the end --------------------------------------------------------------------------------------


async def test_who_stops_the_server_lets_those_in_a_call_know_and_takes_no_new_ones() -> None:
    async with run_server(*SMALL_OPTIONS, "--server-drain-s", "60") as server:
        async with visitors() as (http, present):
            ada = Visitor(camera=Camera(BLUE))
            present.append(ada)
            await ada.call(http, f"{server.url}/end", "Ada")
            await until(lambda: ada.sees("Ada", BLUE))
            assert (await http.get(f"{server.url}/healthz")).status == 200
            server.send_signal(signal.SIGTERM)
            await until(lambda: (ada.last("error") or {}).get("code") == "draining")
            join = f"{server.url}/api/rooms/other/sessions"
            async with http.post(join, data=offer(), headers=SDP) as response:
                assert response.status == 503
                assert (await response.json())["code"] == "unavailable"
                assert int(response.headers["Retry-After"]) > 0
            assert (await http.get(f"{server.url}/healthz")).status == 503
            seen = ada.frames
            await until(lambda: ada.frames > seen + 3)  # the call goes on meanwhile
        # the last one has left: long before the minute is over
        assert await server.wait() == 0


async def test_the_end_does_not_wait_for_ever_for_those_who_stay() -> None:
    async with run_server(*SMALL_OPTIONS, "--server-drain-s", "1") as server:
        async with visitors() as (http, present):
            ada = Visitor(camera=Camera(BLUE))
            present.append(ada)
            await ada.call(http, f"{server.url}/stay", "Ada")
            server.send_signal(signal.SIGTERM)
            assert await server.wait() == 0
            await until(lambda: ada.pc.connectionState == "closed")
        assert not [line for line in server.output if "Traceback" in line or "ERROR" in line]


# -- where it starts ------------------------------------------------------------------------------

READ_ONLY = """
for folder in $(cut -d' ' -f2 /proc/self/mounts); do
    case $folder in
        /proc*|/sys*|/dev|/dev/pts) ;;
        *) mount -o remount,bind,ro "$folder" 2> /dev/null ;;
    esac
done
for folder in "$PWD" "$PWD/calliope/__pycache__" /tmp /var/tmp /dev/shm /root "$HOME"; do
    touch "$folder/probe-of-calliope" 2> /dev/null && { echo "$folder can be written"; exit 3; }
done
exec unshare --user --map-user=12345 --map-group=12345 env -i "$@"
"""
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")


def forbids_namespaces() -> bool:
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.skipif(forbids_namespaces(), reason="this kernel or container forbids namespaces")
async def test_it_serves_a_call_where_nothing_can_be_written_and_nobody_has_a_home() -> None:
    launcher = [*NAMESPACE, "sh", "-c", READ_ONLY, "sh"]
    async with run_server(*SMALL_OPTIONS, launcher=launcher) as server:
        assert b"HOME=" not in environment_of(server.pid)
        async with visitors() as (http, present):
            ada = Visitor(camera=Camera(BLUE))
            present.append(ada)
            await ada.call(http, f"{server.url}/cell", "Ada")
            await until(lambda: ada.sees("Ada", BLUE))
    assert not [line for line in server.output if "Traceback" in line or "ERROR" in line]


async def test_a_self_signed_start_prints_the_address_for_others_and_is_who_it_says(
    tmp_path: Path,
) -> None:
    environ = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    options = ("--server-host", "0.0.0.0", "--server-tls", "self-signed")
    async with run_server(*SMALL_OPTIONS, *options, environ=environ) as server:
        hosts = ["localhost"]
        if (address := local_address()) is not None:
            hosts.append(address)
            assert any(f"open https://{address}:{server.port}" in line for line in server.output)
        await until(lambda: any("browsers ask once" in line for line in server.output))
        trusting = ssl.create_default_context(cafile=tmp_path / "calliope" / PEM_NAME)
        async with ClientSession() as http:
            for host in hosts:
                url = f"https://{host}:{server.port}/healthz"
                async with http.get(url, ssl=trusting) as response:
                    assert response.status == 200


async def test_a_port_in_use_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        overrides = {"server.host": "127.0.0.1", "server.port": str(port), **SMALL}
        server = Server(load(overrides, {}))
        try:
            with pytest.raises(ConfigError, match=rf"cannot listen on 127.0.0.1:{port}"):
                await server.start()
        finally:
            await server.stop()
