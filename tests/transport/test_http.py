"""The HTTP side: what is refused and how, CORS, ICE servers, the page and its headers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import ClientResponse, ClientSession, web

from calliope.clock import FakeClock
from calliope.config import Config, IceConfig, LimitsConfig, ServerConfig
from calliope.errors import ConfigError
from calliope.metrics import Metrics
from calliope.rooms import Rooms
from calliope.transport import http
from calliope.transport.http import build_runner, build_web_app
from calliope.transport.ice import IceServer, IceServers
from calliope.transport.probe import Prober
from calliope.transport.session import Sessions
from tests.test_room import FakeMixers
from tests.transport.calls import FRAGMENT, SDP, Caller, FakeRooms, House, house, until
from tests.transport.offers import offer

ORIGIN = "https://example.org"
CONFIG = Config(
    server=ServerConfig(allowed_origins=(ORIGIN,)),
    ice=IceConfig(
        stun=("stun:stun.example.org",),
        turn=("turn:turn.example.org?transport=udp",),
        turn_username='us"er',
        turn_credential="pass\\word",
    ),
    limits=LimitsConfig(room=2, rooms=2),
)


@pytest.fixture
def rooms() -> FakeRooms:
    return FakeRooms()


@pytest.fixture
async def server(tmp_path: Path, rooms: FakeRooms) -> AsyncIterator[House]:
    async with house(tmp_path, rooms, CONFIG) as built:
        yield built


def real_rooms(config: Config) -> Rooms:
    return Rooms(config, FakeClock(), Metrics(), FakeMixers(), lambda call: call())


async def is_problem(response: ClientResponse, status: int, code: str) -> None:
    """What every refusal looks like (RFC 9457)."""
    assert response.status == status, await response.text()
    assert response.content_type == "application/problem+json"
    body = await response.json(content_type=None)
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"].endswith(".")
    assert body["title"]


# -- refusals -----------------------------------------------------------------------------------


async def test_every_refusal_has_its_code(server: House) -> None:
    join, session = "/api/rooms/demo/sessions", "/api/rooms/demo/sessions/no-such-secret"
    client = server.http
    await is_problem(await client.post(join, data="v=0", headers=SDP), 400, "bad_offer")
    await is_problem(await client.post(join, data=b"\xff\xfe", headers=SDP), 400, "bad_offer")
    await is_problem(await client.post(join, json={}), 415, "wrong_type")
    await is_problem(await client.post(join), 415, "wrong_type")
    await is_problem(await server.post(offer(), room="no way"), 400, "bad_room")
    await is_problem(await server.post(offer(), room="metrics"), 400, "bad_room")
    await is_problem(await server.post(offer(), query="?source=moon"), 400, "bad_request")
    await is_problem(await client.patch(session, data="", headers=FRAGMENT), 404, "not_found")
    await is_problem(await client.delete(session), 404, "not_found")
    await is_problem(await client.get("/api/nothing"), 404, "not_found")
    await is_problem(await client.get("/api"), 404, "not_found")
    await is_problem(await client.get("/static/nothing.js"), 404, "not_found")
    await is_problem(await client.get("/favicon.ico"), 404, "not_found")
    wrong = await client.get(join)
    await is_problem(wrong, 405, "method_not_allowed")
    assert set(wrong.headers["Allow"].replace(",", " ").split()) == {"OPTIONS", "POST"}


async def test_a_patch_of_the_wrong_type_or_shape_is_refused(server: House) -> None:
    location = (await server.post(offer())).headers["Location"]
    await is_problem(await server.http.patch(location, json=[]), 415, "wrong_type")
    mangled = await server.http.patch(location, data="hello", headers=FRAGMENT)
    await is_problem(mangled, 400, "bad_request")


async def test_bad_names_and_full_rooms_are_told(tmp_path: Path) -> None:
    async with house(tmp_path, real_rooms(CONFIG), CONFIG) as server:
        await is_problem(await server.post(offer(), query=f"?name={'x' * 65}"), 400, "bad_name")
        await is_problem(await server.post(offer(), query="?name=a%00b"), 400, "bad_name")
        assert server.sessions.rooms.room_count == 0
        assert (await server.post(offer())).status == 201
        assert (await server.post(offer())).status == 201
        await is_problem(await server.post(offer()), 409, "room_full")
        assert (await server.post(offer(), room="other")).status == 201
        third = await server.post(offer(), room="third")
        await is_problem(third, 503, "unavailable")
        assert int(third.headers["Retry-After"]) > 0
        await server.sessions.close()
        server.sessions.rooms.close_empty()
        assert server.sessions.rooms.room_count == 0


async def test_a_draining_server_takes_no_calls(server: House, rooms: FakeRooms) -> None:
    assert (await server.http.get("/healthz")).status == 200
    rooms.draining = True
    await is_problem(await server.http.get("/healthz"), 503, "unavailable")
    refused = await server.post(offer())
    await is_problem(refused, 503, "unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert rooms.members == []


async def test_a_body_of_ten_megabytes_is_refused(server: House, rooms: FakeRooms) -> None:
    path = "/api/rooms/demo/sessions"
    body = b"v=0\r\n" + b"a" * 10_000_000
    await is_problem(await server.http.post(path, data=body, headers=SDP), 413, "too_large")
    assert rooms.members == []


async def test_a_body_without_a_length_is_read_up_to_the_limit_only(server: House) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port)
    writer.write(
        b"POST /api/rooms/demo/sessions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/sdp\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
    for _ in range(5):  # 80 KB of a body that never ends
        writer.write(chunk)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer
    writer.close()


async def test_a_body_that_does_not_arrive_is_given_up(
    server: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "BODY_TIMEOUT_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port)
    writer.write(
        b"POST /api/rooms/demo/sessions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/sdp\r\nContent-Length: 100\r\n\r\nv=0"
    )
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_client_that_asks_first_need_not_send_its_body(server: House) -> None:
    head = (
        b"POST /api/rooms/demo/sessions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/sdp\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port)
    writer.write(head % 10_000_000)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    writer.close()
    body = offer().encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port)
    writer.write(head % len(body))
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 100 ")
    await reader.readline()
    writer.write(body)
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 201 ")
    writer.close()


async def test_a_failure_of_ours_says_nothing_of_secrets(
    server: House,
    rooms: FakeRooms,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("broken")

    location = (await server.post(offer())).headers["Location"]
    session = server.sessions.find("demo", location.rpartition("/")[2])
    monkeypatch.setattr(type(session), "leave", broken)
    with caplog.at_level(logging.DEBUG):
        await is_problem(await server.http.delete(location), 500, "internal")
    monkeypatch.undo()
    assert "The route 'leave' failed" in caplog.text
    assert session.secret not in caplog.text


async def test_refusals_are_counted_by_code(server: House) -> None:
    await server.post("v=0")
    metrics = await server.http.get("/metrics")
    assert metrics.content_type == "text/plain"
    assert 'calliope_refusals_total{code="bad_offer"} 1.0' in await metrics.text()


# -- joining, told over HTTP --------------------------------------------------------------------


async def test_a_join_answers_as_whip_does(server: House) -> None:
    response = await server.post(offer())
    assert response.status == 201
    assert response.content_type == "application/sdp"
    assert (await response.text()).startswith("v=0\r\n")
    assert response.headers["Location"].startswith("/api/rooms/demo/sessions/")
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers.getall("Link") == [
        '<stun:stun.example.org>; rel="ice-server"',
        '<turn:turn.example.org?transport=udp>; rel="ice-server"; username="us\\"er"; '
        'credential="pass\\\\word"; credential-type="password"',
    ]


async def test_two_meet_in_a_real_room_and_a_bad_message_is_told(tmp_path: Path) -> None:
    ada, grace = Caller(), Caller()
    async with house(tmp_path, real_rooms(CONFIG), CONFIG) as server:
        await ada.call(server, query="?name=Ada")
        await until(lambda: len(ada.messages) > 0)
        await grace.call(server, query="?name=Grace", room="DEMO")
        await until(lambda: len(grace.messages) > 0)
        welcome = json.loads(grace.messages[0])
        assert [p["name"] for p in welcome["participants"]] == ["Ada", "Grace"]
        ada.channel.send("no json")
        await until(lambda: '"bad_message"' in ada.messages[-1])
        ada.channel.send(json.dumps({"type": "chat", "text": "x" * 61_440}))
        await until(lambda: '"too_large"' in ada.messages[-1])
        ada.channel.send(json.dumps({"type": "chat", "text": "still here"}))
        await until(lambda: "still here" in grace.messages[-1])
        ada.channel.send('{"type":"bye"}')
        await until(lambda: '"left"' in grace.messages[-1])
        await until(lambda: ada.pc.connectionState == "closed")
    await ada.close()
    await grace.close()


async def test_a_seat_is_taken_over_with_its_secret(tmp_path: Path) -> None:
    first, second = Caller(), Caller()
    async with house(tmp_path, real_rooms(CONFIG), CONFIG) as server:
        await first.call(server, query="?name=Ada")
        await until(lambda: len(first.messages) > 0)
        await second.call(server, headers={"Calliope_Session": first.secret})
        await until(lambda: len(second.messages) > 0)
        assert json.loads(second.messages[0])["you"] == json.loads(first.messages[0])["you"]
        await until(lambda: first.pc.connectionState == "closed")
        assert len(first.messages) == 1
        assert (await server.http.delete(first.location)).status == 404
    await first.close()
    await second.close()


# -- CORS ---------------------------------------------------------------------------------------


async def test_a_page_of_an_allowed_origin_may_call(server: House) -> None:
    preflight = await server.http.options(
        "/api/rooms/demo/sessions",
        headers={"Origin": ORIGIN, "Access-Control-Request-Method": "POST"},
    )
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Calliope-Session" in preflight.headers["Access-Control-Allow-Headers"]
    assert preflight.headers["Accept-Post"] == "application/sdp"
    joined = await server.post(offer(), Origin=ORIGIN)
    assert joined.headers["Access-Control-Allow-Origin"] == ORIGIN
    assert {"Location", "Link"} <= set(
        joined.headers["Access-Control-Expose-Headers"].replace(",", " ").split()
    )
    refused = await server.post("v=0", Origin=ORIGIN)
    assert refused.status == 400
    assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN


async def test_other_origins_get_no_leave(server: House) -> None:
    response = await server.post(offer(), Origin="https://elsewhere.example")
    assert "Access-Control-Allow-Origin" not in response.headers
    assert response.headers["Vary"] == "Origin"


async def test_a_star_allows_every_origin(tmp_path: Path) -> None:
    config = Config(server=ServerConfig(allowed_origins=("*",)))
    async with house(tmp_path, config=config) as server:
        response = await server.http.get("/api/ice", headers={"Origin": "https://any.example"})
        assert response.headers["Access-Control-Allow-Origin"] == "https://any.example"


async def test_options_tell_what_a_resource_takes(server: House) -> None:
    join = await server.http.options("/api/rooms/demo/sessions")
    assert (join.status, join.headers["Accept-Post"]) == (204, "application/sdp")
    session = await server.http.options("/api/rooms/demo/sessions/some-secret")
    assert session.status == 204
    assert session.headers["Accept-Patch"] == "application/trickle-ice-sdpfrag"


# -- ICE servers --------------------------------------------------------------------------------


async def test_browsers_are_told_the_ice_servers(server: House) -> None:
    response = await server.http.get("/api/ice")
    assert response.headers["Cache-Control"] == "no-store"
    assert await response.json() == {
        "iceServers": [
            {"urls": ["stun:stun.example.org"]},
            {
                "urls": ["turn:turn.example.org?transport=udp"],
                "username": 'us"er',
                "credential": "pass\\word",
            },
        ],
        "ttl": 86_400,
    }


def test_a_turn_secret_issues_credentials_that_coturn_can_check() -> None:
    clock = FakeClock(unix_ms=1_700_000_000_000)
    config = IceConfig(stun=(), turn=("turn:t.example",), turn_secret="north", ttl_s=600)
    (first,), (second,) = IceServers(config, clock).issue(), IceServers(config, clock).issue()
    assert first.username != second.username
    assert first.username.partition(":")[0] == "1700000600"
    expected = hmac.new(b"north", first.username.encode(), hashlib.sha1).digest()
    assert base64.b64decode(first.credential) == expected


def test_a_server_without_credentials_says_nothing_of_them() -> None:
    assert IceServer("stun:s.example").as_json() == {"urls": ["stun:s.example"]}
    assert IceServer("stun:s.example").as_link() == '<stun:s.example>; rel="ice-server"'


# -- the page -----------------------------------------------------------------------------------


async def test_the_page_is_served_for_the_start_and_for_every_room(server: House) -> None:
    for path in ("/", "/blue-otter", "/a_b"):
        response = await server.http.get(path)
        assert response.status == 200
        assert response.content_type == "text/html"
        assert "<title>Calliope</title>" in await response.text()


async def test_a_room_in_capitals_is_the_same_room(server: House) -> None:
    response = await server.http.get("/Blue-Otter?name=Ada", allow_redirects=False)
    assert response.status == 302
    assert response.headers["Location"] == "/blue-otter?name=Ada"


async def test_reserved_words_and_strange_names_have_no_page(server: House) -> None:
    for path in ("/api", "/static", "/STATIC", "/%20", "/a.b", "/" + "x" * 65, "/static/%00"):
        assert (await server.http.get(path)).status == 404
    person = await server.http.get("/my.room", headers={"Accept": "text/html,*/*;q=0.8"})
    assert (person.status, person.content_type) == (404, "text/html")
    assert '<a href="/">' in await person.text()


async def test_the_page_may_use_camera_and_microphone_and_nothing_from_elsewhere(
    server: House,
) -> None:
    for path in ("/", "/static/index.html", "/no/such/page"):
        headers = (await server.http.get(path)).headers
        assert "default-src 'self'" in headers["Content-Security-Policy"]
        assert "camera=(self)" in headers["Permissions-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("manifest.webmanifest", "application/manifest+json"),
        ("icon.svg", "image/svg+xml"),
        ("icon-192.png", "image/png"),
    ],
)
async def test_files_say_what_they_are(
    server: House, tmp_path: Path, name: str, content_type: str
) -> None:
    (tmp_path / name).write_bytes(b"{}")
    assert (await server.http.get(f"/static/{name}")).content_type == content_type


async def test_files_are_asked_for_again_but_not_sent_again(server: House) -> None:
    first = await server.http.get("/static/index.html")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await server.http.get(
        "/static/index.html", headers={"If-None-Match": first.headers["ETag"]}
    )
    assert again.status == 304


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        ("// why\nlet a = 1; // so\n", "\nlet a = 1; // so\n"),
        ("\t/**\n\t * @param {string} b\n\t */\n\tgo(b) {}\n", "\n\n\n\tgo(b) {}\n"),
        ("/** @type {Set} */ (c).clear();\n", " (c).clear();\n"),
        ("d = /** @type {Set} */ (e);\n", "d = /** @type {Set} */ (e);\n"),
        ("f('https://g.example/*.js');\n", "f('https://g.example/*.js');\n"),
    ],
)
async def test_scripts_are_sent_without_comments_but_line_by_line(
    server: House, tmp_path: Path, source: str, sent: str
) -> None:
    (tmp_path / "some.js").write_text(source)
    answer = await server.http.get("/static/some.js")
    assert (answer.content_type, await answer.text()) == ("text/javascript", sent)
    tag = {"If-None-Match": answer.headers["ETag"]}
    assert (await server.http.get("/static/some.js", headers=tag)).status == 304
    (tmp_path / "some.js").write_text("another();")
    os.utime(tmp_path / "some.js", ns=(1, 1))
    assert await (await server.http.get("/static/some.js", headers=tag)).text() == "another();"


async def test_nothing_outside_the_static_folder_is_served(server: House, tmp_path: Path) -> None:
    (tmp_path.parent / "private.txt").write_text("private")
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http.port)
    writer.write(b"GET /static/../private.txt HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 404 " in await asyncio.wait_for(reader.readline(), 10)
    writer.close()
    assert (await server.http.get("/static/%2e%2e/private.txt")).status == 404


def test_a_missing_page_ends_the_start(tmp_path: Path) -> None:
    metrics, rooms = Metrics(), FakeRooms()
    sessions = Sessions(rooms, CONFIG, FakeClock(), metrics)  # type: ignore[arg-type]
    prober = Prober(lambda: "", FakeClock(), metrics)
    with pytest.raises(ConfigError, match=r"index\.html"):
        build_web_app(
            sessions, IceServers(CONFIG.ice), prober, CONFIG, metrics, tmp_path / "nowhere"
        )


async def test_paths_are_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rooms: FakeRooms
) -> None:
    (tmp_path / "index.html").write_text("page")
    metrics = Metrics()
    sessions = Sessions(rooms, CONFIG, FakeClock(), metrics)  # type: ignore[arg-type]
    prober = Prober(lambda: "", FakeClock(), metrics)
    app = build_web_app(sessions, IceServers(CONFIG.ice), prober, CONFIG, metrics, tmp_path)
    runner = build_runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    with caplog.at_level(logging.DEBUG):
        await site.start()
        port = runner.addresses[0][1]
        async with ClientSession() as client:
            url = f"http://127.0.0.1:{port}/api/rooms/demo/sessions/very-secret-words"
            answer = await client.delete(url)
            assert (answer.status, answer.headers["Server"]) == (404, "Calliope")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"DELETE /api/rooms/demo/sessions/very-secret-words HTTP/1.1 oops\r\n\r\n")
        assert b" 400 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        await runner.cleanup()
    assert "very-secret-words" not in caplog.text
