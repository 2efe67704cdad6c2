"""The video mixer, ticked by hand: layouts, keyframes, renditions, what is left out when still."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TypeAlias

import av
import numpy as np
import pytest

from calliope import vp8
from calliope.clock import FakeClock, SystemClock, Tick
from calliope.media import EncodedFrame, Frame
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Compositor, TilePicture, build_compositor
from calliope.mixer.encoder import Rendition, VideoEncoder, parse_renditions
from calliope.mixer.mask import Mask
from calliope.mixer.scene import Person, Scene, TickOutput, ViewName
from calliope.mixer.video import SETTLE_TICKS, VideoMixer
from tests.waiting import wait_until

Stream: TypeAlias = tuple[ViewName, str]

CANVAS = (320, 180)
FPS = 30
TOP: Stream = ("grid", "180p")


class NoLabels:
    """A label source without a single glyph."""

    generation = 0

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        return None

    def initials(self, name: str, height_px: int) -> Mask | None:
        return None

    def mark(self, kind: str, size_px: int) -> Mask | None:
        return None


class Camera:
    """A flat grey picture that changes whenever ``paint`` is called."""

    def __init__(self, grey: int) -> None:
        self._serial = 0
        self.paint(grey)

    def paint(self, grey: int) -> None:
        self._serial += 1
        chroma = np.full((45, 80), 128, np.uint8)
        luma = np.full((90, 160), grey, np.uint8)
        self._frame = Frame(luma, chroma, chroma, self._serial, 0)

    def latest(self) -> Frame | None:
        return self._frame


class Desk:
    """A mixer ticked by hand."""

    def __init__(self, renditions: Sequence[str] = ("180p:300",)) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.outputs: list[TickOutput] = []
        self.mixer = VideoMixer(
            fps=FPS,
            canvas=CANVAS,
            renditions=parse_renditions(tuple(renditions), CANVAS),
            layouts={"grid": partial(layout.grid), "speaker": partial(layout.speaker)},
            build_compositor=lambda: build_compositor("numba", NoLabels()),
            clock=self.clock,
            metrics=self.metrics,
            deliver=self.outputs.append,
        )
        self._index = 0

    def tick(self, count: int = 1) -> TickOutput:
        for _ in range(count):
            output = self.mixer.tick(Tick(self._index, 0, 0))
            self._index += 1
        return output


def decode(frames: Sequence[EncodedFrame]) -> list[av.VideoFrame]:
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    pictures = []
    for frame in frames:
        data = b"".join(vp8.parse_payload(payload).data for payload in frame.payloads)
        pictures += decoder.decode(av.Packet(data))
    return pictures


def test_what_is_watched_is_composed_and_decodes_to_the_right_picture() -> None:
    desk = Desk()
    people = (Person("p1", "Ada", camera=Camera(60)), Person("p2", "Lin", camera=Camera(200)))
    desk.mixer.show(Scene(people, frozenset({TOP})))
    frames = []
    output = desk.tick()
    assert [tile.id for tile in output.layouts[0].tiles] == ["p1", "p2"]
    frames += [frame for _, frame in output.frames]
    for _ in range(10):
        frames += [frame for _, frame in desk.tick().frames]
    picture = decode(frames)[-1].to_ndarray()
    for tile, grey in zip(output.layouts[0].tiles, (60, 200), strict=True):
        middle = picture[tile.y + tile.h // 4 : tile.y + tile.h // 2, tile.x + 20 : tile.x + 60]
        assert abs(float(middle.mean()) - grey) < 6


def test_nothing_watched_nothing_made() -> None:
    desk = Desk()
    desk.mixer.show(Scene((Person("p1", "Ada", camera=Camera(60)),)))
    assert desk.tick(3).frames == ()


def test_a_layout_is_told_once_and_again_when_it_changes() -> None:
    desk = Desk()
    ada, lin = Person("p1", "Ada"), Person("p2", "Lin")
    desk.mixer.show(Scene((ada,), frozenset({TOP})))
    assert [layout.serial for layout in desk.tick().layouts] == [1]
    assert desk.tick().layouts == ()
    desk.mixer.show(Scene((ada, lin), frozenset({TOP})))
    assert [layout.serial for layout in desk.tick().layouts] == [2]
    desk.mixer.show(Scene((Person("p1", "Ada", muted=True), lin), frozenset({TOP})))
    assert desk.tick().layouts == ()


def test_the_first_frame_is_a_keyframe_and_requests_are_coalesced() -> None:
    desk = Desk()
    camera = Camera(60)
    desk.mixer.show(Scene((Person("p1", "Ada", camera=camera),), frozenset({TOP})))
    keyframes = []
    for index in range(60):
        camera.paint(60 + index)
        if index in (1, 2, 3, 40):
            desk.mixer.request_keyframe(*TOP)
            desk.mixer.request_keyframe(*TOP)
        keyframes += [index for _, frame in desk.tick().frames if frame.keyframe]
    assert keyframes == [0, 15, 40]


def test_a_still_picture_settles_and_is_then_sent_once_a_second() -> None:
    desk = Desk()
    desk.mixer.show(Scene((Person("p1", "Ada", camera=Camera(60)),), frozenset({TOP})))
    sent = [len(desk.tick().frames) for _ in range(SETTLE_TICKS + 1 + 3 * FPS)]
    assert sum(sent[: SETTLE_TICKS + 1]) == SETTLE_TICKS + 1
    assert sum(sent[SETTLE_TICKS + 1 :]) == 3
    desk.mixer.request_keyframe(*TOP)
    assert desk.tick().frames[0][1].keyframe


def test_renditions_are_made_only_while_watched_and_have_their_size() -> None:
    desk = Desk(("180p:300", "90p:100"))
    people = (Person("p1", "Ada", camera=Camera(90)),)
    small: Stream = ("grid", "90p")
    desk.mixer.show(Scene(people, frozenset({TOP, small})))
    frames = dict(desk.tick().frames)
    picture = decode([frames[small]])[0]
    assert (picture.width, picture.height) == (160, 90)
    assert abs(float(picture.to_ndarray()[20:60, 40:120].mean()) - 90) < 6
    desk.mixer.show(Scene(people, frozenset({small})))
    assert [key for key, _ in desk.tick().frames] == [small]


def test_a_view_watched_again_starts_with_its_layout_and_a_keyframe() -> None:
    desk = Desk()
    people = (Person("p1", "Ada"), Person("p2", "Lin"))
    desk.mixer.show(Scene(people, frozenset({TOP})))
    desk.tick()
    speaker: Stream = ("speaker", "180p")
    desk.mixer.show(Scene(people, frozenset({speaker})))
    output = desk.tick()
    assert [layout.view for layout in output.layouts] == ["speaker"]
    assert output.frames[0][1].keyframe


def test_a_broken_source_costs_ticks_not_the_thread() -> None:
    class Broken:
        def latest(self) -> Frame | None:
            raise OSError("gone")

    outputs: list[TickOutput] = []
    metrics = Metrics()
    mixer = VideoMixer(
        fps=100,
        canvas=CANVAS,
        renditions=(Rendition("180p", *CANVAS, 300),),
        layouts={"grid": partial(layout.grid)},
        build_compositor=lambda: build_compositor("numba", NoLabels()),
        clock=SystemClock(),
        metrics=metrics,
        deliver=outputs.append,
    )
    mixer.show(Scene((Person("p1", "Ada", camera=Broken()),), frozenset({TOP})))
    mixer.start()
    failed = metrics.drops.labels(queue="tick", why="error")
    wait_until(lambda: failed._value.get() >= 2)
    assert outputs == []
    mixer.show(Scene((Person("p1", "Ada"),), frozenset({TOP})))
    wait_until(lambda: len(outputs) >= 2)
    mixer.stop()
    mixer.join()
    assert not mixer.alive


def test_rendition_sizes_follow_the_canvas() -> None:
    assert parse_renditions(("720p:1200", "180p:150"), (1280, 720)) == (
        Rendition("720p", 1280, 720, 1200),
        Rendition("180p", 320, 180, 150),
    )
    assert parse_renditions(("360p:400",), (960, 720))[0].width == 480


def test_an_encoder_refuses_work_after_its_end() -> None:
    encoder = VideoEncoder(Rendition("90p", 160, 90, 100), FPS)
    encoder.close()
    encoder.close()
    with pytest.raises(ValueError, match="close"):
        encoder.encode(Canvas(160, 90), 0)


def test_the_compositor_is_an_interface() -> None:
    """A compositor of one's own needs nothing but ``compose``."""

    class Mine:
        def compose(self, canvas: Canvas, pictures: Sequence[TilePicture]) -> int:
            canvas.y[:] = 99
            return len(pictures)

    mine: Compositor = Mine()
    assert mine.compose(Canvas(32, 32), []) == 0
