"""Drives the page in a real browser, as a person would, and looks at what it shows.

The page's content security policy forbids `eval`, so Playwright's ``wait_for_function`` cannot be
used on it; :func:`until` asks again and again instead. What the page tells of itself is the
read-only ``window.calliope``: ``pc``, ``phase``, ``you``, ``participants``, ``lastLayout``,
``appliedLayout``.
"""

from __future__ import annotations

import asyncio
import base64
import io
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.async_api import Browser, Page, Playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_PICTURE = """async () => {
    const video = document.querySelector('#stage');
    const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
    canvas.getContext('2d').drawImage(video, 0, 0);
    const bytes = new Uint8Array(await (await canvas.convertToBlob()).arrayBuffer());
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192)
        text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    return btoa(text);
}"""


async def launch(playwright: Playwright, *flags: str) -> Browser:
    """Debian's Chromium with a fake camera and microphone; the caller closes it."""
    return await playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])


async def until(page: Page, expression: str, *, timeout_s: float = 60.0) -> Any:
    """Evaluate until it is truthy and return that; AssertionError when it takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    while not (value := await page.evaluate(expression)):
        assert loop.time() < deadline, f"did not come to hold: {expression}"
        await asyncio.sleep(0.03)
    return value


@dataclass(frozen=True, slots=True)
class CallPage:
    """One person's page in a room."""

    page: Page

    async def enter(self, url: str, name: str) -> None:
        """Open ``url`` (a room's page), type the name, and join as soon as the camera runs."""
        await self.page.goto(url)
        await until(self.page, "document.querySelector('#preview').videoWidth > 0")
        await self.page.fill("#name", name)
        await self.join()

    async def join(self) -> None:
        """Press Join and wait for the picture and its layout."""
        await self.page.click("#join")
        await until(
            self.page,
            "window.calliope.appliedLayout !== null && document.querySelector('#status').hidden",
        )

    async def layout(self) -> dict[str, Any]:
        """The layout of the frame on the screen."""
        return cast(dict[str, Any], await self.page.evaluate("window.calliope.appliedLayout"))

    async def picture(self) -> npt.NDArray[np.uint8]:
        """The received picture as the decoder gave it, without the page's overlay: RGB."""
        png = base64.b64decode(await self.page.evaluate(_PICTURE))
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    async def participants(self) -> dict[str, dict[str, Any]]:
        """Those in the call as the page knows them, by name."""
        people = await self.page.evaluate("window.calliope.participants")
        return {person["name"]: person for person in people}

    async def say(self, text: str) -> None:
        """Write to the chat; opens the panel when it is closed."""
        await self.open_panel("chat")
        await self.page.fill("#chat-input", text)
        await self.page.keyboard.press("Enter")

    async def open_panel(self, name: str) -> None:
        """Show the ``chat`` or the ``people`` panel."""
        if await self.page.get_attribute(f"#{name}-toggle", "aria-expanded") != "true":
            await self.page.click(f"#{name}-toggle")

    async def lines(self) -> list[str]:
        """What the chat shows, oldest first."""
        return await self.page.locator("#chat-log .line-text").all_text_contents()

    async def leave(self) -> None:
        await self.page.click("#leave")
        await self.page.wait_for_selector("#ended-screen:not([hidden])")
