"""Who is shown where: pure functions from people and a canvas to tiles.

A layout takes the people in seat order and the canvas size ``(width, height)`` in pixels, and
returns tiles that lie inside the canvas, do not overlap and have even coordinates and sizes
(chroma is subsampled by two). Tiles come in seat order, so that nobody's tile moves when others
join or leave more than the changed shape of the layout demands.
"""

from __future__ import annotations

from collections.abc import Sequence

from calliope.mixer.scene import Fit, Person, SourceKind, Tile

GRID_SEATS = 25
CAMERA_ASPECT = (16, 9)
SHAPE_TOLERANCE = 0.06
"""A cell this near to a camera's shape is filled whole: straight edges are worth a thin crop."""


def grid(people: Sequence[Person], canvas: tuple[int, int], fit: Fit = "crop") -> tuple[Tile, ...]:
    """Everybody equally large, the last row centred; of more than 25 the last to have spoken.

    Columns are chosen so that 16:9 cameras waste the least of the canvas. An empty room gives
    no tiles, one person alone the full canvas.
    """
    shown = most_recent(people, GRID_SEATS)
    if not shown:
        return ()
    if len(shown) == 1:
        return (_tile(shown[0], "camera", _full(canvas), fit),)
    return tuple(
        _tile(person, "camera", place, fit)
        for person, place in zip(shown, _grid_places(len(shown), canvas), strict=True)
    )


def speaker(
    people: Sequence[Person], canvas: tuple[int, int], fit: Fit = "crop"
) -> tuple[Tile, ...]:
    """The main speaker large, the others in a strip along the canvas's longer side."""
    if len(people) < 2:
        return grid(people, canvas, fit)
    seat = max(range(len(people)), key=lambda index: (_leading(people[index]), -index))
    others = [person for index, person in enumerate(people) if index != seat]
    stage, strip = _split(len(others), canvas)
    shown = most_recent(others, len(strip))
    main = _shape(CAMERA_ASPECT, stage)
    return (
        _tile(people[seat], "camera", main, fit),
        *(_tile(who, "camera", place, fit) for who, place in zip(shown, strip, strict=True)),
    )


def presenter(
    people: Sequence[Person], canvas: tuple[int, int], fit: Fit = "crop"
) -> tuple[Tile, ...]:
    """A shared screen large and uncropped, the cameras beside it; without a screen, the grid.

    Of several screens that of whoever was last the main speaker is shown.
    """
    sharing = [person for person in people if person.screen is not None]
    if not sharing:
        return grid(people, canvas, fit)
    presenting = max(sharing, key=_leading)
    stage, strip = _split(len(people), canvas, beside=True)
    shown = most_recent(people, len(strip))
    return (
        _tile(presenting, "screen", stage, "contain"),
        *(_tile(who, "camera", place, fit) for who, place in zip(shown, strip, strict=True)),
    )


def most_recent(people: Sequence[Person], seats: int) -> list[Person]:
    """At most ``seats`` people: the last to have spoken, then those on camera; in seat order."""
    if len(people) <= seats:
        return list(people)
    ranked = sorted(
        range(len(people)),
        key=lambda index: (-people[index].spoke_ns, people[index].camera is None, index),
    )
    return [people[index] for index in sorted(ranked[:seats])]


def _leading(person: Person) -> tuple[int, int]:
    """Greatest for the main speaker, or whoever was it last; among others, who spoke last."""
    return person.led_ns, person.spoke_ns


def gap(canvas: tuple[int, int]) -> int:
    """Pixels between tiles: even, 4 on a canvas 720 high."""
    return max(2, _even(min(canvas) / 180))


_Place = tuple[int, int, int, int]


def _grid_places(count: int, canvas: tuple[int, int]) -> list[_Place]:
    space = gap(canvas)
    columns = max(range(1, count + 1), key=lambda n: (_cell_area(n, count, canvas), n))
    rows = -(-count // columns)
    width, height = _cell(columns, rows, canvas)
    top = _even((canvas[1] - rows * height - (rows - 1) * space) / 2)
    places = []
    for row in range(rows):
        seats = min(columns, count - row * columns)
        left = _even((canvas[0] - seats * width - (seats - 1) * space) / 2)
        y = top + row * (height + space)
        places += [(left + seat * (width + space), y, width, height) for seat in range(seats)]
    return places


def _cell(columns: int, rows: int, canvas: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the tiles of a grid: camera-shaped, or the whole cell if nearly so."""
    space = gap(canvas)
    cell = (
        _even((canvas[0] - (columns - 1) * space) / columns),
        _even((canvas[1] - (rows - 1) * space) / rows),
    )
    return _shape(CAMERA_ASPECT, (0, 0, *cell))[2:]


def _cell_area(columns: int, count: int, canvas: tuple[int, int]) -> int:
    width, height = _cell(columns, -(-count // columns), canvas)
    return width * height


def _shape(aspect: tuple[int, int], place: _Place) -> _Place:
    """The largest rectangle of that aspect within ``place``, centred; ``place`` if it nearly is."""
    x, y, width, height = place
    stretch = width * aspect[1] / (max(height, 1) * aspect[0])
    if abs(stretch - 1) <= SHAPE_TOLERANCE:
        return place
    inner_width, inner_height = width, height
    if stretch > 1:
        inner_width = min(width, max(2, _even(height * aspect[0] / aspect[1])))
    else:
        inner_height = min(height, max(2, _even(width * aspect[1] / aspect[0])))
    left = x + _even((width - inner_width) / 2)
    return left, y + _even((height - inner_height) / 2), inner_width, inner_height


def _split(
    others: int, canvas: tuple[int, int], *, beside: bool = False
) -> tuple[_Place, list[_Place]]:
    """The stage, and at most seven places in a strip below it (``beside``: to its right).

    A portrait canvas has its strip below in any case.
    """
    width, height = canvas
    space = gap(canvas)
    beside = beside and width >= height
    slots = 5 if others <= 5 else 7
    count = min(others, slots)
    if beside:
        tile_height = _even((height - (slots - 1) * space) / slots)
        tile_width = min(_even(tile_height * CAMERA_ASPECT[0] / CAMERA_ASPECT[1]), _even(width / 4))
        start = _even((height - count * tile_height - (count - 1) * space) / 2)
        x = width - tile_width
        strip = [
            (x, start + index * (tile_height + space), tile_width, tile_height)
            for index in range(count)
        ]
        return (0, 0, _even(x - space), height), strip
    tile_width = _even((width - (slots - 1) * space) / slots)
    tile_height = min(_even(tile_width * CAMERA_ASPECT[1] / CAMERA_ASPECT[0]), _even(height / 4))
    start = _even((width - count * tile_width - (count - 1) * space) / 2)
    y = height - tile_height
    strip = [
        (start + index * (tile_width + space), y, tile_width, tile_height) for index in range(count)
    ]
    return (0, 0, width, _even(y - space)), strip


def _full(canvas: tuple[int, int]) -> _Place:
    return 0, 0, canvas[0], canvas[1]


def _even(value: float) -> int:
    return int(value) // 2 * 2


def _tile(person: Person, source: SourceKind, place: _Place, fit: Fit) -> Tile:
    x, y, width, height = place
    return Tile(person.id, source, x, y, width, height, fit)
