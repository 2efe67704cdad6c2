"""What is drawn over a tile's picture, blended once into sprites and laid on with every frame.

A sprite holds, for every sample it covers, how much of the picture it keeps and what light it
adds. However many layers a label has, drawing it over a new frame is one multiplication.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from calliope.media import Plane
from calliope.mixer import kernels, theme
from calliope.mixer.mask import Mask
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


@dataclass(frozen=True, slots=True)
class Caption:
    """All that decides what a tile's overlay looks like. Sizes are of the tile, in pixels."""

    id: str
    name: str
    width: int
    height: int
    muted: bool
    stalled: bool
    hand: bool
    avatar: bool


class Sprite:
    """A rectangle of blended ink at an even place in its tile, of even size.

    ``ink`` is flat uint8: keep and add of luma, each ``(h, w)``, then keep and add of U and of V,
    each ``(h // 2, w // 2)``; chroma's *keep* stands there twice, so that all planes blend alike.
    It starts clear.
    """

    __slots__ = ("_planes", "height", "ink", "width", "x", "y")

    def __init__(self, x: int, y: int, width: int, height: int) -> None:
        self.x, self.y, self.width, self.height = x, y, width, height
        self.ink: Plane = np.zeros(3 * width * height, np.uint8)
        self._planes: list[Plane] = []
        begin = 0
        for h, w in ((height, width), (height // 2, width // 2), (height // 2, width // 2)):
            for _ in range(2):
                self._planes.append(self.ink[begin : begin + h * w].reshape(h, w))
                begin += h * w
        for keep in self._planes[::2]:
            keep[:] = 255

    def lay(self, mask: Mask, x: int, y: int, colour: Colour, alpha: int = 255) -> None:
        """Put ink in the shape of ``mask`` at an even place over what is there."""
        keep_y, add_y, keep_u, add_u, keep_v, add_v = self._planes
        kernels.lay_ink(
            keep_y,
            add_y,
            keep_u,
            add_u,
            keep_v,
            add_v,
            mask.luma,
            mask.chroma,
            x,
            y,
            alpha,
            colour.y,
            colour.u << 8 | colour.v,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Overlay:
    """A tile's sprites as ``kernels.blend_sprites`` takes them.

    ``missing`` counts the masks that were not rasterised yet and are left out.
    """

    ink: Plane
    boxes: npt.NDArray[np.int64]
    missing: int = 0


def clear() -> Overlay:
    """An overlay with nothing in it."""
    return Overlay(np.zeros(0, np.uint8), np.zeros(0, np.int64))


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
    if not drawing.sprites:
        return Overlay(np.zeros(0, np.uint8), np.zeros(0, np.int64), drawing.missing)
    return Overlay(
        np.concatenate([sprite.ink for sprite in drawing.sprites]),
        np.array([(s.x, s.y, s.width, s.height) for s in drawing.sprites], np.int64).reshape(-1),
        drawing.missing,
    )


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


class _Drawing:
    def __init__(self, caption: Caption, labels: LabelSource) -> None:
        self.caption = caption
        self.labels = labels
        self.sprites: list[Sprite] = []
        self.missing = 0
        self.text = text_height(caption.height)
        self.margin = max(4, even(self.text * 0.3))

    def _seen(self, mask: Mask | None) -> Mask | None:
        if mask is None:
            self.missing += 1
        return mask

    def avatar(self) -> None:
        caption = self.caption
        size = even(min(caption.width, caption.height) * 0.46)
        if size < 4:
            return
        disc = Sprite(
            even((caption.width - size) / 2), even((caption.height - size) / 2), size, size
        )
        colour = theme.DISCS[zlib.crc32(caption.id.encode()) % len(theme.DISCS)]
        disc.lay(rounded_mask(size, size, size // 2), 0, 0, colour)
        initials = self._seen(self.labels.initials(caption.name, even(size * 0.5)))
        if initials is not None:
            _lay_centred(disc, initials, theme.INK)
        self.sprites.append(disc)

    def stalled(self) -> None:
        caption = self.caption
        if caption.avatar:
            return  # a disc already stands where the mark would
        size = even(min(max(min(caption.width, caption.height) * 0.3, 24), 96))
        x, y = even((caption.width - size) / 2), even((caption.height - size) / 2)
        self._round_mark("stalled", x, y, size, theme.STALLED_INK)

    def hand(self) -> None:
        size = even(self.text * 1.6)
        x = self.caption.width - self.margin - size
        self._round_mark("hand", x, self.margin, size, theme.HAND_INK)

    def _round_mark(self, kind: MarkKind, x: int, y: int, size: int, colour: Colour) -> None:
        if x < 0 or y < 0 or y + size > self.caption.height:
            return
        sprite = Sprite(x, y, size, size)
        sprite.lay(rounded_mask(size, size, size // 2), 0, 0, theme.PLATE, theme.PLATE_ALPHA)
        mark = self._seen(self.labels.mark(kind, even(size * 0.64)))
        if mark is not None:
            _lay_centred(sprite, mark, colour)
        self.sprites.append(sprite)

    def plate(self) -> None:
        """The name on a darker plate at the bottom left, the muted mark before it."""
        caption, text = self.caption, self.text
        side = max(4, even(text * 0.36))
        height = even(text * 1.3)
        icon = even(text * 0.86)
        room = caption.width - 2 * self.margin - 2 * side
        y = caption.height - self.margin - height
        if room < text or y < 0:
            return
        used = icon + side if caption.muted else 0
        muted = self._seen(self.labels.mark("muted", icon)) if caption.muted else None
        name = None
        if caption.name and room - used >= text:
            name = self._seen(self.labels.label(caption.name, text, room - used))
        if muted is None and name is None:
            return
        inner = (
            (name.width if name else 0) + (icon if muted else 0) + (side if name and muted else 0)
        )
        width = min(even(inner + 1), room) + 2 * side
        # Widths of whole vectors blend fastest; what is added stays clear.
        full = min(-(-width // 16) * 16, caption.width - self.margin)
        sprite = Sprite(self.margin, y, full, height)
        plate = rounded_mask(width, height, height // 3)
        sprite.lay(plate, 0, 0, theme.PLATE, theme.PLATE_ALPHA)
        x = side
        if muted is not None:
            sprite.lay(muted, x, even((height - muted.height) / 2), theme.MUTED_INK)
            x += icon + side
        if name is not None:
            sprite.lay(name, x, even((height - name.height) / 2), theme.INK)
        self.sprites.append(sprite)


def _lay_centred(sprite: Sprite, mask: Mask, colour: Colour) -> None:
    x, y = even((sprite.width - mask.width) / 2), even((sprite.height - mask.height) / 2)
    sprite.lay(mask, x, y, colour)
