"""The core of a call in Firefox: it sees, is seen, is heard, chats and leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.e2e.fake_devices import UNPLUG
from tests.e2e.firefox import FAKE_PITCH_HZ, FirefoxPage, firefox
from tests.e2e.server_process import ServerProcess, run_server
from tests.e2e.visitor import Camera, Microphone, Visitor, until, visitors

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARTEFACTS = Path("artefacts/screens")
ARTEFACTS.mkdir(parents=True, exist_ok=True)
OPTIONS = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:600"),
)
GREEN = (120, 60, 70)
GREEN_RGB = (28, 194, 0)  # BT.601, limited range
ENTER, ESCAPE = "\ue007", "\ue00c"
HOSTILE = '<img src=x onerror="window.hurt=1">'
STAGE = "document.querySelector('#stage-area').focus()"
VIEW = "calliope.appliedLayout.view"
# Headless, Firefox has no screen to share; what is captured is all that is not its own here.
SCREEN = """(() => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 640, height: 360 });
    const pen = canvas.getContext('2d');
    setInterval(() => {
        pen.fillStyle = `hsl(${Date.now() / 20 % 360} 80% 50%)`;
        pen.fillRect(0, 0, 640, 360);
    }, 60);
    navigator.mediaDevices.getDisplayMedia = async () => canvas.captureStream(15);
})()"""
CAMERA = "document.querySelector('#own-video').srcObject?.getVideoTracks()[0]"

PIXEL = """(async () => {
    const { tiles, canvas } = window.calliope.appliedLayout;
    const tile = tiles.find(({ id }) => id !== window.calliope.you);
    const video = document.querySelector('#stage');
    const scale = video.videoWidth / canvas[0];
    const drawn = new OffscreenCanvas(video.videoWidth, video.videoHeight).getContext('2d');
    drawn.drawImage(video, 0, 0);
    const [x, y] = [(tile.x + tile.w / 2) * scale, (tile.y + tile.h / 3) * scale];
    return [...drawn.getImageData(x, y, 1, 1).data.slice(0, 3)];
})()"""
ENERGY = """(async () => {
    const stats = [...(await window.calliope.pc.getStats()).values()];
    return stats.find(({ type, kind }) => type === 'inbound-rtp' && kind === 'audio')
        ?.totalAudioEnergy ?? 0;
})()"""
OWN_TILE = """(() => {
    const stage = document.querySelector('#stage').getBoundingClientRect();
    const own = document.querySelector('[data-tile-id] video');
    const box = own.closest('[data-tile-id]').getBoundingClientRect();
    const layout = window.calliope.appliedLayout;
    const tile = layout.tiles.find(({ id }) => id === window.calliope.you);
    const scale = stage.width / layout.canvas[0];
    return [box.left - stage.left - tile.x * scale, box.top - stage.top - tile.y * scale,
            box.width - tile.w * scale, box.height - tile.h * scale].map(Math.abs);
})()"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[ServerProcess]:
    async with run_server(*OPTIONS) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FirefoxPage]:
    async with firefox(tmp_path_factory.mktemp("firefox")) as fox:
        yield fox


@pytest_asyncio.fixture(loop_scope="module")
async def fox(browser: FirefoxPage, server: ServerProcess) -> FirefoxPage:
    """A page that remembers nothing of the test before."""
    await browser.goto(server.url)
    await browser.evaluate("localStorage.clear()")
    return browser


async def shows_green(fox: FirefoxPage) -> None:
    """Wait until the other one's tile, in the pixels received, is the green that was sent."""

    async def distance() -> int:
        pixel: list[int] = await fox.evaluate(PIXEL)
        return max(abs(a - b) for a, b in zip(pixel, GREEN_RGB, strict=True))

    found: list[Any] = []
    for _ in range(200):
        found.append(await distance())
        if found[-1] < 30:
            return
    raise AssertionError(f"the tile never became green: {found[-5:]}")


async def test_a_call_between_firefox_and_another_client(
    fox: FirefoxPage, server: ServerProcess
) -> None:
    async with visitors() as (http, present):
        ada = Visitor(camera=Camera(GREEN), microphone=Microphone(900))
        present.append(ada)
        await ada.call(http, f"{server.url}/fox", "Ada")
        await fox.goto(f"{server.url}/fox")
        await fox.until("document.querySelector('#preview').videoWidth > 0")
        await fox.click("#name")
        await fox.type("Reynard")
        await fox.click("#join")
        await fox.until("window.calliope.appliedLayout?.tiles.length === 2")
        await fox.until("document.querySelector('#status').hidden")
        await ada.meets("Ada", "Reynard")

        await shows_green(fox)
        assert max(await fox.evaluate(OWN_TILE)) < 1.5
        colours: set[tuple[int, int, int] | None] = set()

        def wanders() -> bool:  # the fake camera, and not a disc with initials
            colours.add(ada.colour_of("Reynard"))
            return len(colours) > 8

        await until(wanders)
        await until(lambda: ada.hears(FAKE_PITCH_HZ))
        energy = await fox.evaluate(ENERGY)
        await fox.until(f"{ENERGY}.then((now) => now > {energy} + 0.001)")

        await fox.click("#chat-toggle")
        await fox.click("#chat-input")
        await fox.type("Hello <b>Ada</b>" + ENTER)
        await until(lambda: (ada.last("chat") or {}).get("text") == "Hello <b>Ada</b>")
        ada.send({"type": "chat", "text": "Hello Reynard"})
        log = "document.querySelector('#chat-log').textContent"
        await fox.until(f"{log}.includes('Hello Reynard') && {log}.includes('<b>Ada</b>')")
        await fox.screenshot(ARTEFACTS / "firefox.png")

        await fox.click("#mute")
        await until(lambda: any(m["participant"]["muted"] for m in ada.all("updated")))
        await fox.click("#leave")
        await fox.until("!document.querySelector('#ended-screen').hidden")
        await ada.meets("Ada")


def seen_of(visitor: Visitor, name: str) -> dict[str, Any]:
    """What this visitor was told last of the one called ``name``."""
    known = [m["participant"] for m in visitor.messages if "participant" in m]
    return next((each for each in reversed(known) if each["name"] == name), {})


async def test_a_call_in_firefox_by_keys_and_mouse_at_the_size_of_a_phone_and_larger(
    fox: FirefoxPage, server: ServerProcess
) -> None:
    await fox.resize(360, 740)
    async with visitors() as (http, present):
        ada = Visitor(camera=Camera(GREEN))
        present.append(ada)
        await ada.call(http, f"{server.url}/fox", "Ada")
        await fox.goto(f"{server.url}/fox")
        await fox.until("document.activeElement.id === 'name'")
        await fox.until("document.querySelector('#preview').videoWidth > 0")
        await fox.type("Reynard" + ENTER)
        await fox.until("calliope.appliedLayout?.tiles.length === 2")
        await fox.until("document.querySelector('#status').hidden")
        assert await fox.evaluate("document.documentElement.scrollWidth") <= 360
        plates = "[...document.querySelectorAll('.plate')].map((plate) => plate.innerText)"
        await fox.until(f"{plates}.sort().join() === 'Ada,Reynard'")

        await fox.resize(1000, 700)
        await fox.evaluate(STAGE)
        await fox.type("m")
        await until(lambda: bool(seen_of(ada, "Reynard").get("muted")))
        await fox.type("m")
        await until(lambda: not seen_of(ada, "Reynard")["muted"])
        await fox.type("h")
        await until(lambda: bool(seen_of(ada, "Reynard")["hand"]))

        await fox.type("c" + HOSTILE + ENTER)
        await until(lambda: (ada.last("chat") or {}).get("text") == HOSTILE)
        ada.send({"type": "chat", "text": HOSTILE})
        await fox.until("document.querySelectorAll('.line-text').length === 2")
        lines = "[...document.querySelectorAll('.line-text')].map((line) => line.textContent)"
        assert await fox.evaluate(lines) == [HOSTILE, HOSTILE]
        assert await fox.evaluate("document.querySelector('#chat-log img')") is None
        assert await fox.evaluate("window.hurt") is None
        await fox.type(ESCAPE)
        await fox.until("document.querySelector('#panel').hidden")

        await fox.click("#tiles button")
        await fox.until("'pinned' in document.querySelector('#picture').dataset")
        await fox.click(".tile:not([inert]) button")
        await fox.until("!('pinned' in document.querySelector('#picture').dataset)")

        await fox.click("#more")
        for chosen, shown in (("speaker", "speaker"), ("auto", "grid")):
            await fox.click(f"[name=view][value={chosen}] + span")
            await fox.until(f"{VIEW} === '{shown}'")
        await fox.type(ESCAPE)

        await fox.evaluate(SCREEN)
        await fox.evaluate(STAGE)
        await fox.type("s")
        await fox.until(f"{VIEW} === 'presenter' && document.querySelector('.own-screen') !== null")
        await until(lambda: (ada.layout() or {})["view"] == "presenter")
        await fox.type("s")
        await fox.until(f"{VIEW} === 'grid'")


async def test_in_firefox_another_camera_and_a_restart_are_survived(
    fox: FirefoxPage, server: ServerProcess
) -> None:
    """The last test here: the restarted server is another one."""
    async with visitors() as (http, present):
        ada = Visitor(camera=Camera(GREEN))
        present.append(ada)
        await ada.call(http, f"{server.url}/fox", "Ada")
        await fox.goto(f"{server.url}/fox")
        await fox.until("document.querySelector('#preview').videoWidth > 0")
        await fox.click("#join")
        await fox.until("calliope.appliedLayout?.tiles.length === 2")
        await fox.until(f"{CAMERA}?.readyState === 'live'")

        before = await fox.evaluate(f"{CAMERA}.id")
        await fox.click("#more")
        await fox.click("#call-settings")
        await fox.until("document.querySelector('#camera-select')?.value")
        chosen = "document.querySelector('#camera-select').dispatchEvent(new Event('change'))"
        await fox.evaluate(chosen)
        await fox.until(f"{CAMERA} && {CAMERA}.id !== '{before}'")
        await until(lambda: bool(seen_of(ada, "Guest").get("camera")))

        await fox.evaluate(UNPLUG)
        await fox.evaluate(chosen)
        await fox.until("document.querySelector('#own-video').srcObject !== null")
        await fox.until(f"{CAMERA}.id !== '{before}' && {CAMERA}.readyState === 'live'")
        await fox.evaluate("unplug()")
        await until(lambda: not seen_of(ada, "Guest")["camera"])
        await fox.until("document.querySelector('#toasts').textContent.includes('unplugged')")
        await fox.type(ESCAPE)
        await fox.click("#camera")
        await until(lambda: bool(seen_of(ada, "Guest")["camera"]))

        await server.end()
        await fox.until("calliope.phase === 'reconnecting'")
        async with run_server(*OPTIONS, port=server.port):
            await fox.until("calliope.phase === 'connected'")
            await fox.until("calliope.appliedLayout?.tiles.length === 1")
            await fox.until("document.querySelector('#status').hidden")
