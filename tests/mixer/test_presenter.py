"""The presenter view: a canvas that follows the shared screen, at 15 fps, and text one can read."""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise

import av
import numpy as np
import pytest

from calliope.media import EncodedFrame, Frame
from calliope.mixer.encoder import Rendition, screen_renditions
from calliope.mixer.layout import presenter
from calliope.mixer.placement import place
from calliope.mixer.scene import Person, Scene, TickOutput
from calliope.mixer.view import SCREEN_MAX, SETTLE_TICKS, size_screen_canvas
from tests.mixer.desk import FPS, Camera, Desk, Stream, decode
from tests.mixer.screens import TextScreen, read_text

HD = (1280, 720)
VIEW: Stream = ("presenter", "720p")
LINES = 15
"""How many lines of a screen are read: Tesseract takes its time."""


class Screen:
    """A grey screen that changes with every look."""

    def __init__(self, width: int, height: int) -> None:
        self._serial = 0
        self.size = width, height

    def latest(self) -> Frame | None:
        self._serial += 1
        width, height = self.size
        chroma = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
        luma = np.full((height, width), 60 + self._serial % 100, np.uint8)
        return Frame(luma, chroma, chroma, self._serial, 0)


def people(screen: Screen | TextScreen, others: int = 2) -> tuple[Person, ...]:
    cameras = [Person(f"p{seat}", "x", camera=Camera(12 * seat)) for seat in range(2, others + 2)]
    return Person("p1", "Ada", camera=Camera(90), screen=screen), *cameras


def desk_with(screen: Screen | TextScreen) -> Desk:
    desk = Desk(("720p:1200", "360p:400"), HD)
    desk.mixer.show(Scene(people(screen), frozenset({VIEW})))
    return desk


@pytest.mark.parametrize("size", [(1280, 720), (1600, 900), (1024, 768), (600, 800), (642, 360)])
def test_a_screen_that_fits_is_shown_pixel_for_pixel(size: tuple[int, int]) -> None:
    for others in (0, 1, 5, 12):
        room = people(Screen(*size), others)
        canvas = size_screen_canvas(presenter, room, size)
        tile = presenter(room, canvas)[0]
        assert tile.w >= size[0]
        assert tile.h >= size[1]
        assert tile.w == size[0] or tile.h == size[1]
        assert canvas[0] <= SCREEN_MAX[0]
        assert canvas[1] <= SCREEN_MAX[1]


@pytest.mark.parametrize(
    "size", [(1920, 1080), (2560, 1440), (3840, 1000), (1000, 3000), (6, 3000)]
)
def test_a_larger_one_gets_the_largest_canvas_of_its_shape(size: tuple[int, int]) -> None:
    canvas = size_screen_canvas(presenter, people(Screen(*size)), size)
    assert canvas[0] <= SCREEN_MAX[0]
    assert canvas[1] <= SCREEN_MAX[1]
    assert canvas[0] == SCREEN_MAX[0] or canvas[1] == SCREEN_MAX[1]
    assert canvas[0] % 2 == canvas[1] % 2 == 0


def test_a_tiny_window_gets_a_canvas_on_which_names_can_be_read() -> None:
    assert size_screen_canvas(presenter, people(Screen(64, 36)), (64, 36)) >= (640, 360)


def test_the_layout_names_the_canvas_and_its_frame_is_a_keyframe_of_that_size() -> None:
    desk = desk_with(Screen(1600, 900))
    first = desk.tick()
    assert first.layouts[0].canvas == size_screen_canvas(
        presenter, people(Screen(2, 2)), (1600, 900)
    )
    (key, frame), *_ = first.frames
    assert key == VIEW
    assert frame.keyframe
    picture = decode([frame])[0]
    assert (picture.width, picture.height) == first.layouts[0].canvas


def test_a_raised_hand_stands_on_the_camera_and_leaves_the_screen_alone() -> None:
    desk = desk_with(Screen(*HD))
    first, *others = people(Screen(*HD))
    desk.mixer.show(Scene((replace(first, hand=True), *others), frozenset({VIEW})))
    desk.tick()
    assert {(p.tile.id, p.tile.source) for p in desk.pictures[-1] if p.hand} == {("p1", "camera")}


def test_another_size_of_the_screen_lands_whole_in_one_tick() -> None:
    """Old pixels before, new ones from the named frame on; one decoder takes them all."""
    screen = Screen(1280, 720)
    desk = desk_with(screen)
    outputs = [desk.tick() for _ in range(2 * FPS)]
    screen.size = 800, 600
    outputs += [desk.tick() for _ in range(2 * FPS)]
    changed = [output for output in outputs if output.layouts]
    assert len(changed) == 2
    assert changed[1].frames[0][1].keyframe
    frames = [frame for output in outputs for _, frame in output.frames]
    for frame, picture in zip(frames, decode(frames), strict=True):
        canvas = changed[frame.pts_90k >= changed[1].pts_90k].layouts[0].canvas
        assert (picture.width, picture.height) == canvas


def test_a_window_that_is_dragged_changes_the_canvas_once_a_second() -> None:
    screen = Screen(1000, 600)
    desk = desk_with(screen)
    layouts = 0
    for step in range(3 * FPS):
        screen.size = 1000 + 2 * step, 600
        layouts += len(desk.tick().layouts)
    assert 2 <= layouts <= 4


def test_a_screen_is_sent_15_times_a_second_on_the_rooms_own_clock() -> None:
    desk = desk_with(Screen(640, 360))
    outputs = [desk.tick() for _ in range(2 * FPS)]
    sent = [output.pts_90k for output in outputs if output.frames]
    assert len(sent) == FPS
    assert {b - a for a, b in pairwise(sent)} == {6000}


def test_the_ordinary_canvas_comes_back_when_the_screen_ends() -> None:
    desk = desk_with(Screen(1600, 900))
    desk.tick(4)
    nobody_shares = (Person("p1", "Ada", camera=Camera(90)), Person("p2", "Lin"))
    desk.mixer.show(Scene(nobody_shares, frozenset({VIEW})))
    outputs = [desk.tick() for _ in range(4)]
    changed = [output for output in outputs if output.layouts]
    assert [layout.canvas for output in changed for layout in output.layouts] == [HD]
    assert changed[0].frames[0][1].keyframe
    assert sum(len(output.frames) for output in outputs) >= 3  # 30 a second again


def test_only_the_first_rendition_gets_the_bitrate_of_its_pixels() -> None:
    ordinary = (Rendition("720p", 1280, 720, 1200), Rendition("360p", 640, 360, 400))
    assert screen_renditions(ordinary, HD, (1920, 1080)) == (
        Rendition("720p", 1920, 1080, 2700),
        Rendition("360p", 960, 540, 400),
    )
    assert screen_renditions(ordinary, HD, (640, 480))[0] == Rendition("720p", 640, 480, 1200)


def received(desk: Desk, first: TickOutput, ticks: int) -> tuple[list[EncodedFrame], av.VideoFrame]:
    """All frames of some ticks after the first, and the last picture a viewer sees."""
    outputs = [first, *(desk.tick() for _ in range(ticks))]
    frames = [frame for output in outputs for _, frame in output.frames]
    return frames, decode(frames)[-1]


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_small_text_on_a_shared_screen_can_be_read(size: tuple[int, int]) -> None:
    """12-pixel text is read back by OCR from what a viewer decodes, also where it was scaled."""
    screen = TextScreen(*size)
    desk = desk_with(screen)
    first = desk.tick()
    frames, picture = received(desk, first, 2 * SETTLE_TICKS)
    tile = first.layouts[0].tiles[0]
    at = place(*size, tile.w, tile.h, "contain")
    top, left, rows = tile.y + at.y, tile.x + at.x, screen.top_of(LINES) * at.h // size[1]
    luma = picture.to_ndarray().astype(np.uint8)
    read = read_text(luma[top : top + rows, left : left + at.w])
    expected = [word for line in screen.lines[:LINES] for word in line.split()]
    found = SequenceMatcher(None, expected, read, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in found) >= 0.97 * len(expected)
    assert sum(len(p) for frame in frames for p in frame.payloads) * 8 < 2_700_000
