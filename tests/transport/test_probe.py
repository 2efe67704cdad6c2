"""The server measures itself: by a stand-in process, over HTTP, and for once in earnest."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from aiohttp import ClientSession

from calliope.app import Server
from calliope.clock import FakeClock
from calliope.config import Config, MixerConfig, ServerConfig
from calliope.errors import TooMany, Unavailable
from calliope.metrics import Metrics
from calliope.transport import probe
from calliope.transport.http import _is_loopback
from calliope.transport.probe import Prober
from tests.transport.calls import house, until
from tests.transport.test_http import is_problem

REPORT = {
    "failures": [],
    "sight": {
        "picture_ms": [*range(1, 100), 300],
        "sound_ms": [40.0, 60.0, 50.0],
        "lip_sync_ms": [-30.0, 10.0],
    },
}
FOR_EVER = "import time; time.sleep(1000)"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def prober(metrics: Metrics) -> Prober:
    return Prober(lambda: "http://127.0.0.1:9", FakeClock(), metrics)


def stand_in(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Let this Python program stand for the participants."""
    monkeypatch.setattr(probe, "_command", lambda _url: [sys.executable, "-c", program])


def value(metrics: Metrics, name: str, labels: dict[str, str] | None = None) -> float | None:
    return metrics.registry.get_sample_value(name, labels or {})


async def test_what_was_seen_and_heard_is_the_answer_and_fills_the_histograms(
    prober: Prober, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, f"print({json.dumps(REPORT)!r})")
    answer = await prober.probe()
    assert answer["picture_ms"] == {"p50": 50.0, "p95": 95.0, "count": 100}
    assert answer["sound_ms"] == {"p50": 50.0, "p95": 60.0, "count": 3}
    assert answer["lip_sync_ms"] == {"p50": 10.0, "p95": 30.0, "count": 2}  # either may be first
    assert value(metrics, "calliope_glass_to_glass_seconds_count") == 100
    assert value(metrics, "calliope_glass_to_glass_seconds_bucket", {"le": "0.08"}) == 80
    assert value(metrics, "calliope_sound_delay_seconds_sum") == pytest.approx(0.15)
    assert value(metrics, "calliope_lip_sync_seconds_sum") == pytest.approx(0.04)
    assert value(metrics, "calliope_probes_total", {"result": "done"}) == 1


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(1)", "no picture"),
        ("print('no report')", "could not see and hear itself"),
        (f"print({json.dumps({**REPORT, 'failures': ['It was refused.']})!r})", "It was refused"),
        (f"print({json.dumps({'sight': {**REPORT['sight'], 'sound_ms': []}})!r})", "no sound"),  # type: ignore[dict-item]
    ],
)
async def test_a_probe_that_fails_says_why_and_the_next_one_may_try(
    prober: Prober, metrics: Metrics, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    stand_in(monkeypatch, program)
    with pytest.raises(Unavailable, match=why):
        await prober.probe()
    assert value(metrics, "calliope_probes_total", {"result": "failed"}) == 1
    assert value(metrics, "calliope_glass_to_glass_seconds_count") == 0
    stand_in(monkeypatch, f"print({json.dumps(REPORT)!r})")
    await prober.probe()


async def test_there_is_one_at_a_time(prober: Prober, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, FOR_EVER)
    first = asyncio.create_task(prober.probe())
    await until(lambda: prober._process is not None)
    with pytest.raises(TooMany) as refused:
        await prober.probe()
    assert refused.value.retry_after_s
    await prober.close()
    with pytest.raises(Unavailable):
        await first


async def test_its_end_ends_the_process_and_begins_no_other(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, FOR_EVER)
    running = asyncio.create_task(prober.probe())
    await until(lambda: prober._process is not None)
    process = prober._process
    assert process is not None
    await prober.close()
    assert process.returncode is not None
    with pytest.raises(Unavailable):
        await running
    with pytest.raises(Unavailable, match="stopping"):
        await prober.probe()


async def test_participants_that_never_end_are_ended(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOR_EVER}"
    stand_in(monkeypatch, deaf)
    for name, seconds in (("START_S", 0.3), ("SETTLE_S", 0), ("SECONDS", 0), ("GOODBYE_S", 0.2)):
        monkeypatch.setattr(probe, name, seconds)
    processes = []
    create = asyncio.create_subprocess_exec

    async def note(*command: str, **how: object) -> asyncio.subprocess.Process:
        processes.append(await create(*command, **how))  # type: ignore[arg-type]
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", note)
    with pytest.raises(Unavailable, match="took too long"):
        await prober.probe()
    assert [process.returncode is not None for process in processes] == [True]


async def test_a_server_that_stops_does_not_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, FOR_EVER)
    server = Server(Config(server=ServerConfig(host="127.0.0.1", port=0)))
    await server.start()
    try:
        running = asyncio.create_task(server._prober.probe())
        await until(lambda: server._prober._process is not None)
        process = server._prober._process
        assert process is not None
        await server.drain()
        assert process.returncode is not None
        with pytest.raises(Unavailable):
            await running
    finally:
        await server.stop()


# -- over HTTP ------------------------------------------------------------------------------------


async def test_it_is_off_unless_the_operator_says_so(tmp_path: Path) -> None:
    async with house(tmp_path) as built:
        await is_problem(await built.http.post("/api/probe"), 403, "forbidden")


@pytest.mark.parametrize("who", ["local", "on"])
async def test_who_may_is_answered_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    stand_in(monkeypatch, f"print({json.dumps(REPORT)!r})")
    async with house(tmp_path, config=Config(server=ServerConfig(probe=who))) as built:
        answer = await built.http.post("/api/probe")
        assert answer.status == 200
        assert (await answer.json())["picture_ms"]["p95"] == 95.0
        assert (
            "calliope_lip_sync_seconds_count 2.0" in await (await built.http.get("/metrics")).text()
        )
        await is_problem(await built.http.get("/api/probe"), 405, "method_not_allowed")


async def test_who_asks_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calliope.transport.http._is_loopback", lambda _address: False)
    async with house(tmp_path, config=Config(server=ServerConfig(probe="local"))) as built:
        await is_problem(await built.http.post("/api/probe"), 403, "forbidden")


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Origin", "https://example.org"),  # a page's POST, whatever its mode
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Forwarded", "for=192.0.2.1"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Via", "1.1 proxy"),
        ("Host", "calls.example.org"),  # a proxy's, or a name that was let point here
        ("Host", "localhost.example.org:8050"),
        ("Host", "10.0.0.1:8050"),
        ("Host", "[2001:db8::1]:8050"),
        ("Host", "localhost:x"),
    ],
)
async def test_pages_and_proxies_on_the_servers_machine_are_not_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, value: str
) -> None:
    stand_in(monkeypatch, f"print({json.dumps(REPORT)!r})")
    async with house(tmp_path, config=Config(server=ServerConfig(probe="local"))) as built:
        answer = await built.http.post("/api/probe", headers={header: value})
        await is_problem(answer, 403, "forbidden")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8050", "127.0.0.1:8050", "127.8.0.1", "[::1]", "[::1]:8050"]
)
async def test_who_asks_by_a_name_of_the_loopback_is_local(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    stand_in(monkeypatch, f"print({json.dumps(REPORT)!r})")
    async with house(tmp_path, config=Config(server=ServerConfig(probe="local"))) as built:
        asked = {"Host": host, "Sec-Fetch-Site": "none"}
        assert (await built.http.post("/api/probe", headers=asked)).status == 200


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("::ffff:127.0.0.1", True),
        ("10.0.0.1", False), ("2001:db8::1", False), ("::ffff:10.0.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_local_is_the_loopback_in_every_spelling(address: str, local: bool) -> None:
    assert _is_loopback(address) == local


async def test_the_real_server_sees_and_hears_itself_and_nothing_stays_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probe, "SECONDS", 2)
    monkeypatch.setattr(probe, "SETTLE_S", 0.5)
    monkeypatch.setattr(probe, "START_S", 60)
    server = Server(
        Config(
            server=ServerConfig(host="127.0.0.1", port=0, probe="local"),
            mixer=MixerConfig(fps=15, width=640, height=360, renditions=("360p:600",)),
        )
    )
    await server.start()
    try:
        async with ClientSession() as http:
            async with http.post(f"http://127.0.0.1:{server.port}/api/probe") as response:
                assert response.status == 200, await response.text()
                answer = await response.json()
            for kind in ("picture_ms", "sound_ms"):
                assert 0 < answer[kind]["p50"] <= answer[kind]["p95"] < 4000, answer
            assert answer["lip_sync_ms"]["count"] > 0
            await until(lambda: server.sessions.count == 0)
            await until(lambda: value(server.metrics, "calliope_rooms") == 0)
            async with http.get(f"http://127.0.0.1:{server.port}/metrics") as response:
                text = await response.text()
        assert "probe-" not in text
        for direction in ("in", "out"):
            assert value(server.metrics, "calliope_loss_share_count", {"direction": direction})
        assert value(server.metrics, "calliope_round_trip_seconds_count")
    finally:
        await server.stop()
