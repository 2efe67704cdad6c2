"""What people see: whole composed pictures beside approved ones, and beside exact arithmetic.

The approved pictures are in ``approved/``. After a wanted change, delete those that differ, run
this file once (it writes what is missing, and fails), look at every new picture, and commit it.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from calliope.bots.portrait import Portrait
from calliope.media import Frame, Plane
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import TilePicture, build_compositor
from calliope.mixer.encoder import parse_renditions
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.mask import Mask
from calliope.mixer.overlay import MarkKind
from calliope.mixer.placement import Placement, place
from calliope.mixer.scene import Fit, Person, SourceKind
from calliope.mixer.view import View
from tests.mixer.planes import resampled

APPROVED = Path(__file__).parent / "approved"
HD = (1280, 720)
COUNTS = (1, 2, 3, 5, 7, 12, 25)
BLOCK = 8
"""Pictures are compared by the means of blocks this wide: the approved ones are JPEG files, and
the same font drawn by another FreeType differs by less than that."""
NAMES = (
    "Ada Lovelace", "Андрей Белов", "Ελένη Ωρίων", "ليلى حسن", "נועה לוי", "अदिति शर्मा",
    "山田 さくら", "김민수", "สุชาดา", "Nguyễn Thị Ánh", "A rather long name that has to end",
)  # fmt: skip

Floats = npt.NDArray[np.float64]


class Inked:
    """The real glyph atlas, but nobody has to wait for its thread."""

    generation = 0

    def __init__(self) -> None:
        self._atlas = GlyphAtlas(Metrics())

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        return self._atlas.rasterise_now("label", name, height_px, max_width_px)

    def initials(self, name: str, height_px: int) -> Mask | None:
        return self._atlas.rasterise_now("initials", name, height_px)

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None:
        return self._atlas.rasterise_now(kind, "", size_px)


@functools.cache
def portrait(seat: int) -> Frame:
    """Somebody's camera: a 640x360 webcam, every fourth a phone held upright."""
    size = (360, 640) if seat % 4 == 3 else (640, 360)
    y, u, v = Portrait(seat, *size).draw(0.3)
    return Frame(y, u, v, 1, 0)


class Still:
    """A camera that shows one picture."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def latest(self) -> Frame | None:
        return self._frame


def people(count: int) -> tuple[Person, ...]:
    """Some muted, one stalled, one without a camera, one speaking, a hand."""
    return tuple(
        Person(
            f"p{seat}",
            NAMES[seat % len(NAMES)],
            camera=None if seat % 6 == 4 else Still(portrait(seat)),
            muted=seat % 3 == 1,
            camera_stalled=seat % 9 == 6,
            speaking=seat % 12 == 2,
            hand=seat % 11 == 5,
        )
        for seat in range(count)
    )


def composed(people: tuple[Person, ...]) -> Canvas:
    """A grid view's canvas, as the mixer would encode it."""
    view = View(
        "grid",
        fps=30,
        canvas=HD,
        renditions=parse_renditions(("720p:1200",), HD),
        arrange=layout.grid,
        compositor=build_compositor("numba", Inked()),
    )

    def latest(person: Person, kind: SourceKind) -> Frame | None:
        return None if person.camera is None else person.camera.latest()

    view.arrange(people, latest)
    view.compose()
    return view.picture("720p")


def rgb(canvas: Canvas) -> Image.Image:
    """The canvas as a screen shows it (BT.601, limited range)."""
    y = canvas.y.astype(np.float64) - 16
    u, v = (plane.repeat(2, 0).repeat(2, 1) - 128.0 for plane in (canvas.u, canvas.v))
    red = 1.164383 * y + 1.596027 * v
    green = 1.164383 * y - 0.391762 * u - 0.812968 * v
    blue = 1.164383 * y + 2.017232 * u
    pixels = np.rint(np.clip(np.stack([red, green, blue], axis=-1), 0, 255))
    return Image.fromarray(pixels.astype(np.uint8))


def blocks(picture: Image.Image) -> Floats:
    """The mean colour of every block of 8x8 pixels."""
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    height, width = pixels.shape[0] // BLOCK, pixels.shape[1] // BLOCK
    means: Floats = pixels.reshape(height, BLOCK, width, BLOCK, 3).mean(axis=(1, 3))
    return means


@pytest.mark.parametrize("count", COUNTS)
def test_a_grid_looks_as_approved(count: int) -> None:
    seen, path = rgb(composed(people(count))), APPROVED / f"grid-{count}.jpg"
    if not path.exists():
        seen.save(path, quality=80, subsampling=0, optimize=True)
        pytest.fail(f"{path.name} was missing and is written now: look at it")
    assert looks_alike(seen, Image.open(path))


def looks_alike(one: Image.Image, other: Image.Image) -> bool:
    difference = np.abs(blocks(one) - blocks(other))
    return bool(difference.mean() < 1 and difference.max() < 12)


@pytest.mark.parametrize(
    "change", [{"muted": True}, {"speaking": True}, {"name": "Grace Hopper"}, {"hand": True}]
)
def test_the_comparison_sees_small_changes(change: dict[str, object]) -> None:
    first, *others = people(25)
    changed = replace(first, **change)  # type: ignore[arg-type]
    before, after = rgb(composed((first, *others))), rgb(composed((changed, *others)))
    assert looks_alike(before, before)
    assert not looks_alike(before, after)


def psnr(exact: Floats, got: Plane) -> float:
    error = float(np.mean((exact - got) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@functools.cache
def exact_planes(seat: int, width: int, height: int, fit: Fit) -> tuple[Floats, Floats, Floats]:
    """A camera's picture in a tile by exact area averages and interpolation, not rounded."""
    frame, at = portrait(seat), place_of(seat, width, height, fit)
    half = at.h // 2, at.w // 2
    return (
        resampled(frame.y, at.rows, at.columns, at.h, at.w),
        resampled(frame.u, at.rows.halved, at.columns.halved, *half),
        resampled(frame.v, at.rows.halved, at.columns.halved, *half),
    )


def place_of(seat: int, width: int, height: int, fit: Fit) -> Placement:
    frame = portrait(seat)
    return place(frame.width, frame.height, width, height, fit)


@pytest.mark.parametrize("fit", ["crop", "contain"])
@pytest.mark.parametrize("count", [*COUNTS, 4, 9, 16, 20])
def test_every_grid_is_within_45_db_of_exact_arithmetic(count: int, fit: Fit) -> None:
    """All three planes of every tile: webcams and phones, cut and whole, larger and smaller."""
    canvas = Canvas(*HD)
    tiles = layout.grid([Person(f"p{seat}", "") for seat in range(count)], HD, fit)
    plain = [TilePicture(tile, portrait(seat % 4), "") for seat, tile in enumerate(tiles)]
    build_compositor("numba", Inked()).compose(canvas, plain)
    for seat, tile in enumerate(tiles):
        at = place_of(seat % 4, tile.w, tile.h, fit)
        x, y = tile.x + at.x, tile.y + at.y
        exact = exact_planes(seat % 4, tile.w, tile.h, fit)
        assert psnr(exact[0], canvas.y[y : y + at.h, x : x + at.w]) >= 45
        for plane, drawn in zip(exact[1:], (canvas.u, canvas.v), strict=True):
            part = drawn[y // 2 : (y + at.h) // 2, x // 2 : (x + at.w) // 2]
            assert psnr(plane, part) >= 45
