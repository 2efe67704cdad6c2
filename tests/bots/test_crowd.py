"""Many bots: in a real server's room, without a server, put out, stopped; and the command line."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator

import pytest

from calliope import bots
from calliope.app import Server
from calliope.bots import Options, Report, Studio, crowd, run_bots
from calliope.clock import SystemClock
from calliope.config import Config, LimitsConfig, MixerConfig, ServerConfig
from calliope.names import clean_name
from tests.bots.test_bot import call_tasks
from tests.transport.relay import Relay

SMALL = {"fps": 10, "width": 128, "height": 72}


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server(
        Config(
            server=ServerConfig(host="127.0.0.1", port=0),
            mixer=MixerConfig(fps=10, width=320, height=180, renditions=("180p:200",)),
            limits=LimitsConfig(room=3),
        )
    )
    await server.start()
    yield server
    await server.stop()


def _options(server: Server, **more: object) -> Options:
    return Options(url=f"http://127.0.0.1:{server.port}", **SMALL, **more)  # type: ignore[arg-type]


def test_the_bots_names_are_names_the_server_takes_in_many_scripts() -> None:
    assert [clean_name(name) for name in crowd.NAMES] == list(crowd.NAMES)
    first_letters = {name[0] for name in crowd.NAMES[:10]}
    assert len(first_letters) == 10


async def _run_until(options: Options, reached: str) -> tuple[Report, list[str]]:
    """Run bots until a status line says ``reached`` and that all of them get pictures, then stop
    them as Ctrl-C does."""
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if f"{reached} connected, receiving" in line and "least 0.0" not in line:
            os.kill(os.getpid(), signal.SIGINT)

    async with asyncio.timeout(60):
        return await run_bots(options, show=show), lines


async def test_participants_and_audience_fill_a_room_of_the_real_server(server: Server) -> None:
    report, lines = await _run_until(_options(server, count=2, audience=2), "4 of 4")
    assert report.joined == 4
    assert report.failures == ()
    assert [bot.name for bot in report.bots] == [*crowd.NAMES[:2], "Audience 1", "Audience 2"]
    for bot in report.bots:
        assert bot.joined_s is not None
        assert bot.joined_s < 15
        assert bot.fps > 0
        assert bot.kbps > 0
        assert bot.sound_packets > 0
    assert "pictures a second" in lines[-1]


async def test_when_the_bots_have_left_nothing_stays_behind(server: Server) -> None:
    await _run_until(_options(server, count=2), "2 of 2")
    async with asyncio.timeout(20):
        # what is waited for has no event of its own
        while server.sessions.count or call_tasks():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    gc.collect()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("bot-recorder")]


async def test_a_full_room_is_told_and_the_others_stay(server: Server) -> None:
    report, _ = await _run_until(_options(server, count=4), "3 of 4")
    assert report.joined == 3


async def test_a_bot_that_is_put_out_comes_back(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "_REJOIN_S", 0.1)
    put_out = False
    lines: list[str] = []

    def show(line: str) -> None:
        nonlocal put_out
        lines.append(line)
        if not put_out and "1 of 1 connected, receiving" in line:
            put_out = True
            for session in list(server.sessions._by_secret.values()):
                session.leave()
        elif put_out and "1 of 1 connected, receiving" in line and "came back" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    async with asyncio.timeout(60):
        report = await run_bots(_options(server, count=1), show=show)
    assert report.rejoins >= 1
    assert report.joined == 1


async def test_seconds_end_the_run_by_themselves(server: Server) -> None:
    async with asyncio.timeout(30):
        report = await run_bots(_options(server, count=0, audience=1, seconds=0.5))
    assert len(report.bots) == 1


async def test_a_server_that_never_comes_is_told_and_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(crowd, "SERVER_WAIT_S", 0)
    report = await run_bots(Options(url="http://127.0.0.1:9", seconds=5, count=1))
    assert report.joined == 0


async def test_bots_wait_for_a_server_that_starts_later(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "_POLL_S", 0.05)
    options = Options(url=f"http://127.0.0.1:{unused_tcp_port}", count=0, audience=1, **SMALL)  # type: ignore[arg-type]
    waiting = asyncio.create_task(_run_until(options, "1 of 1"))
    await asyncio.sleep(0)
    late = Server(Config(server=ServerConfig(host="127.0.0.1", port=unused_tcp_port)))
    await late.start()
    try:
        report, _ = await waiting
    finally:
        await late.stop()
    assert report.joined == 1


def _parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bots.add_arguments(parser)
    return parser.parse_args(arguments)


def test_the_command_line_has_the_documented_defaults() -> None:
    args = _parse()
    assert (args.url, args.room, args.count) == ("http://127.0.0.1:8050", "demo", 8)
    assert (args.audience, args.seconds, args.fps, args.size) == (0, None, 15, (640, 360))


@pytest.mark.parametrize(
    "wrong",
    [
        ("--count", "-1"),
        ("--count", "many"),
        ("--audience", "501"),
        ("--seconds", "0"),
        ("--seconds", "inf"),
        ("--fps", "60"),
        ("--size", "640"),
        ("--size", "641x360"),
        ("--size", "4000x360"),
        ("--size", "²x4"),
    ],
)
def test_wrong_options_are_refused_by_name(
    wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        _parse(f"{wrong[0]}={wrong[1]}")
    said = capsys.readouterr().err
    assert wrong[0] in said
    assert wrong[1] in said


def test_a_report_can_be_all_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "SERVER_WAIT_S", 0.2)
    bots.main(_parse("--url", "http://127.0.0.1:9", "--count", "1", "--json", "-"))
    said = json.loads(capsys.readouterr().out)
    assert said["bots"] == []
    assert "takes no calls" in said["failures"][0]


def test_main_says_on_stderr_why_nobody_joined(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(crowd, "SERVER_WAIT_S", 0.2)
    assert bots.main(_parse("--url", "http://127.0.0.1:9", "--count", "1")) == 1
    assert "http://127.0.0.1:9 takes no calls" in capsys.readouterr().err


async def test_a_watched_room_tells_how_late_pictures_and_pips_are(server: Server) -> None:
    options = _options(server, count=2, watched=True)
    with Studio() as studio:
        run = crowd.Crowd(options, studio, SystemClock())
        async with run.running():
            await run.wait_joined(30)
            run.mark()
            async with asyncio.timeout(30):
                while True:
                    sight = run.report().sight
                    assert sight is not None
                    if len(sight.picture_ms) > 10 and sight.sound_ms and sight.frames > 10:
                        break
                    await asyncio.sleep(0.05)
    assert sight.read > sight.unread
    assert all(0 < delay < 1000 for delay in sight.sound_ms)
    assert all(0 < delay < 4000 for delay in sight.picture_ms)  # the loop's length
    report = run.final_report
    assert report.joined == 2  # who decodes is not counted
    assert report.packets > 0
    assert all(bot.first_frame_s is not None for bot in report.bots)
    assert all(0 < bot.sent_fps < 11 for bot in report.bots)
    text = "\n".join(report.lines())
    assert "picture, sender to composed: p50" in text
    assert "this tool used" in text


async def test_a_bot_goes_the_way_it_is_given(server: Server) -> None:
    """The second of three behind a relay that then goes dark: it alone gets nothing any more."""
    relay = Relay()
    options = _options(server, count=1, audience=2)
    with Studio() as studio:
        run = crowd.Crowd(options, studio, SystemClock(), {1: relay})
        async with run.running():
            await run.wait_joined(30)
            async with asyncio.timeout(30):
                while any(bot.first_frame_s is None for bot in run.report().bots):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                relay.up.dark = relay.down.dark = True
                run.mark()
                while run.report().bots[2].fps == 0:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            passed = relay.down.passed
            assert [bot.fps > 0 for bot in run.report().bots] == [True, False, True]
    assert passed > 0
    relay.close()


async def test_counting_begins_so_long_after_all_have_joined(server: Server) -> None:
    options = _options(server, count=1, watched=True, settle_s=0.5, seconds=0.5)
    begun_s = time.monotonic()
    async with asyncio.timeout(60):
        report = await run_bots(options)
    assert report.sight is not None
    passed_s = time.monotonic() - begun_s
    assert 0.5 <= report.sight.seconds < passed_s - 0.5  # what came before is not in it


async def test_an_observer_that_waits_is_let_in_later(server: Server) -> None:
    with Studio() as studio:
        options = _options(server, count=1, watched=True, observer_waits=True)
        run = crowd.Crowd(options, studio, SystemClock())
        async with run.running():
            await run.wait_joined(30)
            assert server.sessions.count == 1
            assert run.report().sight is None
            run.observing.set()
            await run.wait_joined(30)
            assert server.sessions.count == 2
            assert run.report().sight is not None


async def test_bots_join_no_faster_than_they_are_told(server: Server) -> None:
    options = _options(server, count=0, audience=3, joins_per_s=4.0)
    with Studio() as studio:
        run = crowd.Crowd(options, studio, SystemClock())
        async with run.running():
            await run.wait_joined(30)
            assert run.report().joins_per_s < 4.0 * 3 / 2  # the third begins after half a second


def test_a_tool_that_is_the_limit_says_so() -> None:
    report = Report(
        bots=(_A_BOT,), failures=(), rejoins=0, packets=1, joins_per_s=1.0,
        tool=crowd.ToolReport(core_share=0.97, lag_s=0.001), sight=None,
    )  # fmt: skip
    assert "IT IS THE LIMIT" in report.lines()[-1]
    idle = dataclasses.replace(report, tool=crowd.ToolReport(core_share=0.3, lag_s=0.001))
    assert "LIMIT" not in idle.lines()[-1]


_A_BOT = crowd.BotReport("Ada", 0.1, 0.2, 30.0, 1200.0, 30.0, 50, 0, 0, 0.0, 0.04)
