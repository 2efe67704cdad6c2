"""What one does with the page during a call, against the real server, in Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.fake_devices import UNPLUG
from tests.e2e.page_driver import CallPage, launch, until
from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.visitor import Camera, Microphone, Visitor, visitors

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600"),
)
ADA, OMAR = "Ada Lovelace", "عمر Omar"
HOSTILE = '<img src=x onerror="window.hurt=1"> https://calliope.example/a?b=1&c="><b>x'
REACTIONS = """() => {
    window.reactions = [];  // they rise and are gone
    new MutationObserver((changes) => {
        for (const { addedNodes } of changes)
            for (const node of addedNodes)
                if (node.className === 'reaction') window.reactions.push(node.textContent);
    }).observe(document.querySelector('#tiles'), { childList: true, subtree: true });
}"""
DESKTOP = """() => {
    window.shown = [];
    window.Notification = class extends EventTarget {
        static answer = 'granted';
        static requestPermission = async () => Notification.answer;
        constructor(title, { body }) {
            super();
            window.shown.push([title, body]);
        }
    };
}"""
LATE_ANSWER = """(() => {
    // As on a busy machine: the connection has spoken before the page hears that it is there.
    const { createDataChannel, setRemoteDescription } = RTCPeerConnection.prototype;
    const spoken = new WeakMap();
    RTCPeerConnection.prototype.createDataChannel = function (...how) {
        const channel = createDataChannel.apply(this, how);
        const wanted = new Set(['welcome', 'layout', 'uplink']);
        spoken.set(this, new Promise((resolve) => {
            channel.addEventListener('message', ({ data }) => {
                const { type, layout } = JSON.parse(data);
                wanted.delete(type);
                if (layout) wanted.delete('layout');
                if (wanted.size === 0) resolve();
            });
        }));
        return channel;
    };
    RTCPeerConnection.prototype.setRemoteDescription = async function (answer) {
        await setRemoteDescription.call(this, answer);
        await spoken.get(this);
    };
})()"""
ENCODING = "calliope.pc.getSenders()[1].getParameters().encodings[0]"
SENT_VIEWS = """(() => {
    window.sentViews = [];
    const { send } = RTCDataChannel.prototype;
    RTCDataChannel.prototype.send = function (text) {
        const { type, name } = JSON.parse(text);
        if (type === 'view') window.sentViews.push(name);
        send.call(this, text);
    };
})()"""
PINNED_WIDTH = "(id) => calliope.appliedLayout.tiles.find((tile) => tile.id === id).w"
BOXES = """() => {
    const box = (element) => {
        const { x, y, width, height } = element.getBoundingClientRect();
        return [x, y, width, height];
    };
    return { video: box(document.querySelector('#stage')),
             own: box(document.querySelector('#own-video')),
             stage: box(document.querySelector('#stage-area')) };
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ServerProcess]:
    async with run_server(*OPTIONS) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(browser: Browser, server: ServerProcess) -> AsyncIterator[tuple[CallPage, CallPage]]:
    """Ada and Omar in one room; every test leaves them as it found them."""
    pages = []
    for name in (ADA, OMAR):
        context = await browser.new_context(viewport={"width": 1280, "height": 720})
        pages.append(CallPage(await context.new_page()))
        await pages[-1].enter(f"{server.url}/pair", name)
    for each in pages:
        await until(each.page, "calliope.appliedLayout.tiles.length === 2")
    yield pages[0], pages[1]
    for each in pages:
        await each.page.context.close()


async def own_tile(page: CallPage) -> dict[str, Any]:
    layout = await page.layout()
    you = await page.page.evaluate("calliope.you")
    return next(tile for tile in layout["tiles"] if tile["id"] == you)


async def test_the_own_camera_lies_exactly_over_the_own_tile_whatever_the_window(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, _ = pair
    tile = await own_tile(ada)
    width, height = (await ada.layout())["canvas"]
    for size in ((1280, 720), (901, 777), (360, 740), (1920, 500)):
        await ada.page.set_viewport_size({"width": size[0], "height": size[1]})
        boxes = await ada.page.evaluate(BOXES)
        x, y, w, h = boxes["video"]
        expected = [
            x + tile["x"] / width * w,
            y + tile["y"] / height * h,
            tile["w"] / width * w,
            tile["h"] / height * h,
        ]
        assert boxes["own"] == pytest.approx(expected, abs=0.5)
        # as large as possible: one side fills the stage
        assert min(boxes["stage"][2] - w, boxes["stage"][3] - h) == pytest.approx(0, abs=1)
    await ada.page.set_viewport_size({"width": 1280, "height": 720})
    assert "matrix(-1, 0, 0, 1" in await ada.page.evaluate(
        "getComputedStyle(document.querySelector('#own-video')).transform"
    )


async def test_hostile_chat_stays_text_and_addresses_become_harmless_links(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await ada.say(HOSTILE)
    assert await until(omar.page, "document.querySelector('#chat-unread').textContent") == "1"
    await omar.open_panel("chat")
    assert await omar.lines() == [HOSTILE]
    links = "[...document.querySelectorAll('#chat-log a')].map((a) => [a.href, a.rel, a.target])"
    assert await omar.page.evaluate(links) == [
        ["https://calliope.example/a?b=1&c=", "noopener noreferrer nofollow", "_blank"]
    ]
    assert await omar.page.evaluate("document.querySelector('#chat-log img')") is None
    assert await omar.page.evaluate("window.hurt") is None
    assert await omar.page.inner_text("#chat-unread") == ""
    await ada.page.keyboard.press("Escape")
    await omar.page.keyboard.press("Escape")


async def test_a_hand_and_a_reaction_reach_the_other(pair: tuple[CallPage, CallPage]) -> None:
    ada, omar = pair
    await ada.page.click("#hand")
    await until(omar.page, "calliope.participants.some((each) => each.hand)")
    await ada.page.wait_for_selector("#own-tile .hand-mark", state="visible")
    await omar.page.evaluate(REACTIONS)
    await ada.page.click("#more")
    await ada.page.click(".reaction-button >> nth=1")
    assert await until(omar.page, "window.reactions.join()") == "👏"
    await ada.page.click("#hand")
    await until(omar.page, "!calliope.participants.some((each) => each.hand)")


async def test_a_pinned_tile_fills_the_stage_for_oneself_alone(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    before = await omar.page.evaluate(BOXES)
    await ada.page.click("#own-tile button")
    boxes = await ada.page.evaluate(BOXES)
    x, y, w, h = boxes["own"]
    stage_x, stage_y, stage_w, stage_h = boxes["stage"]
    assert min(stage_w - w, stage_h - h) == pytest.approx(0, abs=1)
    assert (x + w / 2, y + h / 2) == pytest.approx(
        (stage_x + stage_w / 2, stage_y + stage_h / 2), abs=1
    )
    assert await omar.page.evaluate(BOXES) == before
    await ada.page.click("#own-tile button")
    assert (await ada.page.evaluate(BOXES))["own"][2] < w


async def test_a_view_is_chosen_for_oneself_alone(pair: tuple[CallPage, CallPage]) -> None:
    ada, omar = pair
    await ada.page.click("#more")
    await ada.page.check("[name=view][value=speaker]", force=True)
    await until(ada.page, "calliope.appliedLayout.view === 'speaker'")
    assert (await omar.layout())["view"] == "grid"
    await ada.page.check("[name=view][value=auto]", force=True)
    await until(ada.page, "calliope.appliedLayout.view === 'grid'")
    await ada.page.keyboard.press("Escape")


async def test_a_pin_asks_for_the_speaker_view_only_while_it_shows_more(
    browser: Browser, server: ServerProcess
) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 720})
    await context.add_init_script(SENT_VIEWS)
    ada = CallPage(await context.new_page())
    async with visitors() as (http, present):
        grace, lin = (
            Visitor(camera=Camera((90, 90, 90)), microphone=Microphone(600)) for _ in "ab"
        )
        present += [grace, lin]
        await grace.call(http, f"{server.url}/pins", "Grace")
        await lin.call(http, f"{server.url}/pins", "Lin")
        lin.send({"type": "state", "muted": True})
        await ada.enter(f"{server.url}/pins", ADA)
        await ada.page.click("#mute")
        await until(ada.page, "calliope.appliedLayout.tiles.length === 3")
        await until(
            ada.page, f"document.querySelector('[data-tile-id={grace.you}][data-speaking]')"
        )
        pinned = (
            f"document.querySelector('[data-tile-id={grace.you}] button').ariaPressed === 'true'"
        )
        await ada.page.click(f"[data-tile-id={grace.you}] button")
        small = (await ada.page.evaluate(PINNED_WIDTH, grace.you)) + 1
        for view, silent, loud in (("speaker", grace, lin), ("grid", lin, grace)):
            await until(ada.page, f"calliope.appliedLayout.view === '{view}' && {pinned}")
            width = await ada.page.evaluate(PINNED_WIDTH, grace.you)
            assert (width > small) == (view == "speaker")
            silent.send({"type": "state", "muted": True})
            loud.send({"type": "state", "muted": False})
        await until(ada.page, f"calliope.appliedLayout.view === 'speaker' && {pinned}")
        await ada.page.click(f"[data-tile-id={grace.you}] button")
        await until(ada.page, "calliope.appliedLayout.view === 'grid'")
        assert not await ada.page.evaluate(pinned)
        # once for each reason, and no more
        assert await ada.page.evaluate("sentViews") == ["speaker", "auto", "speaker", "auto"]
    await context.close()


async def test_a_shared_screen_is_shown_large_but_not_to_its_owner(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await ada.page.click("#screen")
    for each in pair:
        await until(each.page, "calliope.appliedLayout.view === 'presenter'")
    screen = "[data-source=screen]"
    assert await ada.page.locator(f"{screen} .own-screen").count() == 1
    assert await omar.page.locator(f"{screen} .own-screen").count() == 0
    tile = next(tile for tile in (await omar.layout())["tiles"] if tile["source"] == "screen")
    assert tile["fit"] == "contain"
    await ada.page.click(f"{screen} .own-screen button")
    for each in pair:
        await until(each.page, "calliope.appliedLayout.view === 'grid'")


async def test_keys_alone_mute_talk_and_open_the_chat(pair: tuple[CallPage, CallPage]) -> None:
    ada, omar = pair
    muted = "calliope.participants.some((each) => each.muted)"
    await ada.page.evaluate("document.querySelector('#stage-area').focus()")
    await ada.page.keyboard.press("m")
    await until(omar.page, muted)
    await ada.page.keyboard.down(" ")
    await until(omar.page, f"!{muted}")
    await ada.page.keyboard.up(" ")
    await until(omar.page, muted)
    await ada.page.keyboard.press("m")
    await until(omar.page, f"!{muted}")
    await ada.page.keyboard.press("c")
    await ada.page.keyboard.type("m")
    assert await ada.page.input_value("#chat-input") == "m"
    assert not await omar.page.evaluate(muted)
    await ada.page.fill("#chat-input", "")
    await ada.page.keyboard.press("Escape")


async def test_the_list_says_who_is_here_and_how_loud_one_hears_them(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, _ = pair
    await ada.open_panel("people")
    rows = ada.page.locator("#people-list .person")
    assert await rows.locator("bdi").all_text_contents() == [ADA, OMAR]
    assert await rows.nth(0).locator("button").count() == 0
    await rows.nth(1).locator("button").click()
    assert await rows.nth(1).locator("input").get_attribute("aria-label") == f"Volume of {OMAR}"
    await ada.page.keyboard.press("ArrowLeft")
    assert await rows.nth(1).locator("input").input_value() == "0.9"
    await ada.page.keyboard.press("ArrowRight")
    await ada.page.click("#panel-close")


async def test_a_camera_that_is_pulled_out_is_survived_and_another_is_taken(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    camera = f"calliope.participants.find(({{ name }}) => name === '{ADA}').camera"
    await ada.page.click("#camera")
    await until(omar.page, f"!{camera}")
    await ada.page.evaluate(UNPLUG)
    await ada.page.click("#camera")
    await until(omar.page, camera)
    await ada.page.evaluate("unplug()")
    await until(omar.page, f"!{camera}")
    assert await ada.page.get_attribute("#camera", "data-trouble") == ""
    await until(ada.page, "document.querySelector('#toasts').textContent.includes('unplugged')")
    # plugged in again, or another one: it is taken without asking
    await ada.page.evaluate("navigator.mediaDevices.dispatchEvent(new Event('devicechange'))")
    await until(omar.page, camera)
    assert await ada.page.get_attribute("#camera", "data-trouble") is None
    assert await ada.page.evaluate("calliope.phase") == "connected"


async def test_messages_are_shown_outside_the_page_only_on_wish(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await omar.page.evaluate(DESKTOP)
    await omar.page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
    said = "document.querySelectorAll('#chat-log .line-text').length"
    before = await omar.page.evaluate(said)
    await ada.say("Nobody wished for this one")
    await until(omar.page, f"{said} === {before + 1}")
    await omar.page.click("#more")
    await omar.page.click("#call-settings")
    assert not await omar.page.is_checked("#notify")
    await omar.page.click("#notify")
    await until(omar.page, "localStorage.getItem('calliope.notify') === 'yes'")
    await ada.say("Hello <b>Omar</b>")
    shown = await until(omar.page, "window.shown.length && window.shown")
    assert shown == [[f"Message from {ADA}", "Hello <b>Omar</b>"]]
    await omar.page.evaluate("Notification.answer = 'denied'")
    for _ in range(2):
        await omar.page.click("#notify")
    await omar.page.wait_for_selector("#notify-problem", state="visible")
    assert not await omar.page.is_checked("#notify")
    await omar.page.keyboard.press("Escape")
    await ada.page.keyboard.press("Escape")


async def test_who_closes_the_page_is_gone_at_once(
    browser: Browser, server: ServerProcess, pair: tuple[CallPage, CallPage]
) -> None:
    """Not after the 60 s for which the seat of a lost connection is kept."""
    ada, _ = pair
    context = await browser.new_context()
    lin = CallPage(await context.new_page())
    await lin.enter(f"{server.url}/pair", "Lin")
    await until(ada.page, "calliope.participants.length === 3")
    await lin.page.close()
    await until(ada.page, "calliope.participants.length === 2", timeout_s=25)
    await until(ada.page, "calliope.appliedLayout.tiles.length === 2")
    await context.close()


async def test_after_a_restart_the_call_comes_back_by_itself_also_where_the_server_is_quicker(
    browser: Browser, server: ServerProcess
) -> None:
    """Nothing is lost of what the server says before the page is ready to hear it."""
    context = await browser.new_context()
    await context.add_init_script(LATE_ANSWER)
    page = CallPage(await context.new_page())
    await page.enter(f"{server.url}/restart", ADA)
    await until(page.page, f"{ENCODING}.maxBitrate > 0")
    await page.page.click("#more")
    await page.page.check("[name=view][value=speaker]", force=True)
    await until(page.page, "calliope.appliedLayout.view === 'speaker'")
    await page.page.keyboard.press("Escape")
    await page.say("Before")
    await until(page.page, "document.querySelectorAll('#chat-log .line').length === 1")
    await server.end()  # the last test here: nobody needs it any more
    await until(page.page, "calliope.phase === 'reconnecting'", timeout_s=30)
    await page.page.wait_for_selector("#status", state="visible")
    async with run_server(*OPTIONS, port=server.port):
        await until(page.page, "calliope.phase === 'connected'", timeout_s=30)
        await until(page.page, "document.querySelector('#status').hidden")
        # the newest layout is what is shown, in the view that was chosen before
        await until(page.page, "calliope.lastLayout.view === 'speaker'")
        await until(page.page, "calliope.appliedLayout.serial === calliope.lastLayout.serial")
        await until(page.page, "calliope.participants.length === 1")
        await until(page.page, f"{ENCODING}.maxBitrate > 0")
        await page.say("After")
        await until(page.page, "document.querySelectorAll('#chat-log .line').length === 2")
        assert await page.lines() == ["Before", "After"]
        await page.leave()
    await context.close()
