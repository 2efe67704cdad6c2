"""What makes the page pleasant: the living picture, the devices, the voice, the small reminders.

One pair in a small picture; every test leaves them as it found them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.e2e.page_driver import CallPage, launch, until
from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.visitor import Camera, Visitor, visitors

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPTIONS = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600"),
)
ADA, OMAR = "Ada Lovelace", "عمر Omar"
WATCH = """(() => {
    // What is asked of the browser, what is sent, and a voice that never pauses.
    window.asked = { media: [], screens: [], sent: [], pip: [], awake: 0 };
    const { mediaDevices } = navigator;
    const get = mediaDevices.getUserMedia.bind(mediaDevices);
    mediaDevices.getUserMedia = async (wanted) => {
        asked.media.push(wanted);
        const stream = await get(wanted);
        if (!wanted.audio || !window.voice) return stream;
        const context = new AudioContext();
        const tone = new OscillatorNode(context, { frequency: 220 });
        const out = context.createMediaStreamDestination();
        tone.connect(out);
        tone.start();
        for (const track of stream.getAudioTracks()) {
            stream.removeTrack(track);
            track.stop();
        }
        stream.addTrack(out.stream.getAudioTracks()[0]);
        return stream;
    };
    const show = mediaDevices.getDisplayMedia.bind(mediaDevices);
    mediaDevices.getDisplayMedia = async (wanted) => {
        const stream = await show(wanted);
        asked.screens.push({ wanted, stream });
        return stream;
    };
    const { send } = RTCDataChannel.prototype;
    RTCDataChannel.prototype.send = function (text) {
        asked.sent.push(JSON.parse(text));
        send.call(this, text);
    };
    HTMLVideoElement.prototype.requestPictureInPicture = async function () {
        asked.pip.push(this.id);
    };
    navigator.wakeLock.request = async () => {
        asked.awake += 1;
        const lock = { released: false };
        lock.release = async () => {
            asked.awake -= 1;
            lock.released = true;
        };
        return lock;
    };
    if (window.slow) {
        const { getStats } = RTCPeerConnection.prototype;
        RTCPeerConnection.prototype.getStats = async function () {
            const report = new Map(await getStats.call(this));
            for (const [id, each] of report) {
                if (each.type === 'candidate-pair')
                    report.set(id, { ...each, currentRoundTripTime: window.slow });
            }
            return report;
        };
    }
})()"""
EACH_FRAME = """() => {
    // At every frame of the picture: which layout is applied, which should be, and where the own
    // camera lies, in canvas pixels.
    window.frames = [];
    const video = document.querySelector('#stage');
    const look = (_now, { rtpTimestamp }) => {
        if (window.frames) video.requestVideoFrameCallback(look);
        const { appliedLayout: applied, lastLayout: last, you } = calliope;
        const tile = applied.tiles.find(({ id, source }) => id === you && source === 'camera');
        const own = document.querySelector('#own-video');
        const box = own?.getBoundingClientRect();
        const whole = video.getBoundingClientRect();
        const scale = whole.width / applied.canvas[0];
        window.frames?.push({
            serial: applied.serial,
            early: (applied.pts - rtpTimestamp | 0) > 90,
            late: (last.pts - rtpTimestamp | 0) <= 90 && last.serial !== applied.serial,
            off: tile && box ? Math.max(...[
                box.left - whole.left - tile.x * scale, box.top - whole.top - tile.y * scale,
                box.width - tile.w * scale, box.height - tile.h * scale,
            ].map(Math.abs)) : Number(Boolean(tile) !== Boolean(box)) * 1000,
        });
    };
    video.requestVideoFrameCallback(look);
}"""
OWN_IN_STAGE = """() => {
    const { appliedLayout: { tiles, canvas }, you } = calliope;
    const tile = tiles.find(({ id }) => id === you);
    const whole = document.querySelector('#stage').getBoundingClientRect();
    const box = document.querySelector('#own-video').getBoundingClientRect();
    const stage = document.querySelector('#stage-area').getBoundingClientRect();
    const scale = whole.width / canvas[0];
    return { full: [stage.width === innerWidth, stage.height === innerHeight],
             fits: Math.min(stage.width - whole.width, stage.height - whole.height),
             off: [box.left - whole.left - tile.x * scale, box.top - whole.top - tile.y * scale,
                   box.width - tile.w * scale, box.height - tile.h * scale] };
}"""
TOASTS = "document.querySelector('#toasts').textContent"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright, "--auto-select-desktop-capture-source=Entire screen")
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ServerProcess]:
    async with run_server(*OPTIONS) as server:
        yield server


async def new_page(browser: Browser, before: str = "", *, touch: bool = False) -> CallPage:
    context = await browser.new_context(viewport={"width": 1280, "height": 720}, has_touch=touch)
    await context.add_init_script(before + WATCH)
    return CallPage(await context.new_page())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(browser: Browser, server: ServerProcess) -> AsyncIterator[tuple[CallPage, CallPage]]:
    """Ada, whose voice never pauses, and Omar, who has a screen to touch."""
    ada = await new_page(browser, "window.voice = true;")
    omar = await new_page(browser, touch=True)
    await ada.enter(f"{server.url}/alive", ADA)
    await omar.enter(f"{server.url}/alive", OMAR)
    for each in (ada, omar):
        await until(each.page, "calliope.appliedLayout.tiles.length === 2")
    yield ada, omar
    for each in (ada, omar):
        await each.page.context.close()


async def sent(page: CallPage, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await page.page.evaluate(
        "(kind) => asked.sent.filter(({ type }) => type === kind)", kind
    )
    return found


async def test_the_own_camera_stays_in_its_tile_frame_by_frame_as_layouts_and_window_change(
    pair: tuple[CallPage, CallPage], server: ServerProcess
) -> None:
    """A layout is applied with the frame that carries it, not before and not after."""
    ada, _ = pair
    await ada.page.evaluate(EACH_FRAME)
    async with visitors() as (http, present):
        for number, width in enumerate((1100, 380, 1280), 3):
            lin = Visitor(camera=Camera((90, 90, 90)))
            present.append(await lin.call(http, f"{server.url}/alive", f"Lin {number}"))
            await ada.page.set_viewport_size({"width": width, "height": 720})
            await until(ada.page, f"calliope.appliedLayout.tiles.length === {number}")
        await ada.page.click("#more")
        for view in ("speaker", "auto"):
            await ada.page.check(f"[name=view][value={view}]", force=True)
            shown = "grid" if view == "auto" else view
            await until(ada.page, f"calliope.appliedLayout.view === '{shown}'")
        await ada.page.keyboard.press("Escape")
    await until(ada.page, "calliope.appliedLayout.tiles.length === 2")
    frames = await ada.page.evaluate("(() => { const all = frames; frames = null; return all; })()")
    assert len({frame["serial"] for frame in frames}) >= 6
    assert [frame for frame in frames if frame["early"] or frame["late"]] == []
    assert max(frame["off"] for frame in frames) < 0.5


async def test_a_double_click_and_a_key_fill_the_screen_and_the_own_tile_follows(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, _ = pair
    other = "[data-source=camera]:not(#own-tile) .tile-button"
    for twice in (True, False):
        await (ada.page.dblclick(other) if twice else ada.page.keyboard.press("f"))
        await until(ada.page, "document.fullscreenElement?.id === 'stage-area'")
        await until(ada.page, f"({OWN_IN_STAGE})().full.every(Boolean)")
        found = await ada.page.evaluate(OWN_IN_STAGE)
        assert found["fits"] == pytest.approx(0, abs=1)
        assert found["off"] == pytest.approx([0, 0, 0, 0], abs=0.5)
        await ada.page.keyboard.press("f")
        await until(ada.page, "document.fullscreenElement === null")
    assert await ada.page.get_attribute("#picture", "data-pinned") is None


async def test_a_tap_enlarges_a_tile_and_another_shows_all_again(
    pair: tuple[CallPage, CallPage],
) -> None:
    _, omar = pair
    await omar.page.tap("[data-source=camera]:not(#own-tile) .tile-button")
    await until(omar.page, "'pinned' in document.querySelector('#picture').dataset")
    await omar.page.tap(".tile:not([inert]) .tile-button")
    await until(omar.page, "!('pinned' in document.querySelector('#picture').dataset)")


async def test_the_picture_goes_into_a_window_of_its_own(pair: tuple[CallPage, CallPage]) -> None:
    ada, _ = pair
    await ada.page.click("#more")
    await ada.page.click("#pip")
    assert await ada.page.evaluate("asked.pip") == ["stage"]


async def test_who_speaks_has_a_ring_and_who_talks_while_muted_is_told(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await until(ada.page, "document.querySelector('#own-tile').matches('[data-speaking]')")
    ring = "getComputedStyle(document.querySelector('#own-tile'), '::after').borderTopWidth"
    assert await ada.page.evaluate(f"parseFloat({ring})") >= 2
    you = await ada.page.evaluate("calliope.you")
    await until(
        omar.page, f"document.querySelector('.person[data-person-id={you}][data-speaking]')"
    )
    await ada.page.click("#mute")
    await until(ada.page, f"{TOASTS}.includes('You are muted')")
    await until(omar.page, f"!document.querySelector('[data-tile-id={you}][data-speaking]')")
    await ada.page.click("#mute")
    await until(omar.page, f"document.querySelector('[data-tile-id={you}][data-speaking]')")


async def test_one_screen_is_shared_with_its_sound_as_sharp_as_text_wants_it(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await ada.page.keyboard.press("s")
    await until(omar.page, "calliope.appliedLayout.view === 'presenter'")
    wanted = await ada.page.evaluate("asked.screens[0].wanted")
    assert wanted["audio"]
    assert wanted["video"]["height"]["max"] > 720
    hint = "asked.screens[0].stream.getVideoTracks()[0].contentHint"
    assert await ada.page.evaluate(hint) == "detail"
    # the browser's own "stop sharing"
    await ada.page.evaluate(
        "(() => { const [track] = asked.screens[0].stream.getVideoTracks();"
        " track.stop(); track.dispatchEvent(new Event('ended')); })()"
    )
    await until(omar.page, "calliope.appliedLayout.view === 'grid'")
    assert await ada.page.get_attribute("#screen", "data-on") == "false"


async def test_settings_say_that_one_is_heard_and_treat_the_voice_as_wished(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, omar = pair
    await ada.page.click("#more")
    await ada.page.click("#call-settings")
    await until(ada.page, "document.querySelector('#level')?.value > 0.3")
    await until(ada.page, "document.querySelector('#level-text').textContent.includes('hears you')")
    for box, name in (
        ("noise", "noiseSuppression"),
        ("echo", "echoCancellation"),
        ("gain", "autoGainControl"),
    ):
        assert await ada.page.is_checked(f"#{box}")
        await ada.page.click(f"#{box}")
        await until(ada.page, f"asked.media.at(-1).audio.{name} === false")
    stored = await ada.page.evaluate("JSON.parse(localStorage.getItem('calliope.devices'))")
    assert not stored["noiseSuppression"]
    assert not stored["echoCancellation"]
    # another microphone and camera, in the midst of the call, and remembered
    for kind in ("camera", "microphone"):
        ids = f"[...document.querySelectorAll('#{kind}-select option')].map(({{ value }}) => value)"
        other = (await ada.page.evaluate(ids))[-1]
        await ada.page.select_option(f"#{kind}-select", other)
        media = "video" if kind == "camera" else "audio"
        chosen = f"asked.media.some((each) => each.{media}?.deviceId?.ideal === '{other}')"
        await until(ada.page, chosen)
        await until(
            ada.page, f"JSON.parse(localStorage.getItem('calliope.devices')).{kind} === '{other}'"
        )
    speakers = ada.page.locator("#speaker-select option")
    other = await speakers.last.get_attribute("value")
    await ada.page.select_option("#speaker-select", other)
    await until(ada.page, f"document.querySelector('#sound-out').sinkId === '{other}'")
    await until(ada.page, f"localStorage.getItem('calliope.speaker') === '{other}'")
    await ada.page.click("#hide-self")
    await until(ada.page, "document.querySelector('.own-cover').checkVisibility()")
    await ada.page.click("#hide-self")
    await until(ada.page, "!document.querySelector('.own-cover').checkVisibility()")
    await ada.page.keyboard.press("Escape")
    await until(omar.page, "calliope.participants.every((each) => each.camera && !each.muted)")


async def test_chat_lines_stand_under_names_and_times_and_wait_for_who_comes_late(
    browser: Browser, server: ServerProcess, pair: tuple[CallPage, CallPage]
) -> None:
    ada, omar = pair
    await ada.open_panel("chat")
    await ada.page.type("#chat-input", "One line,")
    await ada.page.keyboard.press("Shift+Enter")
    await ada.page.type("#chat-input", "and another")
    await ada.page.keyboard.press("Enter")
    assert await ada.page.input_value("#chat-input") == ""
    await omar.say("مرحبا")
    late = await new_page(browser)
    await late.enter(f"{server.url}/alive", "Lin")
    await late.open_panel("chat")
    assert await late.lines() == ["One line,\nand another", "مرحبا"]
    names = late.page.locator(".line-name")
    assert await names.all_text_contents() == [ADA, OMAR]
    times = (
        "[...document.querySelectorAll('.line time')].map(({ dateTime }) => Date.parse(dateTime))"
    )
    ages = await late.page.evaluate(f"{times}.map((at) => Date.now() - at)")
    assert all(-5_000 < age < 120_000 for age in ages)
    assert await late.page.locator(".line-text").last.get_attribute("dir") == "auto"
    assert (
        await late.page.evaluate(
            "getComputedStyle(document.querySelectorAll('.line-text')[1]).direction"
        )
        == "rtl"
    )
    # a name that runs from the right does not turn the sentence around it
    await until(late.page, "calliope.participants.length === 3")
    await omar.page.click("#hand")
    await until(late.page, "calliope.participants.some(({ hand }) => hand)")
    await omar.page.click("#hand")
    await late.leave()
    await until(ada.page, f"{TOASTS}.includes('\\u2068Lin\\u2069 left')")
    await late.page.context.close()
    for each in (ada, omar):
        await each.page.click("#panel-close")


async def test_a_volume_is_told_to_the_server_which_takes_it_and_statistics_are_its_own(
    pair: tuple[CallPage, CallPage],
) -> None:
    ada, _ = pair
    await ada.open_panel("people")
    await ada.page.click("#people-list .person button")
    await ada.page.keyboard.press("Home")
    other = await ada.page.evaluate(
        "calliope.participants.find(({ id }) => id !== calliope.you).id"
    )
    assert await sent(ada, "volume") == [{"type": "volume", "id": other, "gain": 0}]
    await ada.page.keyboard.press("ArrowRight")
    assert (await sent(ada, "volume"))[-1]["gain"] == 0.1
    await ada.page.click("#panel-close")
    await ada.page.click("#more")
    await ada.page.click("#stats-toggle")
    rows = "[...document.querySelectorAll('#stats dd')].map(({ textContent }) => textContent)"
    await until(ada.page, f"{rows}[1] === '360p' && /^≈ [1-9][0-9]* ms$/.test({rows}.at(-1))")
    assert (await ada.page.evaluate(rows))[0].startswith("640 × 360")
    await ada.page.click("#more")
    await ada.page.click("#stats-toggle")
    assert await ada.page.is_hidden("#stats")
    assert [message["on"] for message in await sent(ada, "stats")] == [True, False]


async def test_by_keys_alone_one_joins_muted_in_reads_the_keys_chooses_a_view_and_leaves(
    browser: Browser, server: ServerProcess
) -> None:
    page = await new_page(browser, "window.slow = 0.5;")
    await page.page.emulate_media(reduced_motion="reduce")
    await page.page.goto(f"{server.url}/keys")
    await until(page.page, "document.querySelector('#preview').videoWidth > 0")
    assert await page.page.evaluate("document.activeElement.id") == "name"
    await page.page.keyboard.type("Lin")
    await tab_to(page, "lobby-mute", "Shift+Tab")
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert await page.page.evaluate(outline) == "solid"
    await page.page.keyboard.press("Enter")
    await until(page.page, "document.querySelector('#lobby-mute').dataset.on === 'false'")
    await tab_to(page, "join")
    await page.page.keyboard.press("Enter")
    await until(page.page, "calliope.participants.length === 1 && calliope.appliedLayout !== null")
    assert await page.page.evaluate("calliope.participants[0].muted")
    assert await page.page.evaluate("asked.awake") == 1

    await page.page.keyboard.press("?")
    await page.page.wait_for_selector("#help", state="visible")
    keys = await page.page.locator("#help-keys kbd").all_text_contents()
    buttons = await page.page.evaluate(
        "[...document.querySelectorAll('[aria-keyshortcuts]')]"
        ".map((each) => each.getAttribute('aria-keyshortcuts').toUpperCase())"
    )
    assert set(keys) == {*buttons, "Space"}
    await page.page.keyboard.press("Escape")

    await tab_to(page, "more")
    await page.page.keyboard.press("Enter")
    await until(page.page, "document.activeElement.closest('#menu')")
    await tab_to(page, "", match="[name=view]")
    for _ in range(2):
        await page.page.keyboard.press("ArrowDown")
    await until(page.page, "calliope.appliedLayout.view === 'speaker'")
    await page.page.keyboard.press("Escape")
    assert await page.page.evaluate("document.activeElement.id") == "more"

    # half a second to the server and back, as the browser says: a quiet sign, the reason in words
    await page.page.wait_for_selector("#quality", state="visible")
    assert "500 ms" in (await page.page.get_attribute("#quality", "aria-label") or "")
    await page.page.keyboard.press("l")
    await page.page.wait_for_selector(".toast")
    moving = "getComputedStyle(document.querySelector('.toast')).animationName"
    assert await page.page.evaluate(moving) == "none"

    await tab_to(page, "leave")
    await page.page.keyboard.press("Enter")
    await page.page.wait_for_selector("#ended-screen", state="visible")
    assert await page.page.evaluate("document.activeElement.id") == "rejoin"
    await until(page.page, "asked.awake === 0")
    await page.page.context.close()


async def tab_to(page: CallPage, id: str, key: str = "Tab", match: str = "") -> None:
    """Press Tab until it is there: a person's way, in which nothing may be left out."""
    for _ in range(40):
        await page.page.keyboard.press(key)
        if await page.page.evaluate(
            "(css) => document.activeElement.matches(css)", match or f"#{id}"
        ):
            return
    raise AssertionError(f"the Tab key never came to {match or id}")
