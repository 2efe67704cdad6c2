"""What a mixer is told to show, an immutable snapshot of the room, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from calliope.media import EncodedFrame, FrameSource

SourceKind: TypeAlias = Literal["camera", "screen"]
Fit: TypeAlias = Literal["crop", "contain"]
ViewName: TypeAlias = Literal["grid", "speaker", "presenter"]


@dataclass(frozen=True, slots=True)
class Person:
    """One participant as the mixer sees it. Order in the scene is seat order and stable.

    ``camera`` or ``screen`` is None while there is nothing to show (off, or never sent).
    ``spoke_ns`` is when this person last spoke, ``led_ns`` when last the main speaker (0: never).
    """

    id: str
    name: str
    camera: FrameSource | None = None
    screen: FrameSource | None = None
    muted: bool = False
    speaking: bool = False
    hand: bool = False
    camera_stalled: bool = False
    screen_stalled: bool = False
    spoke_ns: int = 0
    led_ns: int = 0


@dataclass(frozen=True, slots=True)
class Tile:
    """One rectangle of a layout, in canvas pixels; x, y, w, h are even (chroma is subsampled)."""

    id: str
    source: SourceKind
    x: int
    y: int
    w: int
    h: int
    fit: Fit


@dataclass(frozen=True, slots=True)
class Layout:
    """Which rectangle is whose in one view. ``serial`` counts up with every change."""

    view: ViewName
    serial: int
    canvas: tuple[int, int]
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a mixer needs for its next tick.

    ``watched`` holds the (view, rendition name) pairs that have at least one viewer: only these
    are composed and encoded.
    """

    people: tuple[Person, ...] = ()
    watched: frozenset[tuple[ViewName, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class TickOutput:
    """What one tick made: first the layouts that changed with it, then the encoded frames.

    ``delay_ns`` is how long ago the newest frames it shows arrived, on average; None without any.
    """

    pts_90k: int
    delay_ns: int | None
    layouts: tuple[Layout, ...]
    frames: tuple[tuple[tuple[ViewName, str], EncodedFrame], ...]
