"""The HTTP side: signalling as in docs/protocol.md, the page and its files, health and metrics."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import Mapping
from pathlib import Path

from aiohttp import hdrs, web
from aiohttp.http import HttpProcessingError
from aiohttp.typedefs import Handler
from prometheus_client import CONTENT_TYPE_LATEST

from calliope.config import Config
from calliope.errors import (
    BadOffer,
    BadRequest,
    ClientError,
    ConfigError,
    Forbidden,
    TooLarge,
    Unavailable,
    WrongType,
)
from calliope.metrics import Metrics
from calliope.names import clean_room
from calliope.transport import sdp
from calliope.transport.ice import IceServers
from calliope.transport.page import answer_file
from calliope.transport.probe import Prober
from calliope.transport.problem import from_client_error, from_status
from calliope.transport.session import Request, Sessions

logger = logging.getLogger(__name__)

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
SESSION_HEADER = "Calliope-Session"
BODY_TIMEOUT_S = 10.0
"""How long an offer may take to arrive."""

_PAGE_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "img-src 'self' blob: data:",
            "media-src 'self' blob: mediastream:",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    ),
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self)",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    # the browser keeps a copy and asks each time whether it is still good (ETag)
    "Cache-Control": "no-cache",
}
_NO_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>No such page</title>
<p>There is no such page. A room's name has only letters a-z, digits, "-" and "_".
<a href="/">Start a call</a></html>
"""
_COMMON_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_OF_PAGES_AND_PROXIES = (hdrs.ORIGIN, hdrs.FORWARDED, hdrs.X_FORWARDED_FOR, hdrs.VIA)
_HOST = re.compile(r"(?:\[(?P<literal>[^\]]*)\]|(?P<name>[^:\[\]]+))(?::[0-9]*)?")
_CORS_METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
_CORS_REQUEST_HEADERS = f"Authorization, Content-Type, If-Match, {SESSION_HEADER}"
_CORS_MAX_AGE_S = 600


def build_web_app(
    sessions: Sessions,
    ice: IceServers,
    prober: Prober,
    config: Config,
    metrics: Metrics,
    static_dir: Path,
) -> web.Application:
    """The whole HTTP side. ``static_dir`` holds ``index.html`` and what it needs."""
    return _Site(sessions, ice, prober, config, metrics, static_dir).build()


def build_runner(app: web.Application) -> web.AppRunner:
    """A runner as this server needs it: paths hold secrets, so they stay out of the log."""
    protocol_logger = logging.getLogger(f"{__name__}.protocol")
    protocol_logger.addFilter(_hide_malformed_lines)
    return web.AppRunner(
        app, access_log=None, logger=protocol_logger, lingering_time=1.0, handle_signals=False
    )


def _hide_malformed_lines(record: logging.LogRecord) -> bool:
    """Drop from the log what a malformed request looked like: the message quotes its lines."""
    if record.exc_info and isinstance(record.exc_info[1], HttpProcessingError):
        record.exc_info = None
    return True


class _Site:
    def __init__(
        self,
        sessions: Sessions,
        ice: IceServers,
        prober: Prober,
        config: Config,
        metrics: Metrics,
        static_dir: Path,
    ) -> None:
        self._sessions = sessions
        self._ice = ice
        self._prober = prober
        self._probe_allowed = config.server.probe
        self._metrics = metrics
        self._origins = frozenset(config.server.allowed_origins)
        self._offer_bytes = config.limits.offer_bytes
        self._static_dir = static_dir.resolve()
        if not (static_dir / "index.html").is_file():
            raise ConfigError(f"The page is missing: there is no {static_dir / 'index.html'}.")

    def build(self) -> web.Application:
        app = web.Application(middlewares=[self._refuse], client_max_size=self._offer_bytes)
        app.on_response_prepare.append(self._add_headers)
        route = app.router
        sessions, session = "/api/rooms/{room}/sessions", "/api/rooms/{room}/sessions/{secret}"
        route.add_post(sessions, self._post, expect_handler=self._expect, name="join")
        route.add_options(sessions, self._options)
        route.add_patch(session, self._patch, expect_handler=self._expect, name="trickle")
        route.add_delete(session, self._delete, name="leave")
        route.add_options(session, self._options)
        route.add_get("/api/ice", self._get_ice, name="ice")
        route.add_options("/api/ice", self._options)
        route.add_post("/api/probe", self._probe, expect_handler=self._expect, name="probe")
        route.add_get("/healthz", self._healthz, name="health")
        route.add_get("/metrics", self._get_metrics, name="metrics")
        route.add_get("/static/{path:.+}", self._static, name="static")
        route.add_get("/", self._page, name="start")
        route.add_get("/{room}", self._room_page, name="room")
        return app

    # -- signalling -------------------------------------------------------------------------------

    async def _post(self, request: web.Request) -> web.Response:
        if self._sessions.rooms.draining:
            raise Unavailable("The server is stopping; try again soon.", retry_after_s=10)
        room = clean_room(request.match_info["room"])
        source = request.query.get("source", "camera")
        if source not in ("camera", "screen"):
            raise BadRequest("'source' is 'camera' or 'screen'.")
        offer = await self._body(request, SDP)
        session, answer = await self._sessions.open(
            Request(
                room=room,
                name=request.query.get("name"),
                previous=request.headers.get(SESSION_HEADER),
                screen=source == "screen",
                address=request.remote or "",
            ),
            offer,
        )
        response = web.Response(
            status=201,
            body=answer.encode(),
            headers={
                "Content-Type": SDP,
                "Location": f"/api/rooms/{room}/sessions/{session.secret}",
                "Cache-Control": "no-store",
            },
        )
        for server in self._ice.issue():
            response.headers.add("Link", server.as_link())
        return response

    async def _patch(self, request: web.Request) -> web.Response:
        session = self._sessions.find(request.match_info["room"], request.match_info["secret"])
        text = await self._body(request, FRAGMENT)
        await session.trickle(sdp.parse_fragment(text, session.mid))
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self._sessions.find(request.match_info["room"], request.match_info["secret"]).leave()
        return web.Response(status=200)

    async def _options(self, request: web.Request) -> web.Response:
        """What a resource takes; also the preflight, whose headers :meth:`_add_headers` adds."""
        if request.path == "/api/ice":
            return web.Response(status=204, headers={"Allow": "GET, HEAD, OPTIONS"})
        if "secret" in request.match_info:
            headers = {"Allow": "PATCH, DELETE, OPTIONS", "Accept-Patch": FRAGMENT}
        else:
            headers = {"Allow": "POST, OPTIONS"}
        return web.Response(status=204, headers={**headers, "Accept-Post": SDP})

    async def _get_ice(self, _: web.Request) -> web.Response:
        servers = [server.as_json() for server in self._ice.issue()]
        return web.json_response(
            {"iceServers": servers, "ttl": self._ice.ttl_s}, headers={"Cache-Control": "no-store"}
        )

    async def _probe(self, request: web.Request) -> web.Response:
        """Measure the server by a call of its own; see ``probe.py``."""
        allowed = self._probe_allowed
        if allowed == "off":
            raise Forbidden("Probes are switched off; 'server.probe' switches them on.")
        if allowed == "local" and not _is_local(request):
            raise Forbidden(
                "Probes are to be asked for from the server's own machine, by its loopback address "
                "and not by a web page or a proxy."
            )
        if self._sessions.rooms.draining:
            raise Unavailable("The server is stopping.", retry_after_s=10)
        return web.json_response(await self._prober.probe(), headers={"Cache-Control": "no-store"})

    async def _body(self, request: web.Request, content_type: str) -> str:
        """The body as text: of the right type, not over the limit, and no more of it is read."""
        if request.content_type != content_type:
            raise WrongType(f"Send this with 'Content-Type: {content_type}'.")
        self._check_length(request.content_length)
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                async for chunk in request.content.iter_any():
                    body += chunk
                    self._check_length(len(body))
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise BadOffer("The body is not UTF-8 text.") from None

    def _check_length(self, length: int | None) -> None:
        if length is not None and length > self._offer_bytes:
            raise TooLarge(f"The body has over {self._offer_bytes} bytes.")

    async def _expect(self, request: web.Request) -> web.StreamResponse | None:
        """Answer ``Expect: 100-continue``: a body that is too long is not even asked for."""
        try:
            self._check_length(request.content_length)
        except ClientError as error:
            return self._refusal(request, error)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer proper has not begun
        return None

    # -- the page, health, metrics ----------------------------------------------------------------

    async def _page(self, _: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._static_dir / "index.html")

    async def _static(self, request: web.Request) -> web.StreamResponse:
        try:
            path = (self._static_dir / request.match_info["path"]).resolve()
            found = path.is_relative_to(self._static_dir) and path.is_file()
        except (ValueError, OSError):  # a NUL byte, a name too long
            found = False
        if not found:
            raise web.HTTPNotFound
        return answer_file(request, path)

    async def _room_page(self, request: web.Request) -> web.StreamResponse:
        raw = request.match_info["room"]
        try:
            room = clean_room(raw)
        except BadRequest:
            raise web.HTTPNotFound from None
        if room != raw:
            raise web.HTTPFound(request.rel_url.with_path(f"/{room}", keep_query=True))
        return await self._page(request)

    async def _healthz(self, _: web.Request) -> web.Response:
        if self._sessions.rooms.draining:
            raise Unavailable("The server is stopping.", retry_after_s=10)
        if not self._sessions.can_be_reached:
            raise Unavailable("The server's UDP port is lost; restart it.", retry_after_s=10)
        return web.json_response({"status": "ok"}, headers={"Cache-Control": "no-store"})

    async def _get_metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    # -- what all answers have in common ----------------------------------------------------------

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Everything that is refused is refused in the same shape."""
        try:
            return await handler(request)
        except ClientError as error:
            return self._refusal(request, error)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            if error.status == 404 and "text/html" in request.headers.get(hdrs.ACCEPT, ""):
                return web.Response(status=404, text=_NO_PAGE, content_type="text/html")
            response = from_status(error.status)
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
            return response
        except Exception:
            logger.exception("The route '%s' failed", request.match_info.route.name)
            return from_status(500)

    def _refusal(self, request: web.Request, error: ClientError) -> web.Response:
        self._metrics.refusals.labels(code=error.code).inc()
        response = from_client_error(error)
        if request.can_read_body and not request.content.is_eof():
            response.force_close()
        return response

    async def _add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        headers = dict(_COMMON_HEADERS)
        if request.path.startswith("/api/"):
            headers.update(self._cors(request))
        elif request.path not in ("/healthz", "/metrics"):
            headers.update(_PAGE_HEADERS)
        response.headers["Server"] = "Calliope"  # without the library's versions
        for name, value in headers.items():
            response.headers.setdefault(name, value)

    def _cors(self, request: web.Request) -> Mapping[str, str]:
        """The CORS answer (Fetch standard) for the configured origins; ``*`` allows all."""
        if not self._origins:
            return {}
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or not self._origins & {origin, "*"}:
            return {"Vary": "Origin"}
        headers = {"Vary": "Origin", "Access-Control-Allow-Origin": origin}
        if request.method == hdrs.METH_OPTIONS:
            headers["Access-Control-Allow-Methods"] = _CORS_METHODS
            headers["Access-Control-Allow-Headers"] = _CORS_REQUEST_HEADERS
            headers["Access-Control-Max-Age"] = str(_CORS_MAX_AGE_S)
        else:
            headers["Access-Control-Expose-Headers"] = "Location, Link, Retry-After"
        return headers


def _is_local(request: web.Request) -> bool:
    """Whether somebody on this machine asks, and nobody through what runs on it.

    A page in a browser here may POST from any site, or by a name of its own that it lets point to
    this machine (DNS rebinding); a proxy here asks for others. None of them is told by its address.
    """
    headers = request.headers
    return (
        _is_loopback(request.remote or "")
        and not any(name in headers for name in _OF_PAGES_AND_PROXIES)
        and headers.get("Sec-Fetch-Site", "none") == "none"
        and _names_loopback(headers.get(hdrs.HOST, ""))
    )


def _names_loopback(host: str) -> bool:
    """Whether a Host header is ``localhost`` or a loopback address, with any port."""
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["name"] or found["literal"]
    return name.lower() == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return (mapped or found).is_loopback
