"""What lands on the canvas, what is left alone, and what is drawn over the pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.errors import ConfigError
from calliope.media import Frame
from calliope.mixer import overlay, theme
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import (
    ASK_AGAIN_TICKS,
    LATE_OVERLAYS,
    Compositor,
    TilePicture,
    build_compositor,
    warm_up,
)
from calliope.mixer.layout import grid
from calliope.mixer.placement import place
from calliope.mixer.resample import Span
from calliope.mixer.scene import Fit, Person, Tile
from tests.mixer.planes import Blocks, flat, noise, resampled

BACKENDS = ("numba", "opencv")
LEFT = Tile("a", "camera", 0, 0, 126, 72, "crop")
RIGHT = Tile("b", "camera", 130, 0, 126, 72, "crop")


def picture(tile: Tile, frame: Frame | None, name: str = "") -> TilePicture:
    return TilePicture(tile, frame, name)


def inside(canvas: Canvas, tile: Tile) -> list[np.ndarray]:
    planes = []
    for plane, part in ((canvas.y, 1), (canvas.u, 2), (canvas.v, 2)):
        x, y, w, h = (value // part for value in (tile.x, tile.y, tile.w, tile.h))
        planes.append(plane[y : y + h, x : x + w])
    return planes


@pytest.fixture(params=BACKENDS)
def compositor(request: pytest.FixtureRequest) -> Compositor:
    return build_compositor(request.param, Blocks())


def test_each_picture_lands_in_its_tile_and_gaps_are_background(compositor: Compositor) -> None:
    canvas = Canvas(256, 72)
    red, blue = flat(320, 180, 81, 90, 240), flat(64, 36, 41, 240, 110)
    assert compositor.compose(canvas, [picture(LEFT, red), picture(RIGHT, blue)]) == 2
    for tile, colour in ((LEFT, (81, 90, 240)), (RIGHT, (41, 240, 110))):
        for plane, value in zip(inside(canvas, tile), colour, strict=True):
            assert (plane == value).all()
    assert (canvas.y[:, 126:130] == theme.BACKGROUND.y).all()
    assert (canvas.u[:, 63:65] == theme.BACKGROUND.u).all()


def test_nothing_new_touches_nothing(compositor: Compositor) -> None:
    canvas = Canvas(256, 72)
    pictures = [picture(LEFT, noise(64, 36), "Ada"), picture(RIGHT, None, "Bob")]
    compositor.compose(canvas, pictures)
    before = canvas.flat.copy()
    canvas.flat[:] = 7
    assert compositor.compose(canvas, pictures) == 0
    equal_but_other_objects = [one._replace() for one in pictures]
    assert compositor.compose(canvas, equal_but_other_objects) == 0
    assert (canvas.flat == 7).all()
    assert not (before == 7).all()


def test_a_new_frame_repaints_its_tile_alone(compositor: Compositor) -> None:
    canvas = Canvas(256, 72)
    still = picture(RIGHT, noise(64, 36))
    compositor.compose(canvas, [picture(LEFT, noise(64, 36, serial=1)), still])
    canvas.flat[:] = 7
    assert compositor.compose(canvas, [picture(LEFT, noise(64, 36, serial=2)), still]) == 1
    assert all((plane == 7).all() for plane in inside(canvas, RIGHT))
    assert not any((plane == 7).all() for plane in inside(canvas, LEFT))
    for plane in inside(canvas, LEFT):
        plane[:] = 7
    assert (canvas.flat == 7).all()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Grace"},
        {"muted": True},
        {"stalled": True},
        {"speaking": True},
        {"hand": True},
        {"frame": None},
        {"frame": noise(80, 45)},
    ],
)
def test_every_change_of_a_caption_shows(compositor: Compositor, change: dict[str, object]) -> None:
    canvas = Canvas(256, 72)
    first = picture(LEFT, noise(64, 36), "Ada")
    compositor.compose(canvas, [first])
    before = canvas.flat.copy()
    changed = first._replace(**change)  # type: ignore[arg-type]
    assert compositor.compose(canvas, [changed]) == 1
    assert not (canvas.flat == before).all()
    assert compositor.compose(canvas, [first]) == 1
    assert (canvas.flat == before).all()


def test_a_new_layout_repaints_the_gaps(compositor: Compositor) -> None:
    canvas = Canvas(256, 72)
    frame = flat(64, 36, 81, 90, 240)
    compositor.compose(canvas, [picture(LEFT, frame), picture(RIGHT, frame)])
    alone = replace(LEFT, x=66)
    assert compositor.compose(canvas, [picture(alone, frame)]) == 1
    fresh = Canvas(256, 72)
    build_compositor("numba", Blocks()).compose(fresh, [picture(alone, frame)])
    assert (canvas.flat == fresh.flat).all()


def test_an_emptied_room_is_background_and_that_is_a_change(compositor: Compositor) -> None:
    canvas = Canvas(256, 72)
    compositor.compose(canvas, [picture(LEFT, noise(64, 36))])
    assert compositor.compose(canvas, []) == 1
    assert (canvas.flat == Canvas(256, 72).flat).all()
    assert compositor.compose(canvas, []) == 0


def test_two_canvases_are_kept_apart(compositor: Compositor) -> None:
    one, other = Canvas(256, 72), Canvas(256, 72)
    pictures = [picture(LEFT, noise(64, 36))]
    assert compositor.compose(one, pictures) == 1
    assert compositor.compose(other, pictures) == 1
    assert compositor.compose(one, pictures) == 0
    assert (one.flat == other.flat).all()


def test_a_label_that_is_late_is_painted_when_it_comes() -> None:
    labels = Blocks(ready=False)
    compositor = build_compositor("numba", labels)
    canvas = Canvas(256, 72)
    pictures = [picture(LEFT, noise(64, 36), "Ada")]
    compositor.compose(canvas, pictures)
    bare = canvas.flat.copy()
    asked = labels.asked
    assert compositor.compose(canvas, pictures) == 0
    assert labels.asked == asked  # nothing new was rasterised: nothing to ask for
    labels.arrive()
    assert compositor.compose(canvas, pictures) == 1
    assert not (canvas.flat == bare).all()
    labels.arrive()
    assert compositor.compose(canvas, pictures) == 0  # complete: later masks are not for us


def test_names_that_come_all_at_once_are_drawn_a_few_a_tick_until_all_stand() -> None:
    labels = Blocks(ready=False)
    compositor, canvas = build_compositor("numba", labels), Canvas(1280, 720)
    people = [Person(str(seat), f"Person {seat}") for seat in range(25)]
    pictures = [
        picture(tile, noise(64, 36), person.name)
        for tile, person in zip(grid(people, canvas.size, "crop"), people, strict=True)
    ]
    compositor.compose(canvas, pictures)
    labels.arrive()
    drawn = [compositor.compose(canvas, pictures) for _ in range(6)]
    assert drawn == [LATE_OVERLAYS] * 4 + [25 - 4 * LATE_OVERLAYS, 0]
    named = Canvas(1280, 720)
    build_compositor("numba", Blocks()).compose(named, pictures)
    assert (canvas.flat == named.flat).all()


def test_a_label_whose_request_was_dropped_is_asked_for_again() -> None:
    labels = Blocks(ready=False)
    compositor = build_compositor("numba", labels)
    canvas = Canvas(256, 72)
    pictures = [picture(LEFT, noise(64, 36), "Ada")]
    compositor.compose(canvas, pictures)
    labels.ready = True  # without a word
    touched = [compositor.compose(canvas, pictures) for _ in range(ASK_AGAIN_TICKS + 1)]
    assert sum(touched) == 1


def test_the_name_stands_on_a_darker_plate_at_the_bottom_left() -> None:
    canvas = Canvas(256, 144)
    tile = Tile("a", "camera", 0, 0, 256, 144, "crop")
    build_compositor("numba", Blocks()).compose(
        canvas, [picture(tile, flat(64, 36, 180, 128, 128), "Ada")]
    )
    ys, xs = np.nonzero(canvas.y == theme.INK.y)
    text = overlay.text_height(144)
    assert (xs.max() - xs.min() + 1, ys.max() - ys.min() + 1) == (24, text)
    assert ys.min() > 144 - 2 * text
    assert xs.max() < 128
    plate = canvas.y[ys.min() + 2, xs.min() - 2]
    assert theme.PLATE.y < plate < 120
    assert (canvas.y[: 144 - 2 * text] == 180).all()


def test_the_name_over_a_screen_covers_little_of_it() -> None:
    """It is there to be read; over a camera of that size the same name is large."""
    covered = {}
    for source in ("camera", "screen"):
        canvas = Canvas(1280, 720)
        tile = Tile("a", source, 0, 0, 1280, 720, "contain")
        shown = flat(1280, 720, 200, 128, 128)
        build_compositor("numba", Blocks()).compose(canvas, [picture(tile, shown, "Ada Lovelace")])
        covered[source] = int((canvas.y != 200).any(axis=1).sum())
    assert 0 < 2 * covered["screen"] < covered["camera"], "rows"


def test_a_muted_mark_stands_before_the_name() -> None:
    canvas = Canvas(256, 144)
    tile = Tile("a", "camera", 0, 0, 256, 144, "crop")
    muted = TilePicture(tile, flat(64, 36, 180, 128, 128), "Ada", muted=True)
    build_compositor("numba", Blocks()).compose(canvas, [muted])
    mark = np.nonzero(canvas.y == theme.MUTED_INK.y)[1]
    name = np.nonzero(canvas.y == theme.INK.y)[1]
    assert mark.size
    assert mark.max() < name.min()


def test_a_stalled_tile_is_dimmed_and_marked() -> None:
    canvas = Canvas(256, 144)
    tile = Tile("a", "camera", 0, 0, 256, 144, "crop")
    stalled = TilePicture(tile, flat(64, 36, 180, 60, 200), "", stalled=True)
    build_compositor("numba", Blocks()).compose(canvas, [stalled])
    assert canvas.y[2, 2] == (180 * 110 + 16 * 146 + 128) // 256
    assert 60 < canvas.u[1, 1] < 128
    assert canvas.y[72, 128] == theme.STALLED_INK.y


def test_who_speaks_has_a_border_inside_the_tile() -> None:
    canvas = Canvas(256, 72)
    speaking = TilePicture(LEFT, flat(64, 36, 180, 128, 128), "", speaking=True)
    build_compositor("numba", Blocks()).compose(canvas, [speaking])
    thick = overlay.border(LEFT.h)
    edge = np.ones((72, 126), bool)
    edge[thick:-thick, thick:-thick] = False
    luma = inside(canvas, LEFT)[0]
    assert (luma[edge] == theme.SPEAKING.y).all()
    assert (luma[~edge] == 180).all()


def test_without_a_picture_there_is_a_disc_with_initials() -> None:
    canvas = Canvas(256, 144)
    tile = Tile("a", "camera", 0, 0, 256, 144, "crop")
    build_compositor("numba", Blocks()).compose(canvas, [picture(tile, None, "Ada")])
    assert canvas.y[2, 2] == theme.EMPTY_TILE.y
    assert canvas.y[72, 128] == theme.INK.y
    disc = {tuple(map(int, colour)) for colour in theme.DISCS}
    radius = 144 * 23 // 100 - 4
    beside = 72, 128 - radius
    assert (
        int(canvas.y[beside]),
        int(canvas.u[beside[0] // 2, beside[1] // 2]),
        int(canvas.v[beside[0] // 2, beside[1] // 2]),
    ) in disc


def test_contain_shows_all_of_a_portrait_camera_between_bars(compositor: Compositor) -> None:
    canvas = Canvas(256, 144)
    tile = Tile("a", "camera", 0, 0, 256, 144, "contain")
    compositor.compose(canvas, [picture(tile, flat(360, 640, 180, 90, 90))])
    across = np.nonzero(canvas.y[70] == 180)[0]
    assert (across.min(), across.max() + 1) == (88, 168)  # 144 * 360 / 640 = 81, to even
    assert (canvas.y[:, :88] == theme.EMPTY_TILE.y).all()
    assert (canvas.y[:, 168:] == theme.EMPTY_TILE.y).all()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 200),
    fit=st.sampled_from(["crop", "contain"]),
    padding=st.sampled_from([0, 5]),
    count=st.integers(1, 5),
)
def test_any_camera_in_any_grid_is_the_exact_average(
    width: int, height: int, fit: Fit, padding: int, count: int
) -> None:
    canvas = Canvas(200, 112)
    frame = noise(width, height, padding=padding)
    tiles = grid([Person(str(seat), "") for seat in range(count)], canvas.size, fit)
    build_compositor("numba", Blocks()).compose(canvas, [picture(tile, frame) for tile in tiles])
    found = place(width, height, tiles[-1].w, tiles[-1].h, fit)
    area = replace(
        tiles[-1], x=tiles[-1].x + found.x, y=tiles[-1].y + found.y, w=found.w, h=found.h
    )
    half_rows = Span(found.rows.origin, found.rows.extent, 2 * found.rows.scale)
    half_columns = Span(found.columns.origin, found.columns.extent, 2 * found.columns.scale)
    y, u, v = inside(canvas, area)
    exact = resampled(frame.y, found.rows, found.columns, found.h, found.w)
    assert np.abs(y - exact).max() <= 1
    for plane, shown in ((frame.u, u), (frame.v, v)):
        exact = resampled(plane, half_rows, half_columns, found.h // 2, found.w // 2)
        assert np.abs(shown - exact).max() <= 1


@pytest.mark.parametrize("size", [(640, 360), (641, 359), (360, 640), (320, 180)])
def test_both_backends_show_nearly_the_same(size: tuple[int, int]) -> None:
    canvases = [Canvas(256, 144), Canvas(256, 144)]
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    luma = (128 + 60 * np.sin(x / 25) + 40 * np.cos(y / 19)).astype(np.uint8)
    half = luma[::2, ::2].copy()
    for canvas, backend in zip(canvases, BACKENDS, strict=True):
        tile = Tile("a", "camera", 0, 0, 256, 144, "crop")
        frame = Frame(luma, half, half, 1, 0)
        build_compositor(backend, Blocks()).compose(canvas, [picture(tile, frame)])
    difference = canvases[0].flat.astype(int) - canvases[1].flat
    assert np.abs(difference).max() <= 6
    assert np.abs(difference).mean() < 1


@settings(deadline=None)
@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    tile=st.tuples(st.integers(1, 700), st.integers(1, 400)),
    fit=st.sampled_from(["crop", "contain"]),
)
def test_a_placement_is_about_centred_inside_tile_and_source(
    width: int, height: int, tile: tuple[int, int], fit: Fit
) -> None:
    w, h = 2 * tile[0], 2 * tile[1]
    found = place(width, height, w, h, fit)
    assert not any(value % 2 for value in (found.x, found.y, found.w, found.h))
    assert 0 <= found.x <= w - found.w
    assert 0 <= found.y <= h - found.h
    assert abs(w - found.w - 2 * found.x) <= 2
    assert (found.w, found.h) == (w, h) or fit == "contain"
    for span, length in ((found.columns, width), (found.rows, height)):
        assert span.origin >= 0
        assert span.origin + span.extent <= length * span.scale
        assert abs(2 * span.origin + span.extent - length * span.scale) <= 3 * span.scale
        assert (span.origin == 0) or fit == "crop"


@pytest.mark.parametrize(
    ("source", "tile", "p", "q"),
    [
        ((640, 360), (638, 358), 1, 1),
        ((640, 360), (424, 236), 3, 2),
        ((640, 360), (316, 176), 2, 1),
        ((640, 360), (252, 140), 5, 2),
        ((1280, 720), (252, 140), 5, 1),
        ((320, 180), (252, 140), 5, 4),
        ((320, 180), (316, 176), 1, 1),
        ((641, 359), (252, 140), 5, 2),
        ((640, 480), (424, 236), 3, 2),
    ],
)
def test_a_camera_near_a_simple_ratio_gets_it_for_a_fiftieth_of_the_picture_at_most(
    source: tuple[int, int], tile: tuple[int, int], p: int, q: int
) -> None:
    found = place(*source, *tile, "crop")
    kept = []
    for span, count, length in zip((found.columns, found.rows), tile, source, strict=True):
        assert span.extent * q == count * p * span.scale
        kept.append(span.extent / (length * span.scale))
        assert span.origin % (2 * span.scale) == 0  # where a chroma sample begins
    assert max(kept) >= 0.98


def test_nothing_is_cut_off_for_a_ratio_where_all_is_to_be_seen() -> None:
    assert place(640, 360, 252, 140, "contain").columns == Span(0, 640, 1)


@pytest.mark.parametrize(
    "tile",
    [
        replace(LEFT, x=1),
        replace(LEFT, w=125),
        replace(LEFT, x=132),
        replace(LEFT, y=-2),
        replace(LEFT, h=74),
        replace(LEFT, w=0),
    ],
)
def test_a_tile_outside_the_canvas_is_refused(compositor: Compositor, tile: Tile) -> None:
    canvas = Canvas(256, 72)
    with pytest.raises(ValueError, match="does not fit a canvas of 256x72"):
        compositor.compose(canvas, [picture(tile, noise(64, 36))])


def test_small_tiles_with_every_mark_stay_inside_themselves() -> None:
    for w, h in ((2, 2), (8, 4), (20, 12), (40, 22), (64, 90)):
        for frame in (None, noise(30, 20)):
            canvas = Canvas(128, 128)
            canvas.clear()
            tile = Tile("a", "camera", 20, 18, w, h, "crop")
            shown = TilePicture(tile, frame, "Ada", True, True, h >= 12, True)
            build_compositor("numba", Blocks()).compose(canvas, [shown])
            for plane, value in zip(inside(canvas, tile), theme.BACKGROUND, strict=True):
                plane[:] = value
            assert (canvas.flat == Canvas(128, 128).flat).all()


def test_an_unknown_backend_is_the_operators_mistake() -> None:
    with pytest.raises(ConfigError, match=r"mixer\.backend is 'cuda'; it must be numba or opencv"):
        build_compositor("cuda", Blocks())


def test_warming_up_needs_nobody_in_a_room() -> None:
    for backend in BACKENDS:
        warm_up(backend)
