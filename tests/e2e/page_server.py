"""Serves the page, and instead of calls a problem: how the page looks when things go wrong."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from calliope.assets import static_dir
from calliope.transport.page import answer_file

POLICY = "default-src 'self'; media-src 'self' blob: mediastream:"


@contextlib.asynccontextmanager
async def serve_page() -> AsyncIterator[str]:
    """The base URL of a server on loopback. Room ``409-room_full`` answers with that problem.

    Room ``gone`` never answers: the connection breaks.
    """
    app = web.Application()
    app.router.add_get("/api/ice", _ice)
    app.router.add_post("/api/rooms/{room}/sessions", _refuse)
    app.router.add_get("/static/{path:.+}", _file)
    app.router.add_get("/", _page)
    app.router.add_get("/{room}", _page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://localhost:{runner.addresses[0][1]}"
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)


async def _page(_request: web.Request) -> web.FileResponse:
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
    return web.FileResponse(static_dir() / "index.html", headers=headers)


async def _file(request: web.Request) -> web.StreamResponse:
    return answer_file(request, static_dir() / request.match_info["path"])


async def _ice(_request: web.Request) -> web.Response:
    return web.json_response({"iceServers": [], "ttl": 3600})


async def _refuse(request: web.Request) -> web.Response:
    status, _, code = request.match_info["room"].partition("-")
    if status == "gone":
        assert request.transport is not None
        request.transport.close()
        return web.Response()
    return web.json_response(
        {"status": int(status), "code": code, "detail": "In the server's words."},
        status=int(status),
        headers={"Retry-After": "3"},
        content_type="application/problem+json",
    )
