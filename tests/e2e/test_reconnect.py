"""A page whose server falters: it says so in words, comes back by itself, into its own seat."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.page_driver import CallPage, launch, until
from tests.e2e.server_process import ServerProcess, run_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600", "--limits-room", "2"),
)
ARTEFACTS = Path("artefacts/screens")
ARTEFACTS.mkdir(parents=True, exist_ok=True)
FRAMES = "document.querySelector('#stage').getVideoPlaybackQuality().totalVideoFrames"
STATUS = "document.querySelector('#status').textContent"


@dataclass
class Pair:
    """Ada and Grace fill a room of two seats. Their server can be ended and started again."""

    browser: Browser
    pages: list[CallPage]
    server: ServerProcess
    running: contextlib.AsyncExitStack

    @property
    def room(self) -> str:
        return f"{self.server.url}/pair"

    async def restart(self) -> None:
        """Start the server anew where it was."""
        self.server = await self.running.enter_async_context(
            run_server(*OPTIONS, port=self.server.port)
        )

    async def are_together(self) -> None:
        """Both are in the call, see two tiles, and their pictures move."""
        for page in self.pages:
            await until(page.page, "window.calliope.phase === 'connected'")
            await until(page.page, "window.calliope.participants.length === 2")
            await until(page.page, "window.calliope.appliedLayout?.tiles.length === 2")
            await until(page.page, "document.querySelector('#status').hidden")
            seen = await page.page.evaluate(FRAMES)
            await until(page.page, f"{FRAMES} > {seen} + 5 || {FRAMES} < {seen}")

    async def ids(self) -> list[str]:
        return [await page.page.evaluate("window.calliope.you") for page in self.pages]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair() -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as running, async_playwright() as playwright:
        server = await running.enter_async_context(run_server(*OPTIONS))
        browser = await launch(playwright)
        running.push_async_callback(browser.close)
        pair = Pair(browser, [], server, running)
        for name in ("Ada", "Grace"):
            # a context each: a seat is remembered per browser
            context = await browser.new_context(viewport={"width": 900, "height": 600})
            page = CallPage(await context.new_page())
            await page.enter(pair.room, name)
            pair.pages.append(page)
        await pair.are_together()
        yield pair
        for context in browser.contexts:
            await context.close()


async def test_a_third_is_told_in_words_that_the_room_is_full(pair: Pair) -> None:
    context = await pair.browser.new_context()
    page = await context.new_page()
    await page.goto(pair.room)
    await page.fill("#name", "Lin")
    await page.click("#join")
    await page.wait_for_selector("#join-problem:not(:empty)", state="visible")
    assert "The room is full" in await page.inner_text("#join-problem")
    await page.screenshot(path=ARTEFACTS / "room-full.png")
    assert await page.is_enabled("#join")
    await context.close()
    await pair.are_together()


async def test_after_a_silence_both_are_back_in_their_own_seats(pair: Pair) -> None:
    """The server is held still, as if the network were away, until both pages act."""
    ids = await pair.ids()
    await pair.pages[0].page.click("#mute")
    await until(pair.pages[1].page, "window.calliope.participants.some((p) => p.muted)")
    pair.server.send_signal(signal.SIGSTOP)
    try:
        for page in pair.pages:
            await until(page.page, "window.calliope.phase === 'reconnecting'")
            assert "connection was lost" in await page.page.evaluate(STATUS)
        await pair.pages[0].page.screenshot(path=ARTEFACTS / "connection-lost.png")
    finally:
        pair.server.send_signal(signal.SIGCONT)
    await pair.are_together()
    assert await pair.ids() == ids  # all seats are taken: only their own can have let them in
    people = await pair.pages[1].participants()
    assert people["Ada"]["muted"]
    assert not people["Grace"]["muted"]


async def test_after_a_restart_of_the_server_both_come_back_by_themselves(pair: Pair) -> None:
    await pair.pages[1].say("before the restart")
    await pair.pages[1].page.click("#panel-close")
    await pair.server.end()
    for page in pair.pages:
        await until(page.page, "window.calliope.phase === 'reconnecting'")
        await until(page.page, f"/again in|Reconnecting/.test({STATUS})")
    await pair.pages[1].page.screenshot(path=ARTEFACTS / "server-gone.png")
    await pair.restart()
    await pair.are_together()
    people = await pair.pages[1].participants()
    assert {name: person["muted"] for name, person in people.items()} == {
        "Ada": True,
        "Grace": False,
    }
    await pair.pages[0].say("after the restart")
    await pair.pages[1].open_panel("chat")
    await until(
        pair.pages[1].page,
        "document.querySelector('#chat-log').textContent.includes('after the restart')",
    )
    await pair.pages[1].page.click("#panel-close")


async def test_a_server_that_is_gone_is_said_in_the_call_and_in_the_lobby(pair: Pair) -> None:
    context = await pair.browser.new_context()
    page = await context.new_page()
    await page.goto(pair.room)
    await page.fill("#name", "Lin")
    await pair.server.end()
    await page.click("#join")
    await page.wait_for_selector("#join-problem:not(:empty)", state="visible")
    assert "cannot be reached" in await page.inner_text("#join-problem")
    await page.screenshot(path=ARTEFACTS / "lobby-server-gone.png")
    await context.close()
    ada, grace = pair.pages
    await until(ada.page, f"{STATUS}.includes('cannot be reached')")
    await ada.leave()  # also without a server
    assert await ada.page.inner_text("#ended-title") == "You left the call"
    await pair.restart()
    await until(grace.page, "window.calliope.phase === 'connected'")
    assert set(await grace.participants()) == {"Grace"}
