"""The video mixer, ticked by hand: layouts, keyframes, renditions, what is left out when still."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from calliope.clock import FakeClock, SystemClock
from calliope.media import Frame
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Compositor, TilePicture, build_compositor
from calliope.mixer.encoder import Rendition, VideoEncoder, parse_renditions
from calliope.mixer.scene import Person, Scene, TickOutput
from calliope.mixer.video import VideoMixer
from calliope.mixer.view import SETTLE_TICKS
from tests.mixer.desk import CANVAS, FPS, TOP, Camera, Desk, NoLabels, Stream, decode, sample
from tests.waiting import wait_until


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


def test_an_upright_phone_is_shown_whole_and_cut_again_when_turned() -> None:
    desk = Desk()
    phone = Camera(60, (90, 160))
    people = (Person("p1", "Ada", camera=phone), Person("p2", "Lin", camera=Camera(90)))
    desk.mixer.show(Scene(people, frozenset({TOP})))
    assert [tile.fit for tile in desk.tick().layouts[0].tiles] == ["contain", "crop"]
    phone.paint(61, (160, 90))
    assert [tile.fit for tile in desk.tick().layouts[0].tiles] == ["crop", "crop"]
    phone.paint(62, (160, 120))
    assert desk.tick().layouts == ()


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


def test_views_and_renditions_cost_once_however_many_watch_and_nothing_unwatched() -> None:
    desk = Desk(("180p:300", "90p:100"))
    people = (Person("p1", "Ada", camera=Camera(60)), Person("p2", "Lin", camera=Camera(90)))
    for watched, compositions, encodings in (
        ({TOP}, 1, 1),
        ({TOP, ("grid", "90p")}, 1, 2),
        ({TOP, ("speaker", "180p"), ("speaker", "90p")}, 2, 3),
        (set(), 0, 0),
    ):
        desk.mixer.show(Scene(people, frozenset(watched)))
        desk.composed.clear()
        before = sample(desk.metrics, "calliope_encode_seconds_count")
        desk.tick()
        assert len(desk.composed) == compositions
        assert sample(desk.metrics, "calliope_encode_seconds_count") - before == encodings


def test_who_goes_to_and_fro_costs_no_encoder_and_who_stays_away_lets_it_be_freed() -> None:
    desk = Desk(("180p:300", "90p:100"))
    people = (Person("p1", "Ada", camera=Camera(60)),)
    low: Stream = ("grid", "90p")
    both = frozenset({TOP, low})
    desk.mixer.show(Scene(people, both))
    desk.tick()
    view = desk.mixer._views["grid"]
    encoder = view.encoder("90p")
    for _ in range(3):
        desk.mixer.show(Scene(people, frozenset({TOP})))
        desk.tick()
        desk.clock.advance(s=4)
        desk.mixer.show(Scene(people, both))
        assert low in {key for _ in range(FPS) for key, _ in desk.tick().frames}
        assert view.encoder("90p") is encoder
    desk.mixer.show(Scene(people, frozenset({TOP})))
    desk.tick()
    desk.clock.advance(s=6)
    desk.tick()
    assert desk.mixer._views == {"grid": view}
    assert view.encoder("90p") is not encoder
    desk.mixer.show(Scene(people))
    desk.tick()
    desk.clock.advance(s=6)
    desk.tick()
    assert desk.mixer._views == {}


def test_who_comes_back_to_a_stream_begins_at_a_keyframe() -> None:
    desk = Desk(("180p:300", "90p:100"))
    people = (Person("p1", "Ada", camera=Camera(60)),)
    low: Stream = ("grid", "90p")
    desk.mixer.show(Scene(people, frozenset({TOP, low})))
    desk.tick(FPS)
    desk.mixer.show(Scene(people, frozenset({TOP})))
    desk.tick(FPS)
    desk.mixer.show(Scene(people, frozenset({TOP, low})))
    assert dict(desk.tick().frames)[low].keyframe


def test_a_new_layout_lands_whole_in_the_frame_its_message_names() -> None:
    """Dark and bright cameras change places: no frame shows some of both layouts."""
    desk = Desk(("180p:1000",))
    dark, bright = Camera(50), Camera(200)
    ada = Person("p1", "Ada", camera=dark, led_ns=2)
    lin = Person("p2", "Lin", camera=bright, led_ns=1)
    view: Stream = ("speaker", "180p")
    desk.mixer.show(Scene((ada, lin), frozenset({view})))
    outputs = [desk.tick() for _ in range(8)]
    desk.mixer.show(Scene((ada, replace(lin, led_ns=3)), frozenset({view})))
    outputs += [desk.tick() for _ in range(8)]
    changed = [output for output in outputs if output.layouts]
    assert [output.pts_90k for output in changed] == [outputs[0].pts_90k, outputs[8].pts_90k]
    pictures = decode([frame for output in outputs for _, frame in output.frames])
    assert len(pictures) == len(outputs)
    for output, picture in zip(outputs, pictures, strict=True):
        layout = changed[output.pts_90k >= changed[1].pts_90k].layouts[0]
        luma = picture.to_ndarray()
        for tile in layout.tiles:
            seen = luma[tile.y + 4 : tile.y + tile.h - 4, tile.x + 4 : tile.x + tile.w - 4]
            grey = 50 if tile.id == "p1" else 200
            assert abs(float(np.median(seen)) - grey) < 8
            assert float(np.mean(np.abs(seen - float(grey)) < 25)) > 0.97


def test_tick_health_is_counted() -> None:
    desk = Desk()
    camera = Camera(60)
    desk.mixer.show(Scene((Person("p1", "Ada", camera=camera),), frozenset({TOP})))
    desk.clock.advance(ms=20)
    desk.tick()
    desk.tick()
    camera.paint(70)
    desk.tick()
    assert sample(desk.metrics, "calliope_compose_seconds_count") == 3
    assert sample(desk.metrics, "calliope_encode_seconds_count") == 3
    assert sample(desk.metrics, "calliope_frame_age_seconds_count") == 2
    assert sample(desk.metrics, "calliope_frame_age_seconds_sum") > 0.04
    text = desk.metrics.render().decode()
    for name in ("late_ticks", "skipped_ticks", "ticks"):
        assert f"# TYPE calliope_{name}_total counter" in text


def test_the_threads_late_and_skipped_ticks_are_counted() -> None:
    clock = FakeClock()
    desk = Desk(clock=clock)
    labels = {"kind": "video"}
    desk.mixer.start()
    wait_until(lambda: sample(desk.metrics, "calliope_ticks_total", labels) >= 1)
    clock.advance(ms=110)
    wait_until(lambda: sample(desk.metrics, "calliope_skipped_ticks_total", labels) == 2)
    wait_until(lambda: sample(desk.metrics, "calliope_late_ticks_total", labels) == 1)
    desk.mixer.stop()
    desk.mixer.join()


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


def test_a_picture_that_stands_still_is_told_from_one_that_moves_without_a_look_at_pixels() -> None:
    """A tile that shows what it showed keeps its very picture object, also when another moves."""
    desk = Desk()
    ada, lin = Camera(60), Camera(90)
    people = (Person("p1", "Ada", camera=ada), Person("p2", "Lin", camera=lin))
    desk.mixer.show(Scene(people, frozenset({TOP})))
    desk.tick(2)
    first, second = desk.pictures[-2:]
    assert all(one is other for one, other in zip(first, second, strict=True))
    assert desk.touched[-1] == 0
    ada.paint(61)
    desk.tick()
    moved = desk.pictures[-1]
    assert moved[0].frame is not second[0].frame
    assert moved[1] is second[1]
    assert desk.touched[-1] == 1
    desk.mixer.show(Scene((people[0], replace(people[1], speaking=True)), frozenset({TOP})))
    desk.tick()
    assert desk.pictures[-1][1].speaking
    assert desk.touched[-1] == 1


@pytest.mark.parametrize("fault", ["chroma too small", "not bytes", "every other column", "empty"])
def test_a_malformed_frame_costs_its_own_tile_and_is_counted(fault: str) -> None:
    desk = Desk()
    good, bad = Camera(60), Camera(90)
    people = (Person("p1", "Ada", camera=good), Person("p2", "Lin", camera=bad))
    desk.mixer.show(Scene(people, frozenset({TOP})))
    desk.tick()
    frame = bad.latest()
    assert frame is not None
    broken = {
        "chroma too small": replace(frame, u=frame.u[1:], serial=9),
        "not bytes": replace(frame, y=frame.y.astype(np.uint16), serial=9),
        "every other column": replace(frame, y=frame.y[:, ::2], u=frame.u[:, :40], serial=9),
        "empty": replace(frame, y=frame.y[:0], serial=9),
    }[fault]
    bad.show(broken)
    good.paint(61)
    assert len(desk.tick(3).frames) == 1
    assert [picture.frame is None for picture in desk.pictures[-1]] == [False, True]
    labels = {"queue": "frame", "why": "malformed"}
    assert sample(desk.metrics, "calliope_drops_total", labels) == 1  # one frame, seen three times
    assert sample(desk.metrics, "calliope_drops_total", {"queue": "tick", "why": "error"}) == 0
    bad.show(replace(frame, serial=10))
    desk.tick()
    assert desk.pictures[-1][1].frame is not None


def test_a_view_that_fails_costs_the_others_nothing_and_comes_back_with_a_keyframe() -> None:
    desk = Desk()
    camera = Camera(60)
    speaker: Stream = ("speaker", "180p")
    people = (Person("p1", "Ada", camera=camera), Person("p2", "Lin"))
    desk.mixer.show(Scene(people, frozenset({TOP, speaker})))
    assert {key for key, _ in desk.tick().frames} == {TOP, speaker}
    grid_view = desk.mixer._views["grid"]
    whole = grid_view.compose

    def break_once() -> None:
        grid_view.compose = whole  # type: ignore[method-assign]
        raise ValueError("a frame of a shape that no canvas takes")

    grid_view.compose = break_once  # type: ignore[method-assign]
    assert {key for key, _ in desk.tick().frames} == {speaker}
    for _ in range(20):
        camera.paint(61)
        frames = dict(desk.tick().frames)
        if frames[TOP].keyframe:
            break
    else:
        raise AssertionError("the view that failed never began anew")


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
