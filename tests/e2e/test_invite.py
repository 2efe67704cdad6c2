"""How others are brought in: the link as a QR code, and the page as an app of its own."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from aiohttp import ClientSession
from PIL import Image
from playwright.async_api import Browser, Page, async_playwright

from calliope.assets import static_dir
from tests import icons
from tests.e2e.page_driver import launch
from tests.e2e.page_server import serve_page

pytestmark = pytest.mark.asyncio(loop_scope="module")

OPEN = "import('/static/js/invite.js').then((invite) => invite.openInvite())"
ENCODE = """async (texts) => {
    const { encodeQr } = await import('/static/js/qr.js');
    return texts.map(encodeQr);
}"""
LEVEL_M = cv2.QRCODE_ENCODER_CORRECT_LEVEL_M
FULL = (14, 26, 42, 62, 84, 106, 122, 152, 180, 213)
"""Bytes that versions 1 to 10 hold at level M (ISO/IEC 18004, table 7)."""
LONGEST = FULL[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with serve_page() as base:
        yield base


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport={"width": 900, "height": 900})
    yield await context.new_page()
    await context.close()


def read(picture: npt.NDArray[np.uint8]) -> str:
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(picture)
    return text


def links() -> list[str]:
    """As long as each size of code can hold, one more, and every seventh length between."""
    chance = random.Random(5)
    base = "https://meet.example/"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"
    lengths = {*range(1, LONGEST, 7), *FULL, *(length + 1 for length in FULL[:-1])}
    return [
        (base + "".join(chance.choices(letters, k=LONGEST)))[:length] for length in sorted(lengths)
    ]


async def test_the_code_in_the_dialog_is_read_as_the_link_in_both_themes(
    page: Page, url: str
) -> None:
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        await page.goto(f"{url}/blue-otter?from=mail#top")
        await page.evaluate(OPEN)
        shot = await page.locator("#invite").screenshot()
        picture = cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR)
        assert read(np.asarray(picture, np.uint8)) == f"{url}/blue-otter"
        assert await page.input_value("#invite-link") == f"{url}/blue-otter"


async def test_a_code_is_what_another_encoder_makes_of_the_same_text(page: Page, url: str) -> None:
    """Bit by bit, wherever both take the same one of the eight masks; else it can be read."""
    await page.goto(url)
    texts = links()
    same = 0
    for text, rows in zip(texts, await page.evaluate(ENCODE, texts), strict=True):
        mine = np.array(rows, np.uint8)
        version = (len(mine) - 17) // 4
        parameters = cv2.QRCodeEncoder.Params()
        parameters.version = version
        parameters.correction_level = LEVEL_M
        parameters.mode = cv2.QRCODE_ENCODER_MODE_BYTE
        encoded = cv2.QRCodeEncoder.create(parameters).encode(text)
        theirs = (np.asarray(encoded)[2:-2, 2:-2] == 0).astype(np.uint8)
        assert mine.shape == theirs.shape
        if (mine == theirs).all():
            same += 1
            continue
        picture = np.pad(255 * (1 - mine), 4, constant_values=255)
        scales = (4, 5, 6, 7, 8)
        sizes = (np.kron(picture, np.ones((n, n), np.uint8)) for n in scales)
        assert any(read(size) == text for size in sizes), text
    assert same > len(texts) / 3


async def test_a_text_that_is_too_long_gets_no_code_but_a_link(page: Page, url: str) -> None:
    await page.goto(url)
    assert (await page.evaluate(ENCODE, ["é" * 107]))[0] is None
    await page.goto(f"{url}/{'x' * 64}")
    await page.evaluate("history.replaceState(null, '', '/' + 'y'.repeat(300))")
    await page.evaluate(OPEN)
    assert await page.is_hidden("#invite-code")
    assert await page.input_value("#invite-link") == f"{url}/{'y' * 300}"


async def test_the_copy_button_says_what_it_did(page: Page, url: str) -> None:
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await page.goto(f"{url}/blue-otter")
    await page.evaluate(OPEN)
    await page.keyboard.press("Enter")
    await page.wait_for_selector("#invite-copied:not(:empty)")
    assert await page.evaluate("navigator.clipboard.readText()") == f"{url}/blue-otter"
    assert "copied" in await page.inner_text("#invite-copied")


async def test_the_page_can_be_installed(page: Page, url: str) -> None:
    await page.goto(url)
    browser = await page.context.new_cdp_session(page)
    answer: dict[str, Any] = await browser.send("Page.getAppManifest")
    assert answer["errors"] == []
    manifest = json.loads(answer["data"])
    problems = (await browser.send("Page.getInstallabilityErrors"))["installabilityErrors"]
    # a test's browser keeps nothing, and into such a one nothing is installed
    assert [each["errorId"] for each in problems] in ([], ["in-incognito"])
    purposes = set()
    async with ClientSession() as http:
        for icon in manifest["icons"]:
            async with http.get(url + icon["src"]) as response:
                assert (response.status, response.content_type) == (200, icon["type"])
            purposes.add(icon.get("purpose", "any"))
    assert purposes == {"any", "maskable"}


@pytest.mark.parametrize("name", icons.ICONS)
async def test_the_icons_are_the_drawn_ones(name: str) -> None:
    with Image.open(static_dir() / name) as stored:
        drawn = np.asarray(icons.draw(name).convert("RGBA"), int)
        assert np.abs(np.asarray(stored.convert("RGBA"), int) - drawn).max() <= 2
