"""Tiles and their frames to one I420 canvas, touching only what changed.

A compositor remembers what each tile of a canvas last showed. A tile whose frame, caption and
place are the same as before is not looked at again; a tile that changed is repainted whole, and a
changed layout repaints the canvas. :class:`NumbaCompositor` is the fast one; another backend
only says how a picture gets into its rectangle.
"""

from __future__ import annotations

import functools
import operator
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from calliope.errors import ConfigError
from calliope.media import Frame, Plane
from calliope.mixer import kernels, overlay, scaling, theme
from calliope.mixer.canvas import Canvas
from calliope.mixer.mask import Mask
from calliope.mixer.overlay import Caption, LabelSource, MarkKind, Overlay
from calliope.mixer.placement import place
from calliope.mixer.resample import packed, plan
from calliope.mixer.scene import Fit, Tile

PLACEMENTS = 256
"""How many pairs of source and tile the scale tables are kept for."""
ASK_AGAIN_TICKS = 30
"""How often a missing mask is asked for when nothing new was rasterised."""
LATE_OVERLAYS = 6
"""How many overlays a tick draws anew because a mask has come: names that all change at once come
over a few ticks, not at the expense of one."""


class TilePicture(NamedTuple):
    """What one tile shows in one tick. ``frame`` is None where there is no picture.

    Hand in the very object of the last tick while nothing changes: that is seen at once.
    """

    tile: Tile
    frame: Frame | None
    name: str
    muted: bool = False
    stalled: bool = False
    speaking: bool = False
    hand: bool = False


class Compositor(Protocol):
    """Brings canvases up to date; used by one thread at a time."""

    def compose(self, canvas: Canvas, pictures: Sequence[TilePicture]) -> int:
        """Paint what changed since the last call with this canvas.

        Returns how many tiles were touched; 0 means that the canvas is as it was. Tiles must lie
        inside the canvas at even places and have even sizes, else ValueError. Frames are read
        during the call only.
        """


class Slot:
    """What one tile of a canvas last showed."""

    __slots__ = ("generation", "overlay", "picture", "pixels", "plan", "planned", "waited")

    def __init__(self) -> None:
        self.picture: TilePicture | None = None
        self.pixels: tuple[object, ...] = ()
        self.plan: Plane = np.zeros(0, np.uint8)
        self.planned: tuple[object, ...] = ()
        self.overlay = overlay.clear()
        self.generation = 0
        self.waited = 0

    def take(self, frame: Frame) -> bool:
        """Note the frame's pixels; whether they are others than before."""
        pixels = (frame.serial, frame.arrived_ns, frame.y.shape)  # another source, if need be
        changed = pixels != self.pixels
        self.pixels = pixels
        return changed

    def is_waiting(self, generation: int) -> bool:
        """Whether to ask again for masks that were not rasterised when the overlay was drawn.

        That is when any new one was made, and now and then: a request may have been dropped.
        """
        self.waited += 1
        return generation != self.generation or self.waited >= ASK_AGAIN_TICKS


class _Shown:
    """What one canvas last showed."""

    __slots__ = ("pictures", "slots", "tiles", "waiting")

    def __init__(self) -> None:
        self.pictures: list[TilePicture] = []
        self.waiting = False
        self.tiles: list[Tile] = []
        self.slots: list[Slot] = []


class TileCompositor(ABC):
    """Keeps track of what changed and draws everything but the pictures themselves."""

    def __init__(self, labels: LabelSource) -> None:
        self._labels = labels
        self._shown: weakref.WeakKeyDictionary[Canvas, _Shown] = weakref.WeakKeyDictionary()
        self._late_overlays = 0

    def compose(self, canvas: Canvas, pictures: Sequence[TilePicture]) -> int:
        """See :class:`Compositor`."""
        shown = self._shown.get(canvas)
        if shown is None:
            shown = self._shown[canvas] = _Shown()
            canvas.clear()
        elif (
            not shown.waiting
            and len(pictures) == len(shown.slots)
            and all(map(operator.is_, pictures, shown.pictures))
        ):
            return 0
        tiles = [picture.tile for picture in pictures]
        moved = tiles != shown.tiles
        if moved:
            _check(tiles, canvas)
            canvas.clear()
            shown.tiles = tiles
            shown.slots = [Slot() for _ in tiles]
        touched = int(moved and not tiles)
        self._late_overlays = LATE_OVERLAYS
        for picture, slot in zip(pictures, shown.slots, strict=True):
            if picture is slot.picture and not slot.overlay.missing:
                continue
            if self._refresh(picture, slot):
                if picture.frame is None:
                    _paint_empty(canvas, picture, slot.overlay)
                else:
                    self.paint(canvas, picture, picture.frame, slot)
                touched += 1
        shown.pictures = list(pictures)
        shown.waiting = any(slot.overlay.missing for slot in shown.slots)
        return touched

    @abstractmethod
    def paint(self, canvas: Canvas, picture: TilePicture, frame: Frame, slot: Slot) -> None:
        """Paint a tile that has a frame; the one thing that backends do differently."""

    def _refresh(self, picture: TilePicture, slot: Slot) -> bool:
        """Note what the tile shall show; whether that differs from what it shows."""
        waiting = (
            bool(slot.overlay.missing)
            and self._late_overlays > 0
            and slot.is_waiting(self._labels.generation)
        )
        last = slot.picture
        if picture is last and not waiting:
            return False
        slot.picture = picture
        frame = picture.frame
        if frame and last and last.frame and picture[2:] == last[2:] and not waiting:
            return slot.take(frame)  # by far the commonest: another frame of the same person
        same_caption = (
            last is not None
            and picture.name == last.name
            and picture.muted == last.muted
            and picture.stalled == last.stalled
            and picture.hand == last.hand
            and (frame is None) == (last.frame is None)
        )
        changed = not same_caption or last is None or picture.speaking != last.speaking
        if frame is not None and (last is None or frame is not last.frame):
            changed |= slot.take(frame)
        if not same_caption or waiting:
            changed |= self._redraw(picture, slot, same_caption)
        return changed

    def _redraw(self, picture: TilePicture, slot: Slot, same_caption: bool) -> bool:
        """Draw the tile's overlay anew; whether that made a difference."""
        generation = self._labels.generation  # before asking: better once too often than never
        if same_caption and all(ask() is None for ask in slot.overlay.missing):
            slot.generation, slot.waited = generation, 0
            return False
        if same_caption:
            self._late_overlays -= 1
        tile = picture.tile
        caption = Caption(
            tile.id,
            picture.name,
            tile.w,
            tile.h,
            picture.muted,
            picture.stalled,
            picture.hand,
            picture.frame is None,
            tile.source == "screen",
        )
        slot.generation, slot.waited = generation, 0
        slot.overlay = overlay.draw(caption, self._labels)
        return True


def _paint_empty(canvas: Canvas, picture: TilePicture, drawn: Overlay) -> None:
    tile = picture.tile
    kernels.fill_picture(canvas.flat, canvas.width, canvas.height, *area(tile), *theme.EMPTY_TILE)
    decorate(canvas, picture, drawn)


def decorate(canvas: Canvas, picture: TilePicture, drawn: Overlay) -> None:
    """Draw over a tile what belongs there: a stalled picture's dimness, sprites, the border."""
    tile, flat, width, height = picture.tile, canvas.flat, canvas.width, canvas.height
    if picture.stalled:
        kernels.fade_picture(flat, width, height, *area(tile), theme.STALLED_LIGHT)
    if drawn.boxes.size:
        kernels.blend_sprites(flat, width, height, tile.x, tile.y, drawn.ink, drawn.boxes)
    if picture.speaking:
        thick = overlay.border(tile.h)
        kernels.outline_picture(flat, width, height, *area(tile), thick, *theme.SPEAKING)


def area(tile: Tile) -> tuple[int, int, int, int]:
    return tile.x, tile.y, tile.w, tile.h


def _check(tiles: Sequence[Tile], canvas: Canvas) -> None:
    for tile in tiles:
        x, y, w, h = area(tile)
        inside = min(x, y) >= 0 and x + w <= canvas.width and y + h <= canvas.height
        if not inside or w < 2 or h < 2 or (x | y | w | h) % 2:
            raise ValueError(f"{tile} does not fit a canvas of {canvas.width}x{canvas.height}")


class NumbaCompositor(TileCompositor):
    """Scales with the integer kernels of :mod:`calliope.mixer.scaling`."""

    def __init__(self, labels: LabelSource) -> None:
        super().__init__(labels)
        self._scratch: Plane = np.zeros(scaling.scratch_size(1920), np.uint8)

    def paint(self, canvas: Canvas, picture: TilePicture, frame: Frame, slot: Slot) -> None:
        shape = frame.y.shape
        planned = (shape, picture.stalled, picture.speaking)
        if planned != slot.planned:
            slot.plan = _plan(canvas.size, picture.tile, *planned)
            slot.planned = planned
            needed = scaling.scratch_size(shape[1])
            if self._scratch.size < needed:
                self._scratch = np.zeros(needed, np.uint8)
        drawn = slot.overlay
        if not scaling.paint_tile(
            canvas.flat, slot.plan, frame.y, frame.u, frame.v, drawn.ink, drawn.boxes, self._scratch
        ):
            raise ValueError(
                "a frame's chroma planes must be half its luma, rows of adjacent bytes"
            )


@functools.lru_cache(maxsize=PLACEMENTS)
def _plan(
    canvas: tuple[int, int], tile: Tile, shape: tuple[int, int], stalled: bool, speaking: bool
) -> Plane:
    """Where a source of that shape lands, and how: as ``scaling.paint_tile`` takes it."""
    height, width = shape
    found = place(width, height, tile.w, tile.h, tile.fit)
    picture = tile.x + found.x, tile.y + found.y, found.w, found.h
    keep = theme.STALLED_LIGHT if stalled else 256
    thick = overlay.border(tile.h) if speaking else 0
    colours = *theme.EMPTY_TILE, *theme.SPEAKING
    numbers = (*canvas, *area(tile), *picture, keep, thick, *colours)
    return packed(numbers, _tables(height, width, tile.w, tile.h, tile.fit))


@functools.lru_cache(maxsize=PLACEMENTS)
def _tables(
    height: int, width: int, tile_width: int, tile_height: int, fit: Fit
) -> tuple[Plane, Plane]:
    found = place(width, height, tile_width, tile_height, fit)
    rows, columns, size = found.rows, found.columns, (found.h, found.w)
    half = (height + 1) // 2, (width + 1) // 2
    return (
        plan((height, width), rows, columns, size),
        plan(half, rows.halved, columns.halved, (size[0] // 2, size[1] // 2)),
    )


def scale_canvas(source: Canvas, target: Canvas) -> None:
    """Fill ``target`` with ``source``, cropped evenly where their shapes differ."""
    tile = Tile("", "camera", 0, 0, target.width, target.height, "crop")
    made = _plan(target.size, tile, (source.height, source.width), stalled=False, speaking=False)
    nothing = overlay.clear()
    scratch: Plane = np.zeros(scaling.scratch_size(source.width), np.uint8)
    scaling.paint_tile(
        target.flat, made, source.y, source.u, source.v, nothing.ink, nothing.boxes, scratch
    )


def build_compositor(backend: str, labels: LabelSource) -> Compositor:
    """The compositor called ``numba`` or ``opencv``; ConfigError for any other name."""
    if backend == "numba":
        return NumbaCompositor(labels)
    if backend == "opencv":
        from calliope.mixer.opencv_backend import OpenCvCompositor

        return OpenCvCompositor(labels)
    raise ConfigError(f"mixer.backend is {backend!r}; it must be numba or opencv")


def warm_up(backend: str = "numba") -> None:
    """Compile or load every kernel, so that no tick waits for it; call before the port opens."""
    compositor = build_compositor(backend, _Blocks())
    canvas = Canvas(64, 64)
    planes: list[Plane] = [np.zeros(shape, np.uint8) for shape in ((48, 80), (24, 40), (24, 40))]
    frame = Frame(planes[0], planes[1], planes[2], 1, 0)
    tile = Tile("warm-up", "camera", 0, 0, 64, 64, "contain")
    compositor.compose(canvas, [TilePicture(tile, None, "a", True, True, True, True)])
    compositor.compose(canvas, [TilePicture(tile, frame, "a", True, True, True, True)])
    scale_canvas(canvas, Canvas(32, 32))


class _Blocks:
    """Labels for :func:`warm_up`: solid blocks, at hand."""

    generation = 0

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        return overlay.rounded_mask(min(2 * len(name), max_width_px), height_px, 0)

    def initials(self, name: str, height_px: int) -> Mask | None:
        return self.label(name, height_px, height_px)

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None:
        return self.label(kind, size_px, size_px)
