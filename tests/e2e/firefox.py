"""Debian's Firefox, driven over WebDriver BiDi (w3.org/TR/webdriver-bidi)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse

FIREFOX = "/usr/bin/firefox-esr"
START_TIMEOUT_S = 120
STEP_TIMEOUT_S = 60
FAKE_PITCH_HZ = 700

PREFERENCES: dict[str, bool | int | str] = {
    # a camera that wanders through colours and a microphone with a tone, granted without asking
    "media.navigator.streams.fake": True,
    "media.navigator.audio.fake_frequency": FAKE_PITCH_HZ,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    # a machine without a network has only the loopback
    "media.peerconnection.ice.loopback": True,
    "media.getusermedia.audio.processing.platform.enabled": False,
    # nothing but what the test asks for
    "app.normandy.enabled": False,
    "app.update.disabledForTesting": True,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.safebrowsing.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.server": "",
}


class FirefoxPage:
    """One tab."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._context = ""

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its result; RuntimeError with the browser's words if it fails."""
        number = next(self._ids)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        async with asyncio.timeout(STEP_TIMEOUT_S):
            while (answer := await self._socket.receive_json()).get("id") != number:
                pass  # events are of no interest
        if answer["type"] == "error":
            raise RuntimeError(f"{method}: {answer['error']}: {answer['message']}")
        return dict(answer["result"])

    async def begin(self, width: int, height: int) -> None:
        await self.command("session.new", capabilities={})
        tree = await self.command("browsingContext.getTree")
        self._context = tree["contexts"][0]["context"]
        await self.resize(width, height)

    async def resize(self, width: int, height: int) -> None:
        """Make the window another size, in CSS pixels."""
        await self.command(
            "browsingContext.setViewport",
            context=self._context,
            viewport={"width": width, "height": height},
        )

    async def goto(self, url: str) -> None:
        await self.command(
            "browsingContext.navigate", context=self._context, url=url, wait="complete"
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of what it promises; must be fit for JSON."""
        answer = await self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify(await ({expression}) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"]["value"])

    async def until(self, expression: str) -> Any:
        """Evaluate until it is truthy; AssertionError when it takes too long."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STEP_TIMEOUT_S
        while not (value := await self.evaluate(expression)):
            assert loop.time() < deadline, f"did not come to hold: {expression}"
            await asyncio.sleep(0.05)
        return value

    async def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element, as a person does."""
        element = await self._locate(selector)
        pause = {"type": "pointerMove", "x": 0, "y": 0, "origin": element}
        steps = [
            pause,
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        await self._act({"type": "pointer", "id": "mouse", "actions": steps})

    async def type(self, text: str) -> None:
        """Press keys, into whatever has the focus. ``\\ue007`` is Enter.

        Firefox presses no button for a key in a headless window: it never has the system's focus.
        """
        keys = [
            {"type": kind, "value": character}
            for character in text
            for kind in ("keyDown", "keyUp")
        ]
        await self._act({"type": "key", "id": "keyboard", "actions": keys})

    async def _locate(self, selector: str) -> dict[str, Any]:
        found = await self.command(
            "browsingContext.locateNodes",
            context=self._context,
            locator={"type": "css", "value": selector},
        )
        assert found["nodes"], f"there is no {selector}"
        return {"type": "element", "element": {"sharedId": found["nodes"][0]["sharedId"]}}

    async def _act(self, source: dict[str, Any]) -> None:
        await self.command("input.performActions", context=self._context, actions=[source])

    async def screenshot(self, path: Path) -> None:
        shot = await self.command("browsingContext.captureScreenshot", context=self._context)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(shot["data"]))


@contextlib.asynccontextmanager
async def firefox(
    profile: Path, width: int = 1000, height: int = 700
) -> AsyncIterator[FirefoxPage]:
    """A headless Firefox with a new profile in the folder ``profile``; ended behind the block."""
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines) + "\n")
    process = await asyncio.create_subprocess_exec(
        *(FIREFOX, "--headless", "--no-remote", "--profile", str(profile)),
        *("--remote-debugging-port", "0"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        env={**os.environ, "HOME": str(profile), "MOZ_CRASHREPORTER_DISABLE": "1"},
    )
    assert process.stderr is not None
    reader: asyncio.Task[bytes] | None = None
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not (
                found := re.search(
                    rb"listening on (ws://\S+)", line := await process.stderr.readline()
                )
            ):
                assert line, "Firefox ended before it listened"
        reader = asyncio.create_task(process.stderr.read())
        async with (
            ClientSession() as http,
            http.ws_connect(f"{found[1].decode()}/session", max_msg_size=0) as socket,
        ):
            page = FirefoxPage(socket)
            await page.begin(width, height)
            yield page
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()
        if reader is not None:
            await reader
