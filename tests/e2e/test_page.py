"""The page by itself: its words when something is missing, its themes, its arithmetic."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Response, async_playwright

from calliope.assets import static_dir
from calliope.transport.page import TYPES, without_comments
from tests.e2e.page_driver import launch, until
from tests.e2e.page_server import serve_page

pytestmark = pytest.mark.asyncio(loop_scope="module")

STRANGE_HOST = "calliope.test"
NO_DEVICES = """
navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', '%s'); };
"""
NO_CAMERA = """
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wanted) => {
    if (wanted.video) throw new DOMException('', '%s');
    return ask(wanted);
};
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url() -> AsyncIterator[str]:
    async with serve_page() as base:
        yield base


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright, f"--host-resolver-rules=MAP {STRANGE_HOST} 127.0.0.1")
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(color_scheme="light")
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


async def text(page: Page, selector: str) -> str:
    await page.wait_for_selector(f"{selector}:not(:empty)", state="visible")
    return await page.inner_text(selector)


async def test_start_a_call_makes_a_room_that_nobody_guesses(page: Page, url: str) -> None:
    rooms = set()
    for _ in range(3):
        await page.goto(url)
        await page.click("#start")
        await page.wait_for_selector("#join", state="visible")
        rooms.add(page.url.removeprefix(f"{url}/"))
    assert len(rooms) == 3
    for room in rooms:
        # 12 syllables out of 16 x 4: 72 bits
        assert re.fullmatch(
            r"([bdfghklmnprstvwz][aeiu]){3}(-([bdfghklmnprstvwz][aeiu]){3}){3}", room
        )


@pytest.mark.parametrize(
    ("typed", "room"),
    [
        ("blue-otter", "blue-otter"),
        ("  Blue Otter ", "blue-otter"),
        ("https://meet.example/Blue-Otter?from=mail", "blue-otter"),
        ("meet.example/blue-otter", "blue-otter"),
    ],
)
async def test_a_typed_name_or_link_leads_to_its_room(
    page: Page, url: str, typed: str, room: str
) -> None:
    await page.goto(url)
    await page.fill("#room-input", typed)
    await page.click("#room-go")
    await page.wait_for_url(f"{url}/{room}")


@pytest.mark.parametrize("typed", ["", "api", "blüten", "x" * 65, "https://meet.example/"])
async def test_what_cannot_be_a_room_is_said_at_once(page: Page, url: str, typed: str) -> None:
    await page.goto(url)
    await page.fill("#room-input", typed)
    await page.click("#room-go")
    assert await text(page, "#start-problem")
    assert page.url == f"{url}/"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotAllowedError", "blocked"),
        ("NotFoundError", "No camera and no microphone found"),
        ("NotReadableError", "in use by another program"),
    ],
)
async def test_without_devices_the_lobby_says_why_and_lets_one_join(
    page: Page, url: str, error: str, words: str
) -> None:
    await page.add_init_script(NO_DEVICES % error)
    await page.goto(f"{url}/409-room_full")
    assert words in await text(page, "#device-note")
    assert await page.is_enabled("#join")


@pytest.mark.parametrize("error", ["NotFoundError", "NotReadableError"])
async def test_without_a_camera_the_microphone_still_comes_along(
    page: Page, url: str, error: str
) -> None:
    await page.add_init_script(NO_CAMERA % error)
    await page.goto(f"{url}/409-room_full")
    assert "sound only" in await text(page, "#device-note")
    assert await page.get_attribute("#lobby-mute", "data-on") == "true"
    assert await page.get_attribute("#lobby-camera", "data-on") == "false"


async def test_on_plain_http_the_page_says_that_browsers_want_https(page: Page, url: str) -> None:
    port = url.rsplit(":", 1)[1]
    await page.goto(f"http://{STRANGE_HOST}:{port}/409-room_full")
    assert "https" in await text(page, "#device-note")
    await page.click("#join")
    assert "full" in await text(page, "#join-problem")


@pytest.mark.parametrize(
    ("room", "words"),
    [
        ("409-room_full", "The room is full"),
        ("429-too_many", "Very many people"),
        ("503-unavailable", "takes no calls"),
        ("400-bad_name", "This name cannot be used"),
        ("418-teapot", "In the server's words."),
        ("gone", "cannot be reached"),
    ],
)
async def test_a_refused_join_returns_to_the_lobby_with_the_reason(
    page: Page, url: str, room: str, words: str
) -> None:
    await page.goto(f"{url}/{room}")
    await page.fill("#name", "Ada")
    await page.click("#join")
    assert words in await text(page, "#join-problem")
    assert await page.is_enabled("#join")
    assert await page.input_value("#name") == "Ada"


async def test_a_call_that_could_not_be_fetched_is_fetched_with_the_next_press(
    page: Page, url: str
) -> None:
    """The lobby is painted before the modules of the call are there; the server may go between."""
    await page.route("**/static/js/call.js", lambda route: route.abort())
    await page.goto(f"{url}/409-room_full")
    await page.click("#join")
    assert "cannot be reached" in await text(page, "#join-problem")
    await page.unroute("**/static/js/call.js")
    await page.click("#join")
    await until(page, "document.querySelector('#join-problem').textContent.includes('full')")


async def test_the_name_is_remembered_and_cleaned(context: BrowserContext, url: str) -> None:
    page = await context.new_page()
    await page.goto(f"{url}/409-room_full")
    await page.fill("#name", "  Ada\u202e Lovelace ")
    await page.click("#join")
    await text(page, "#join-problem")
    other = await context.new_page()
    await other.goto(f"{url}/another")
    await other.wait_for_selector("#name", state="visible")
    assert await other.input_value("#name") == "Ada Lovelace"


async def test_camera_off_lets_the_camera_go(page: Page, url: str) -> None:
    await page.goto(f"{url}/409-room_full")
    await until(page, "document.querySelector('#preview').videoWidth > 0")
    await page.evaluate(
        "() => { window.track = document.querySelector('#preview').srcObject.getTracks()[0]; }"
    )
    await page.click("#lobby-camera")
    await until(page, "window.track.readyState === 'ended'")
    await page.click("#lobby-camera")
    await until(page, "document.querySelector('#preview').srcObject?.active")


async def test_the_theme_follows_the_system_until_it_is_chosen(page: Page, url: str) -> None:
    theme = "document.documentElement.dataset.theme"
    await page.goto(url)
    await page.wait_for_selector("#start", state="visible")
    assert await page.evaluate(theme) == "light"
    await page.emulate_media(color_scheme="dark")
    await until(page, f"{theme} === 'dark'")
    await page.emulate_media(color_scheme="light")
    await until(page, f"{theme} === 'light'")
    await page.click("#theme")
    assert await page.evaluate(theme) == "dark"
    await page.reload()
    await page.wait_for_selector("#start", state="visible")
    assert await page.evaluate(theme) == "dark"


async def test_all_of_the_page_in_one_language_is_less_than_150_kb(
    browser: Browser, url: str
) -> None:
    """All that a browser can come to load: dialogs, icons, and the language with longest words."""
    texts = (static_dir() / "text").glob("*.json")
    longest = max(texts, key=lambda path: path.stat().st_size)
    files = [path for path in static_dir().rglob("*.*") if path.parent.name != "text"]
    paths = [f"/static/{path.relative_to(static_dir()).as_posix()}" for path in [*files, longest]]
    context = await browser.new_context(locale=longest.stem)
    page = await context.new_page()
    sizes = {path: len(await (await page.request.get(url + path)).body()) for path in paths}
    assert sum(sizes.values()) < 150_000, sizes
    answers: list[Response] = []
    # Playwright marks its listeners, which a bound method of a list does not allow
    page.on("response", lambda answer: answers.append(answer))
    await page.goto(f"{url}/409-room_full")
    await page.click("#lobby-settings")
    await page.wait_for_selector("#settings", state="visible")
    await page.keyboard.press("Escape")
    await page.click("#join")
    await text(page, "#join-problem")
    assert [each.url for each in answers if not each.url.startswith(url)] == []
    fetched = {each.url.removeprefix(url) for each in answers if "/static/" in each.url}
    assert len(fetched) > 20
    assert fetched <= set(paths)
    await context.close()


def unclear_lines(source: str) -> list[int]:
    """Lines that calliope/transport/page.py, which knows nothing but lines, could take wrongly.

    A text over several lines, which may have one that begins like a comment; a comment behind code
    that goes on in the next line, which may do so too.
    """
    lines, sent = source.splitlines(), without_comments(source).splitlines()
    texts = {n for n, line in enumerate(lines, 1) if line.replace("\\`", "").count("`") % 2}
    comments = {n for n, line in enumerate(sent, 1) if line.rfind("/*") > line.rfind("*/")}
    return sorted(texts | comments)


@pytest.mark.parametrize(
    ("source", "unclear"),
    [
        ("/* a\n// b */\nfoo(); /* c */ // d\nlet e = `f`;\n", []),
        ("foo(); /* a\n// b */\n", [1]),
        ("foo(); /* a */ bar(); /* b\n*/\n", [1]),
        ("let a = `b\n// c`;\n", [1, 2]),
        ("let a = `\\`\n/* b */`;\n", [1, 2]),
    ],
)
async def test_what_could_be_taken_for_a_comment_is_found(source: str, unclear: list[int]) -> None:
    assert unclear_lines(source) == unclear


async def test_no_file_of_the_page_has_what_could_be_taken_for_a_comment() -> None:
    files = [path for path in static_dir().rglob("*") if path.suffix in TYPES]
    assert len(files) > 20
    found = {path.name: unclear_lines(path.read_text("utf-8")) for path in files}
    assert {name: lines for name, lines in found.items() if lines} == {}


async def test_a_layout_holds_from_its_frame_on_also_when_the_clock_wraps(
    page: Page, url: str
) -> None:
    await page.goto(url)
    due = await page.evaluate(
        """async () => {
            const { isDue, takeDue } = await import('/static/js/layout.js');
            const waiting = [{ pts: 4294967000, serial: 1 }, { pts: 704, serial: 2 }];
            const serials = [4294960000, 4294967000, 4294967200, 704, 90000]
                .map((now) => takeDue(waiting, now).due?.serial ?? 0);
            return { serials, left: takeDue(waiting, 4294967200).waiting.length,
                     old: isDue(1000, 3000000000), early: isDue(93000, 90000) };
        }"""
    )
    assert due == {"serials": [0, 1, 1, 2, 2], "left": 1, "old": True, "early": False}


async def test_the_camera_is_shrunk_to_what_the_server_wants_and_never_enlarged(
    page: Page, url: str
) -> None:
    await page.goto(url)
    factors = await page.evaluate(
        """async () => {
            const { shrinkBy } = await import('/static/js/layout.js');
            const wanted = { width: 640, height: 360 };
            return [{ width: 1280, height: 720 }, { width: 720, height: 1280 },
                    { width: 320, height: 180 }, {}].map((camera) => shrinkBy(camera, wanted));
        }"""
    )
    assert factors == pytest.approx([2, 1280 / 360, 1, 1])


async def test_the_view_that_serves_a_pin_best_is_asked_for_without_flapping(
    page: Page, url: str
) -> None:
    await page.goto(url)
    grid = {"chosen": "auto", "asked": "auto", "shown": "grid", "width": 0.2, "usual": 0.2}
    alone = {"aloneMs": 2500}
    asked = {**grid, "asked": "speaker", "aloneMs": 0}
    there = {**asked, "shown": "speaker", "width": 0.8}
    cases: list[tuple[dict[str, object], str]] = [
        ({**grid, "aloneMs": 2499}, "auto"),
        ({**grid, **alone}, "speaker"),
        ({**grid, **alone, "width": 0}, "auto"),  # nobody is pinned
        ({**grid, **alone, "chosen": "presenter"}, "presenter"),  # chosen for its screen
        (asked, "speaker"),  # on its way
        (there, "speaker"),
        ({**there, "width": 0.1}, "auto"),  # somebody else leads
        ({**there, "width": 0.1, "chosen": "grid"}, "grid"),
        ({**there, "width": 0}, "auto"),  # unpinned
    ]
    found = await page.evaluate(
        "async (cases) => cases.map((await import('/static/js/views.js')).suitPin)",
        [case for case, _ in cases],
    )
    assert found == [view for _, view in cases]


async def test_a_list_of_many_can_be_searched(page: Page, url: str) -> None:
    await page.goto(f"{url}/409-room_full")
    await page.evaluate(
        """async () => {
            const { People } = await import('/static/js/people.js');
            const list = document.body.appendChild(document.createElement('ul'));
            const search = document.body.appendChild(document.createElement('input'));
            search.id = 'searched';
            const names = ['Ada', 'GRACE', 'Grażyna', 'علي', 'Lin', 'Олена', '中村 さくら', 'Zoë'];
            const people = new People({ list, search });
            window.show = (count) => people.show(new Map(names.slice(0, count).map((name, id) =>
                [id, { id, name, muted: true, camera: false, screen: false, hand: false }])), 0);
            window.found = () => [...list.children].filter((row) => !row.hidden)
                .map((row) => row.querySelector('bdi').textContent);
        }"""
    )
    await page.evaluate("show(7)")
    assert await page.is_hidden("#searched")  # seven are seen at a glance
    await page.evaluate("show(8)")
    for typed, names in (("gra", ["GRACE", "Grażyna"]), ("عل", ["علي"]), ("さく", ["中村 さくら"])):
        await page.fill("#searched", typed)
        assert await page.evaluate("found()") == names
    await page.fill("#searched", "")
    assert len(await page.evaluate("found()")) == 8


async def test_discs_have_the_colours_of_the_composed_picture(page: Page, url: str) -> None:
    import zlib

    from calliope.mixer import theme

    await page.goto(url)
    names = ["p1", "p27", "Ада", ""]
    sums = await page.evaluate(
        "async (names) => names.map((await import('/static/js/dom.js')).crc32)", names
    )
    assert sums == [zlib.crc32(name.encode()) for name in names]
    source = (static_dir() / "js" / "dom.js").read_text("utf-8")
    discs = [theme.from_rgb(int(each, 16)) for each in re.findall(r"'#([0-9a-f]{6})'", source)]
    assert tuple(discs) == theme.DISCS


async def test_every_module_of_a_visit_is_fetched_at_once() -> None:
    page_text = (static_dir() / "index.html").read_text("utf-8")
    preloaded = set(re.findall(r'rel="modulepreload" href="/static/js/(\w+)\.js"', page_text))
    needed, fresh = set(), {"main"}
    while fresh:
        needed |= fresh
        sources = [(static_dir() / "js" / f"{name}.js").read_text("utf-8") for name in fresh]
        found = re.findall(r"^import .* from '\./(\w+)\.js';$", "\n".join(sources), re.MULTILINE)
        fresh = set(found) - needed
    assert preloaded == needed - {"main"}


async def test_the_page_speaks_the_language_of_its_browser(browser: Browser, url: str) -> None:
    for locale, words in (("de-AT", "Gespräch beginnen"), ("xx", "Start a call")):
        context = await browser.new_context(locale=locale)
        page = await context.new_page()
        await page.goto(url)
        assert await text(page, "#start span") == words
        assert await page.get_attribute("html", "lang") == ("de" if locale == "de-AT" else "en")
        await context.close()


async def test_every_language_is_whole_and_puts_the_same_things_in() -> None:
    def read(path: Path) -> dict[str, list[str]]:
        words = json.loads(path.read_text("utf-8"))
        return {key: sorted(re.findall(r"\{\w+\}", text)) for key, text in words.items()}

    folder = static_dir() / "text"
    english = read(folder / "en.json")
    languages = {path.stem for path in folder.glob("*.json")}
    assert {path: read(folder / f"{path}.json") == english for path in languages} == dict.fromkeys(
        languages, True
    )
    spoken = re.search(r"spoken = \[(.*)\]", (static_dir() / "js" / "early.js").read_text("utf-8"))
    assert spoken is not None
    assert set(re.findall(r"'(\w+)'", spoken[1])) == languages


async def test_every_word_the_page_asks_for_is_written_and_no_other() -> None:
    words = set(json.loads((static_dir() / "text" / "en.json").read_text("utf-8")))
    sources = [*static_dir().glob("*.html"), *(static_dir() / "js").glob("*.js")]
    page_text = "\n".join(path.read_text("utf-8") for path in sources)
    asked = set(re.findall(r"data-(?:text|label|placeholder)=\"([a-z_.]+)\"", page_text))
    asked |= set(re.findall(r"'((?!calliope)[a-z]+\.[a-z_]+)'", page_text))
    assert asked - words == set()
    by_code = {word for word in words if word.startswith(("trouble.", "problem."))}
    built = {word for word in words if re.match(r"panel\.(chat|people)$", word)}
    assert words - asked - by_code - built == set()
