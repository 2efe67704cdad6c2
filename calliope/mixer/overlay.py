"""What is drawn over a tile's picture, blended once into sprites and laid on with every frame."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from calliope.media import Plane
from calliope.mixer import kernels, theme
from calliope.mixer.mask import Mask
from calliope.mixer.sprites import begin_sprite, lay_mask, sprite_bytes
from calliope.mixer.theme import Colour

MarkKind: TypeAlias = Literal["muted", "stalled", "hand"]


class LabelSource(Protocol):
    """Where names and marks come from as ink; never blocks.

    A mask that is not rasterised yet comes as None; ``generation`` grows when one has become
    available.
    """

    @property
    def generation(self) -> int: ...

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None: ...

    def initials(self, name: str, height_px: int) -> Mask | None: ...

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None: ...


class Caption(NamedTuple):
    """All that decides what a tile's overlay looks like. Sizes are of the tile, in pixels."""

    id: str
    name: str
    width: int
    height: int
    muted: bool
    stalled: bool
    hand: bool
    avatar: bool
    screen: bool


SCREEN_LETTERS = 160
"""A name over a screen is as small as in a tile of so many lines: it covers what is to be read."""

_NO_INK: Plane = np.zeros(0, np.uint8)
_NO_BOXES = np.zeros(0, np.int64)

Ask: TypeAlias = Callable[[], Mask | None]
"""Asks a label source for one mask."""


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """A tile's sprites as ``kernels.blend_sprites`` takes them.

    ``missing`` asks again for each mask that was not rasterised yet and is left out.
    """

    ink: Plane
    boxes: npt.NDArray[np.int64]
    missing: tuple[Ask, ...] = ()


def clear() -> Overlay:
    """An overlay with nothing in it."""
    return Overlay(_NO_INK, _NO_BOXES)


def draw(caption: Caption, labels: LabelSource) -> Overlay:
    """Blend a tile's name and marks into sprites; what is not rasterised yet is left out."""
    drawing = _Drawing(caption, labels)
    if caption.avatar:
        drawing.avatar()
    if caption.stalled:
        drawing.stalled()
    if caption.hand:
        drawing.hand()
    drawing.plate()
    return drawing.finish()


def text_height(tile_height: int) -> int:
    """The line height of a name, even: readable at 25 tiles, not loud on a full canvas."""
    return even(min(max(11 + tile_height * 0.05, 12), 36))


def border(tile_height: int) -> int:
    """How thick a speaker's border is: even, 2 or 4 pixels."""
    return 2 if tile_height < 300 else 4


def even(value: float) -> int:
    return int(value) // 2 * 2


def rounded_mask(width: int, height: int, radius: int) -> Mask:
    """A filled rectangle with rounded corners; width and height even."""
    luma = np.empty((height, width), np.uint8)
    chroma = np.empty((height // 2, width // 2), np.uint8)
    kernels.rounded(luma, min(radius, height // 2, width // 2))
    kernels.halve(luma, chroma)
    return Mask(luma, chroma)


class _Proportions(NamedTuple):
    """Lengths that follow from a tile's height, in pixels, all even."""

    text: int
    margin: int
    side: int
    plate: int
    icon: int

    @classmethod
    def of(cls, tile_height: int) -> _Proportions:
        text = text_height(tile_height)
        side = max(4, even(text * 0.36))
        return cls(text, max(4, even(text * 0.3)), side, even(text * 1.3), even(text * 0.86))


_proportions = functools.lru_cache(maxsize=64)(_Proportions.of)


class _Sprite:
    """A rectangle with rounded corners, and ink on it."""

    __slots__ = ("box", "ink")

    def __init__(
        self,
        box: tuple[int, int, int, int],
        radius: int,
        colour: Colour,
        alpha: int = 255,
        shape: int = 0,
    ) -> None:
        """``box`` is x, y, w, h in the tile; ``shape`` the rectangle's width where it is less."""
        _, _, width, height = self.box = box
        self.ink: Plane = np.empty(sprite_bytes(width, height), np.uint8)
        luma, chroma = colour.y, colour.u << 8 | colour.v
        begin_sprite(self.ink, width, height, shape or width, radius, alpha, luma, chroma)

    def lay(self, mask: Mask, x: int, y: int, colour: Colour) -> None:
        _, _, width, height = self.box
        luma, chroma = colour.y, colour.u << 8 | colour.v
        lay_mask(self.ink, width, height, mask.luma, mask.chroma, x, y, luma, chroma)

    def lay_centred(self, mask: Mask, colour: Colour) -> None:
        _, _, width, height = self.box
        self.lay(mask, even((width - mask.width) / 2), even((height - mask.height) / 2), colour)


class _Drawing:
    def __init__(self, caption: Caption, labels: LabelSource) -> None:
        self.caption = caption
        self.labels = labels
        lines = min(caption.height, SCREEN_LETTERS) if caption.screen else caption.height
        self.lengths = _proportions(lines)
        self.sprites: list[_Sprite] = []
        self.missing: list[Ask] = []

    def _ask(self, ask: Ask) -> Mask | None:
        mask = ask()
        if mask is None:
            self.missing.append(ask)
        return mask

    def avatar(self) -> None:
        caption = self.caption
        size = even(min(caption.width, caption.height) * 0.46)
        if size < 4:
            return
        x, y = even((caption.width - size) / 2), even((caption.height - size) / 2)
        colour = theme.DISCS[zlib.crc32(caption.id.encode()) % len(theme.DISCS)]
        disc = _Sprite((x, y, size, size), size // 2, colour)
        initials = self._ask(partial(self.labels.initials, caption.name, even(size * 0.5)))
        if initials is not None:
            disc.lay_centred(initials, theme.INK)
        self.sprites.append(disc)

    def stalled(self) -> None:
        caption = self.caption
        if caption.avatar:
            return  # a disc already stands where the mark would
        size = even(min(max(min(caption.width, caption.height) * 0.3, 24), 96))
        x, y = even((caption.width - size) / 2), even((caption.height - size) / 2)
        self._round_mark("stalled", x, y, size, theme.STALLED_INK)

    def hand(self) -> None:
        size, margin = even(self.lengths.text * 1.6), self.lengths.margin
        self._round_mark("hand", self.caption.width - margin - size, margin, size, theme.HAND_INK)

    def _round_mark(self, kind: MarkKind, x: int, y: int, size: int, colour: Colour) -> None:
        if x < 0 or y < 0 or y + size > self.caption.height:
            return
        disc = _Sprite((x, y, size, size), size // 2, theme.PLATE, theme.PLATE_ALPHA)
        mark = self._ask(partial(self.labels.mark, kind, even(size * 0.64)))
        if mark is not None:
            disc.lay_centred(mark, colour)
        self.sprites.append(disc)

    def plate(self) -> None:
        """The name on a darker plate at the bottom left, the muted mark before it.

        It comes whole: while the name is not rasterised yet there is no plate to draw twice.
        """
        caption = self.caption
        text, margin, side, height, icon = self.lengths
        room = caption.width - 2 * margin - 2 * side
        y = caption.height - margin - height
        if room < text or y < 0:
            return
        before = icon + side if caption.muted else 0
        muted = self._ask(partial(self.labels.mark, "muted", icon)) if caption.muted else None
        name = None
        if caption.name and room - before >= text:
            name = self._ask(partial(self.labels.label, caption.name, text, room - before))
            if name is None:
                return
        if muted is None and name is None:
            return
        before = 0 if muted is None else icon
        if name is not None:
            before += side if before else 0
        inner = before + (name.width if name is not None else 0)
        width = min(even(inner + 1), room) + 2 * side
        # Widths of whole vectors blend fastest; what is added stays clear.
        full = min(-(-width // 16) * 16, caption.width - margin)
        radius = min(height // 3, width // 2)
        box = margin, y, full, height
        plate = _Sprite(box, radius, theme.PLATE, theme.PLATE_ALPHA, width)
        if muted is not None:
            plate.lay(muted, side, even((height - muted.height) / 2), theme.MUTED_INK)
        if name is not None:
            plate.lay(name, side + before, even((height - name.height) / 2), theme.INK)
        self.sprites.append(plate)

    def finish(self) -> Overlay:
        """All that was drawn, in one buffer."""
        missing = tuple(self.missing)
        if not self.sprites:
            return Overlay(_NO_INK, _NO_BOXES, missing)
        if len(self.sprites) == 1:
            (only,) = self.sprites
            return Overlay(only.ink, np.array(only.box, np.int64), missing)
        inks = [sprite.ink for sprite in self.sprites]
        boxes = [length for sprite in self.sprites for length in sprite.box]
        return Overlay(np.concatenate(inks), np.array(boxes, np.int64), missing)
