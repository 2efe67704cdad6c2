"""A shared screen through real WebRTC: its text can be read by whoever watches."""

from __future__ import annotations

from difflib import SequenceMatcher

import av
import numpy as np

from calliope.media import Plane
from tests.e2e.server_process import run_server
from tests.e2e.visitor import Camera, Visitor, until, visitors
from tests.mixer.screens import TextScreen, read_text

SMALL = (
    *("--mixer-width", "640", "--mixer-height", "360", "--mixer-fps", "15"),
    *("--mixer-renditions", "360p:800"),
)
SIZE = (800, 600)
LINES = 12


class SharedScreen(Camera):
    """A page of 12-pixel text, captured 15 times a second."""

    def __init__(self, page: Plane) -> None:
        super().__init__((16, 128, 128), SIZE)
        grey = np.full((SIZE[1] // 2, SIZE[0]), 128, np.uint8)
        self._frame = av.VideoFrame.from_ndarray(np.concatenate([page, grey]), "yuv420p")


def stage(visitor: Visitor) -> Plane | None:
    """The screen's tile in the newest picture, luma; None while there is none of its canvas."""
    layout, frame = visitor.layout(), visitor.frame
    if layout is None or frame is None or layout["canvas"] != [frame.width, frame.height]:
        return None
    tile = next((tile for tile in layout["tiles"] if tile["source"] == "screen"), None)
    if tile is None or (tile["w"], tile["h"]) != SIZE:
        return None
    luma = frame.to_ndarray().astype(np.uint8)
    part: Plane = luma[tile["y"] : tile["y"] + tile["h"], tile["x"] : tile["x"] + tile["w"]]
    return part


async def test_a_viewer_reads_12_pixel_text_on_a_shared_screen() -> None:
    page = TextScreen(*SIZE)
    frame = page.latest()
    assert frame is not None
    async with run_server(*SMALL) as server, visitors() as (http, present):
        ada, grace = Visitor(camera=Camera((120, 60, 70))), Visitor()
        screen = Visitor(camera=SharedScreen(frame.y))
        present += [ada, grace, screen]
        await grace.call(http, f"{server.url}/desk", "Grace")
        await ada.call(http, f"{server.url}/desk", "Ada")
        await screen.call(
            http, f"{server.url}/desk", "", {"Calliope-Session": ada.secret}, {"source": "screen"}
        )

        rows = page.top_of(LINES)  # above the presenter's name

        def is_sharp() -> bool:
            seen = stage(grace)
            if seen is None:
                return False
            return float(np.mean((seen[:rows] - frame.y[:rows].astype(float)) ** 2)) < 60

        await until(is_sharp, timeout_s=90)
        layout, seen = grace.layout(), stage(grace)
        assert layout is not None
        assert layout["view"] == "presenter"
        assert seen is not None
        read = read_text(seen[:rows])
        words = [word for line in page.lines[:LINES] for word in line.split()]
        found = SequenceMatcher(None, words, read, autojunk=False).get_matching_blocks()
        assert sum(block.size for block in found) >= 0.95 * len(words)
        await screen.close()
        await until(lambda: (grace.layout() or {}).get("canvas") == [640, 360])
