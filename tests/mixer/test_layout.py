"""Layouts: inside the canvas, even, apart, stable, and the grid wastes little."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.mixer.layout import GRID_SEATS, gap, grid, most_recent, presenter, speaker
from calliope.mixer.scene import Fit, Person, Tile

HD = (1280, 720)
LAYOUTS: list[Callable[[Sequence[Person], tuple[int, int], Fit], tuple[Tile, ...]]] = [
    grid,
    speaker,
    presenter,
]
canvases = st.tuples(st.integers(80, 960), st.integers(80, 960)).map(
    lambda size: (2 * size[0], 2 * size[1])
)


class StillSource:
    def latest(self) -> None:
        return None


SOURCE = StillSource()


def people(count: int, sharing: int = 0) -> list[Person]:
    return [
        Person(f"p{seat}", f"Person {seat}", screen=SOURCE if seat < sharing else None)
        for seat in range(count)
    ]


def overlap(one: Tile, other: Tile) -> bool:
    return (
        one.x < other.x + other.w
        and other.x < one.x + one.w
        and one.y < other.y + other.h
        and other.y < one.y + one.h
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@given(count=st.integers(0, 40), sharing=st.integers(0, 2), canvas=canvases)
def test_tiles_are_even_inside_the_canvas_and_apart(
    layout: Callable[..., tuple[Tile, ...]], count: int, sharing: int, canvas: tuple[int, int]
) -> None:
    tiles = layout(people(count, sharing), canvas)
    assert bool(tiles) == bool(count)
    for tile in tiles:
        assert not any(value % 2 for value in (tile.x, tile.y, tile.w, tile.h))
        assert tile.w > 0
        assert tile.h > 0
        assert 0 <= tile.x <= canvas[0] - tile.w
        assert 0 <= tile.y <= canvas[1] - tile.h
    assert not any(overlap(one, other) for one, other in itertools.combinations(tiles, 2))
    assert len({(tile.id, tile.source) for tile in tiles}) == len(tiles)


@given(count=st.integers(2, 25), canvas=canvases)
def test_a_grid_is_of_one_size_in_seat_order_with_even_gaps(
    count: int, canvas: tuple[int, int]
) -> None:
    tiles = grid(people(count), canvas)
    assert [tile.id for tile in tiles] == [f"p{seat}" for seat in range(count)]
    assert len({(tile.w, tile.h) for tile in tiles}) == 1
    for one, other in itertools.pairwise(tiles):
        if one.y == other.y:
            assert other.x - (one.x + one.w) == gap(canvas)
        else:
            assert other.y - (one.y + one.h) == gap(canvas)


@given(count=st.integers(2, 25), canvas=canvases)
def test_every_row_of_a_grid_is_centred(count: int, canvas: tuple[int, int]) -> None:
    tiles = grid(people(count), canvas)
    for _, row in itertools.groupby(tiles, key=lambda tile: tile.y):
        seats = list(row)
        right = canvas[0] - seats[-1].x - seats[-1].w
        assert 0 <= right - seats[0].x <= 2  # even coordinates: off by one pixel at most
    below = canvas[1] - tiles[-1].y - tiles[-1].h
    assert 0 <= below - tiles[0].y <= 2


@given(count=st.integers(2, 25), columns=st.integers(1, 25), canvas=canvases)
def test_no_other_number_of_columns_gives_larger_cameras(
    count: int, columns: int, canvas: tuple[int, int]
) -> None:
    tile = grid(people(count), canvas)[0]
    space = gap(canvas)
    rows = -(-count // columns)
    cell_w = (canvas[0] - (columns - 1) * space) / columns
    cell_h = (canvas[1] - (rows - 1) * space) / rows
    width = min(cell_w, cell_h * 16 / 9)
    # Tiles are rounded down to even pixels, and near enough cells are filled whole.
    assert (tile.w + 2) * (tile.h + 2) * 1.06 >= width * width * 9 / 16 if cell_h > 0 else True


@pytest.mark.parametrize(
    ("count", "columns", "size"),
    [
        (1, 1, (1280, 720)),
        (2, 2, (638, 358)),
        (3, 2, (638, 358)),
        (4, 2, (638, 358)),
        (5, 3, (424, 238)),
        (9, 3, (424, 236)),
        (12, 4, (316, 176)),
        (16, 4, (316, 176)),
        (20, 5, (252, 140)),
        (25, 5, (252, 140)),
    ],
)
def test_the_grids_of_a_720p_canvas(count: int, columns: int, size: tuple[int, int]) -> None:
    tiles = grid(people(count), HD)
    assert (tiles[0].w, tiles[0].h) == size
    assert sum(tile.y == tiles[0].y for tile in tiles) == columns


def test_cameras_of_a_grid_of_two_to_twenty_five_are_nearly_16_to_9() -> None:
    for count in range(1, 26):
        tile = grid(people(count), HD)[0]
        assert 0.94 <= tile.w * 9 / (tile.h * 16) <= 1.06


def test_the_fit_asked_for_is_the_tiles() -> None:
    assert {tile.fit for tile in grid(people(4), HD, "contain")} == {"contain"}


def test_beyond_25_the_most_recent_speakers_stay_in_their_seats_order() -> None:
    crowd = [Person(f"p{seat}", "x", spoke_ns=seat * 10) for seat in range(30)]
    crowd[0] = Person("p0", "x", spoke_ns=1000)
    tiles = grid(crowd, HD)
    assert len(tiles) == GRID_SEATS
    assert [tile.id for tile in tiles] == ["p0", *(f"p{seat}" for seat in range(6, 30))]


def test_among_the_silent_cameras_go_before_avatars() -> None:
    crowd = [Person(f"p{seat}", "x", camera=SOURCE if seat >= 3 else None) for seat in range(6)]
    assert [person.id for person in most_recent(crowd, 4)] == ["p0", "p3", "p4", "p5"]


def test_someone_who_joins_at_the_end_moves_nobody_while_the_shape_holds() -> None:
    for count in range(2, 25):
        before, after = grid(people(count), HD), grid(people(count + 1), HD)
        if (before[0].w, before[0].y) == (after[0].w, after[0].y):
            full_rows = [tile for tile in before if tile.y != before[-1].y]
            assert tuple(full_rows) == after[: len(full_rows)]


def test_the_last_speaker_is_large_and_the_others_small() -> None:
    room = [Person(f"p{seat}", "x", spoke_ns=spoke) for seat, spoke in enumerate((5, 90, 7, 0))]
    main, *strip = speaker(room, HD)
    assert main.id == "p1"
    assert [tile.id for tile in strip] == ["p0", "p2", "p3"]
    assert all(main.w * main.h > 10 * tile.w * tile.h for tile in strip)


def test_nobody_spoke_yet_so_the_first_seat_is_large() -> None:
    assert speaker(people(3), HD)[0].id == "p0"


def test_a_strip_that_is_full_keeps_the_most_recent_speakers() -> None:
    room = [Person(f"p{seat}", "x", spoke_ns=seat) for seat in range(12)]
    main, *strip = speaker(room, HD)
    assert main.id == "p11"
    assert [tile.id for tile in strip] == [f"p{seat}" for seat in range(4, 11)]


def test_a_shared_screen_is_large_and_whole_with_the_cameras_beside_it() -> None:
    screen, *cameras = presenter(people(3, sharing=1), HD)
    assert (screen.id, screen.source, screen.fit) == ("p0", "screen", "contain")
    assert screen.w >= 0.75 * HD[0]
    assert [tile.id for tile in cameras] == ["p0", "p1", "p2"]
    assert all(tile.x >= screen.x + screen.w and tile.source == "camera" for tile in cameras)


def test_of_two_screens_the_one_of_whoever_spoke_last_is_shown() -> None:
    room = [
        Person("a", "x", screen=SOURCE, spoke_ns=1),
        Person("b", "x", screen=SOURCE, spoke_ns=2),
    ]
    assert presenter(room, HD)[0].id == "b"


def test_presenter_without_a_screen_is_the_grid() -> None:
    assert presenter(people(5), HD) == grid(people(5), HD)


def test_one_person_alone_has_the_canvas() -> None:
    for layout in LAYOUTS:
        (tile,) = layout(people(1), HD, "crop")
        assert (tile.x, tile.y, tile.w, tile.h) == (0, 0, *HD)
