"""Every screen of the page, in both themes and four sizes: can everybody use it, and a picture.

The pictures lie in ``artefacts/screens``; a person looks at them. axe-core looks for what keeps
people out (WCAG 2.2 A and AA, and its own good practice). A browser without a graphics card takes a
second for each: ``CALLIOPE_ALBUM=whole`` takes every screen in both themes and four sizes, else
only those that axe-core looks at are taken.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import av
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from calliope.bots.portrait import Portrait
from tests.e2e.page_driver import CallPage, launch, until
from tests.e2e.page_server import serve_page
from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.test_screen import SharedScreen
from tests.e2e.visitor import Camera, Visitor, visitors
from tests.mixer.screens import TextScreen

ARTEFACTS = Path("artefacts/screens")
AXE = Path("node_modules/axe-core/axe.min.js")
OPTIONS = ("--mixer-fps", "5", "--mixer-renditions", "720p:2500")
SIZES = {"narrow": (320, 640), "phone": (390, 844), "laptop": (1280, 800), "large": (2560, 1440)}
THEMES: tuple[Literal["light"], Literal["dark"]] = ("light", "dark")
NARROWEST = 320
WIDTH = "document.documentElement.scrollWidth"
AUDITED = {("phone", "light"), ("laptop", "dark")}
WHOLE = os.environ.pop("CALLIOPE_ALBUM", "") == "whole"  # no option of the server's: it refuses it
PEOPLE = ("Grace Hopper", "中村 さくら", "عمر الخيام", "François Dupont", "Lin", "Олена")
CAMERA = (480, 270)
FRAMES = 8
FRAMES_SHOWN = "document.querySelector('#stage').getVideoPlaybackQuality().totalVideoFrames"
DEVICE_NAMES = """Object.defineProperty(MediaDeviceInfo.prototype, 'label', { get() {
    return { videoinput: 'Built-in camera', audioinput: 'Headset' }[this.kind] ?? 'Loudspeakers';
} });"""
EACH_VIDEO = "for (const video of document.querySelectorAll('video')) %s"
AUDIT = """async () => {
    const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
    const { violations } = await axe.run(document, { runOnly: tags });
    return violations.map(({ id, impact, nodes }) =>
        `${id} (${impact}): ${nodes.map(({ target }) => target.join(' ')).join(', ')}`);
}"""


class PortraitCamera(Camera):
    """A person drawn by code, who moves a little."""

    def __init__(self, seed: int) -> None:
        super().__init__((128, 128, 128))
        self._spacing_s = 0.5  # many of them, and the machine has better to do
        self._frames = portrait(seed)

    async def recv(self) -> av.VideoFrame:
        frame = await super().recv()
        drawn = self._frames[self.count % FRAMES]
        drawn.pts, drawn.time_base = frame.pts, frame.time_base
        return drawn


def portrait(seed: int) -> list[av.VideoFrame]:
    person = Portrait(seed, *CAMERA)
    frames = []
    for turn in range(FRAMES):
        frame = av.VideoFrame(*CAMERA, "yuv420p")
        for plane, drawn in zip(frame.planes, person.draw(turn / FRAMES), strict=True):
            for row in range(plane.height):
                start = row * plane.line_size
                memoryview(plane)[start : start + plane.width] = drawn[row]
        frames.append(frame)
    return frames


def write_camera(path: Path, seed: int) -> None:
    """The same for Chromium's fake camera, as Y4M."""
    with path.open("wb") as file:
        file.write(b"YUV4MPEG2 W%d H%d F4:1 Ip A1:1 C420jpeg\n" % CAMERA)
        for turn in range(FRAMES):
            planes = Portrait(seed, *CAMERA).draw(turn / FRAMES)
            file.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in planes))


@pytest_asyncio.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    write_camera(tmp_path / "ada.y4m", 3)
    flags = (
        f"--use-file-for-fake-video-capture={tmp_path / 'ada.y4m'}",
        "--auto-select-desktop-capture-source=Entire screen",
    )
    async with async_playwright() as playwright:
        browser = await launch(playwright, *flags)
        context = await browser.new_context()
        await context.add_init_script(path=AXE)
        await context.add_init_script(DEVICE_NAMES)
        yield await context.new_page()
        await browser.close()


class Album:
    """Takes the pictures, and asks axe about what is on them."""

    def __init__(self, page: Page) -> None:
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        self._page = page
        self.found: dict[str, list[str]] = {}

    async def take(self, screen: str) -> None:
        """Pictures and verdicts of what is shown now; videos stand still meanwhile.

        A browser without a graphics card that plays 2560x1440 pixels finds no time for a picture.
        """
        await self._page.evaluate(EACH_VIDEO % "video.pause()")
        await self._page.set_viewport_size({"width": NARROWEST, "height": 640})
        assert await self._page.evaluate(WIDTH) <= NARROWEST, screen
        for size, (width, height) in SIZES.items():
            await self._page.set_viewport_size({"width": width, "height": height})
            for theme in THEMES:
                if not WHOLE and (size, theme) not in AUDITED:
                    continue
                await self._page.emulate_media(color_scheme=theme, reduced_motion="reduce")
                await until(self._page, f"document.documentElement.dataset.theme === '{theme}'")
                name = f"{screen}-{size}-{theme}"
                if (size, theme) in AUDITED:
                    self._note(name, await self._page.evaluate(AUDIT))
                await self._page.screenshot(path=ARTEFACTS / f"{name}.png")
        await self._page.set_viewport_size({"width": 1280, "height": 800})
        await self._page.evaluate(EACH_VIDEO % "video.srcObject && void video.play()")

    def _note(self, name: str, violations: list[str]) -> None:
        if violations:
            self.found[name] = violations


async def test_before_and_after_a_call(page: Page) -> None:
    album = Album(page)
    async with serve_page() as url:
        await page.goto(url)
        await page.wait_for_selector("#start", state="visible")
        await page.evaluate("document.body.append(document.createElement('img'))")
        assert "image-alt" in str(await page.evaluate(AUDIT))  # it would be seen
        await page.evaluate("document.body.lastElementChild.remove()")
        await album.take("start")
        await page.fill("#room-input", "blüten")
        await page.click("#room-go")
        await page.wait_for_selector("#start-problem", state="visible")
        await album.take("start-problem")
        await page.goto(f"{url}/409-room_full")
        await until(page, "document.querySelector('#preview').videoWidth > 0")
        await page.fill("#name", "Ada Lovelace")
        await album.take("lobby")
        await page.click("#lobby-settings")
        await page.wait_for_selector("#settings", state="visible")
        await album.take("lobby-settings")
        await page.keyboard.press("Escape")
        await page.click("#join")
        await page.wait_for_selector("#join-problem:not(:empty)", state="visible")
        await page.click("#lobby-camera")
        await until(page, "document.querySelector('#preview-box').dataset.camera === 'false'")
        await album.take("lobby-room-full")
        await page.add_init_script(
            "navigator.mediaDevices.getUserMedia = async () => {"
            " throw new DOMException('', 'NotAllowedError'); }"
        )
        await page.goto(f"{url}/409-room_full")
        await page.wait_for_selector("#device-note", state="visible")
        await album.take("lobby-no-devices")
    assert album.found == {}


async def test_in_a_call(page: Page) -> None:
    album = Album(page)
    async with run_server(*OPTIONS) as server, visitors() as (http, present):
        ada = CallPage(page)
        await ada.enter(f"{server.url}/analytical-engine", "Ada Lovelace")
        await page.wait_for_selector("#alone", state="visible")
        await album.take("alone")
        for seed, name in enumerate(PEOPLE):
            visitor = Visitor(camera=PortraitCamera(seed + 4))
            for transceiver in visitor.pc.getTransceivers():
                transceiver.direction = "sendonly"  # they need not see it
            present.append(visitor)
            await visitor.call(http, f"{server.url}/analytical-engine", name)
        await picture_of(page, len(PEOPLE) + 1)
        await talk(page, present)
        await take_the_call(album, ada)
        if WHOLE:
            await take_the_views(album, ada)
            shared = TextScreen(800, 600).latest()
            assert shared is not None
            screen = Visitor(camera=SharedScreen(shared.y))
            owner = {"Calliope-Session": present[0].secret}
            room = f"{server.url}/analytical-engine"
            present.append(await screen.call(http, room, "", owner, {"source": "screen"}))
            await until(page, "calliope.appliedLayout.view === 'presenter'")
            await until(page, f"{FRAMES_SHOWN} > {await page.evaluate(FRAMES_SHOWN)} + 30")
            await album.take("presenter")
            await screen.close()
        await take_the_end(album, ada, server)
    assert album.found == {}


async def picture_of(page: Page, tiles: int) -> None:
    """Wait until everybody stands in the picture, with a camera that is seen."""
    await until(page, f"calliope.appliedLayout.tiles.length === {tiles}")
    await until(page, f"calliope.participants.filter((each) => each.camera).length === {tiles}")
    await until(page, f"{FRAMES_SHOWN} > {await page.evaluate(FRAMES_SHOWN)} + 16")


async def talk(page: Page, present: list[Visitor]) -> None:
    """A chat, a hand that is raised, one who is muted and one without a camera."""
    grace, sakura, omar, francois, lin, _ = present
    lines: list[tuple[Visitor, str]] = [
        (grace, "Good morning! The slides are at https://calliope.example/slides"),
        (sakura, "おはようございます"),
        (grace, "We start in a minute."),
        (omar, "صباح الخير للجميع"),
        (francois, "Un instant, je cherche mes lunettes."),
    ]
    for number, (visitor, text) in enumerate(lines, 1):
        visitor.send({"type": "chat", "text": text})
        await until(page, f"document.querySelectorAll('.line').length === {number}")
    omar.send({"type": "state", "hand": True, "muted": True})
    lin.send({"type": "state", "camera": False, "muted": True})
    await until(page, "calliope.participants.some((each) => each.hand)")
    await until(page, "calliope.participants.some((each) => !each.camera)")
    await until(page, "!document.querySelector('.toast')")


async def take_the_call(album: Album, ada: CallPage) -> None:
    page = ada.page
    await album.take("call")
    await page.focus("[data-source=camera]:nth-of-type(2) button")
    await page.keyboard.press("Tab")
    await album.take("call-tile-focused")
    await page.keyboard.press("Enter")
    await page.wait_for_selector(".picture[data-pinned]")
    await album.take("pinned")
    await page.keyboard.press("Enter")
    await ada.say("Here I am.")
    await album.take("chat")
    await ada.open_panel("people")
    await page.click(".person:nth-of-type(2) button")
    await album.take("people")
    await page.click("#invite-open")
    await page.wait_for_selector("#invite", state="visible")
    await album.take("invite")
    await page.keyboard.press("Escape")
    await page.click("#panel-close")
    await page.click("#more")
    await album.take("menu")
    await page.click("#call-settings")
    await page.wait_for_selector("#settings", state="visible")
    await album.take("settings")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await page.wait_for_selector("#help", state="visible")
    await album.take("help")
    await page.keyboard.press("Escape")
    await page.click("#more")
    await page.click("#stats-toggle")
    await until(page, "document.querySelectorAll('#stats dd').length > 0")
    await page.click("#mute")
    await page.click("#camera")
    await until(page, "document.querySelector('#camera').dataset.on === 'false'")
    await album.take("statistics-and-all-off")
    await page.click("#more")
    await page.click("#stats-toggle")
    await page.click("#camera")
    await page.click("#screen")
    await until(page, "calliope.appliedLayout.view === 'presenter'")
    await until(page, f"{FRAMES_SHOWN} > {await page.evaluate(FRAMES_SHOWN)} + 8")  # with names
    await album.take("sharing")
    await page.click("#screen")
    await until(page, "calliope.appliedLayout.view === 'grid'")


async def take_the_views(album: Album, ada: CallPage) -> None:
    page = ada.page
    await page.click("#more")
    await page.check("[name=view][value=speaker]", force=True)
    await until(page, "calliope.appliedLayout.view === 'speaker'")
    await page.keyboard.press("Escape")
    await until(page, f"{FRAMES_SHOWN} > {await page.evaluate(FRAMES_SHOWN)} + 16")
    await album.take("speaker")
    await page.click("#more")
    await page.check("[name=view][value=auto]", force=True)
    await page.keyboard.press("Escape")
    await until(page, "calliope.appliedLayout.view === 'grid'")


async def take_the_end(album: Album, ada: CallPage, server: ServerProcess) -> None:
    page = ada.page
    await server.end()
    await until(page, "calliope.phase === 'reconnecting'")
    await until(page, "document.querySelector('#status').textContent.includes('again')")
    await album.take("reconnecting")
    await ada.leave()
    await album.take("ended")
