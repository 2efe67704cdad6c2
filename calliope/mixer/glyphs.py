"""The glyph atlas: names, initials and marks as masks, rasterised off the tick.

The mixer asks and never waits: a mask that is not there yet is queued to the atlas's one rasteriser
thread and comes on a later tick. Masks are views into one preallocated texture.
"""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Literal, TypeAlias

import numpy as np

from calliope.media import Plane
from calliope.metrics import Metrics
from calliope.mixer.fonts import FontBook
from calliope.mixer.graphemes import initials_of
from calliope.mixer.marks import MarkKind, draw_mark
from calliope.mixer.mask import Mask
from calliope.mixer.shelves import Shelves, Slot
from calliope.mixer.typesetting import Typesetter

log = logging.getLogger(__name__)

InkKind: TypeAlias = Literal["label", "initials"] | MarkKind
Key: TypeAlias = tuple[InkKind, str, int, int]  # kind, text, height, widest

TEXTURE_SIZE = (2048, 4096)
"""Width and height in pixels: 8 MiB of luma and 2 MiB of chroma, touched only as they fill. About
2,500 names at 18 pixels."""

_NAME_MAX = 256  # names have at most 64 characters; longer ones are not worth shaping whole
_HEIGHT_MAX_PX = 512
_PARKED_RETRY_S = 1.0
_CLOSE_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Entry:
    mask: Mask
    slot: Slot
    used: int  # by the atlas's count of requests; the smallest was asked for longest ago


class GlyphAtlas:
    """Masks for the mixers of every room.

    :meth:`label`, :meth:`initials` and :meth:`mark` never block: one dict look-up without a lock,
    from any thread. A mask stays valid as long as somebody holds it or a view of its planes: its
    place in the texture is used again only after that. When the texture is full, what was asked for
    longest ago makes room; while all of it is held, new masks wait until something is let go.
    ``generation`` grows with every new mask.
    """

    def __init__(
        self,
        metrics: Metrics,
        fonts: FontBook | None = None,
        *,
        texture_size: tuple[int, int] = TEXTURE_SIZE,
        queue_limit: int = 512,
    ) -> None:
        self.generation = 0
        self._fonts = fonts if fonts is not None else FontBook()
        self._typesetter = Typesetter(self._fonts)
        self._full_drops = metrics.drops.labels(queue="glyphs", why="full")
        self._failure_drops = metrics.drops.labels(queue="glyphs", why="failed")
        self._width, height = texture_size
        self._shelves = Shelves(self._width, height)
        self._luma = bytearray(self._width * height)
        self._chroma = bytearray(self._width * height // 4)
        self._height_max = min(_HEIGHT_MAX_PX, self._width, height)
        self._entries: dict[Key, _Entry] = {}
        self._requests = count(1)
        self._pending: dict[Key, None] = {}
        self._queue_limit = queue_limit
        self._inbox: SimpleQueue[Key | None] = SimpleQueue()
        self._drawing = threading.Lock()  # fonts, shelves and entries change under it
        self._thread: threading.Thread | None = None
        self._closing = False

    @property
    def shaping(self) -> bool:
        """Whether text is shaped; False when FriBiDi is missing and letters stand unjoined."""
        return self._fonts.shaping

    def start(self) -> None:
        """Start the rasteriser; it first looks for the installed fonts."""
        if self._thread is not None:
            raise RuntimeError("the atlas was started before")
        if not self.shaping:
            log.warning(
                "FriBiDi is not installed: names in Arabic, Hebrew and Indic scripts are drawn "
                "without shaping. Install the system's FriBiDi (Debian, Ubuntu: libfribidi0)."
            )
        self._thread = threading.Thread(target=self._rasterise, name="glyphs")
        self._thread.start()

    def close(self) -> None:
        """Stop the rasteriser and wait for it; masks already made stay valid."""
        self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> GlyphAtlas:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def label(self, name: str, height_px: int, max_width_px: int) -> Mask | None:
        """The name on a line of ``height_px``, at most ``max_width_px`` wide; None: not yet.

        Where not even an ellipsis fits, the mask is blank and 1 pixel wide.
        """
        return self._get(("label", name, height_px, max_width_px))

    def initials(self, name: str, height_px: int) -> Mask | None:
        """One or two letters for the name, on a line of ``height_px``; None: not yet."""
        return self._get(("initials", name, height_px, 0))

    def mark(self, kind: MarkKind, size_px: int) -> Mask | None:
        """A mark, ``size_px`` square; None: not yet."""
        return self._get((kind, "", size_px, size_px))

    def rasterise_now(
        self, kind: InkKind, text: str, height_px: int, max_width_px: int = 0
    ) -> Mask:
        """The same masks, made at once in the calling thread: for warm-up and tests.

        Marks take ``text=""``. A mask that the texture has no room for is made outside of it.
        """
        if kind not in ("label", "initials"):
            max_width_px = height_px
        key: Key = (kind, text, height_px, max_width_px)
        with self._drawing:
            found = self._entries.get(key)
            if found is not None:
                return found.mask
            luma = self._draw(key)
            mask = self._keep(key, luma)
        return mask if mask is not None else Mask(luma, _halved(luma))

    def _get(self, key: Key) -> Mask | None:
        entry = self._entries.get(key)
        if entry is not None:
            entry.used = next(self._requests)
            return entry.mask
        if key in self._pending:
            return None
        if len(self._pending) >= self._queue_limit:
            self._full_drops.inc()  # the mixer asks again on its next tick
            return None
        self._pending[key] = None
        self._inbox.put(key)
        return None

    def _rasterise(self) -> None:
        with self._drawing:
            self._fonts.discover()
        parked: dict[Key, Plane] = {}  # drawn, but the texture had no room: all of it was held
        while True:
            try:
                key = self._inbox.get(timeout=_PARKED_RETRY_S if parked else None)
            except Empty:
                key = None
            if self._closing:
                return
            if key is not None:
                with self._drawing:
                    if key not in self._entries:
                        parked[key] = self._draw(key)
                    else:
                        self._pending.pop(key, None)
            for key, luma in list(parked.items()):
                if not self._publish(key, luma):
                    break  # no room yet; the others wait behind it
                del parked[key]

    def _publish(self, key: Key, luma: Plane) -> bool:
        with self._drawing:
            if key not in self._entries and self._keep(key, luma) is None:
                return False
        self._pending.pop(key, None)
        return True

    def _draw(self, key: Key) -> Plane:
        kind, text, height_px, max_width_px = key
        height_px = min(max(height_px, 1), self._height_max)
        text = text[:_NAME_MAX]
        try:
            if kind == "label":
                return self._typesetter.set_line(text, height_px, min(max_width_px, self._width))
            if kind == "initials":
                return self._typesetter.set_line(initials_of(text), height_px, self._width)
            return draw_mark(kind, height_px)
        except Exception:  # one odd name must not end everybody's labels
            log.exception("a %s of %d pixels could not be drawn", kind, height_px)
            self._failure_drops.inc()
            return np.zeros((height_px, 1), dtype=np.uint8)

    def _keep(self, key: Key, luma: Plane) -> Mask | None:
        """Copy into the texture and publish; None if everything in it is held."""
        h, w = luma.shape
        slot = self._shelves.reserve(w, h)
        if slot is None:
            slot = self._evict_for(w, h)
        if slot is None:
            return None
        mask = self._mask_at(slot, w, h)
        mask.luma[:] = luma
        mask.chroma[:] = _halved(luma)
        self._entries[key] = _Entry(mask, slot, next(self._requests))
        self.generation += 1
        return mask

    def _mask_at(self, slot: Slot, w: int, h: int) -> Mask:
        """Views of the texture, one array object for each plane of this mask.

        The texture is a bytearray, not an array: numpy folds a view of a view into a view of the
        array at the bottom, and here that is the mask's own plane. So whoever holds any part of a
        plane keeps the plane alive, and :meth:`_evict_for` can see it.
        """
        stride = self._width
        luma: Plane = np.ndarray(
            (h, w), np.uint8, self._luma, slot.y * stride + slot.x, (stride, 1)
        )
        chroma: Plane = np.ndarray(
            ((h + 1) // 2, (w + 1) // 2),
            np.uint8,
            self._chroma,
            slot.y // 2 * (stride // 2) + slot.x // 2,
            (stride // 2, 1),
        )
        return Mask(luma, chroma)

    def _evict_for(self, w: int, h: int) -> Slot | None:
        """Drop masks that nobody holds, those asked for longest ago first, until there is room."""
        by_age = sorted(self._entries.items(), key=lambda item: item[1].used)
        by_age.reverse()
        while by_age:
            key, entry = by_age.pop()
            h_kept, w_kept = entry.mask.luma.shape
            slot, used = entry.slot, entry.used
            planes = weakref.ref(entry.mask.luma), weakref.ref(entry.mask.chroma)
            del self._entries[key], entry
            luma, chroma = planes[0](), planes[1]()
            if luma is None and chroma is None:
                self._shelves.release(slot)
                freed = self._shelves.reserve(w, h)
                if freed is not None:
                    return freed
            else:  # held: back it goes, with the very arrays that are held
                fresh = self._mask_at(slot, w_kept, h_kept)
                mask = Mask(
                    fresh.luma if luma is None else luma,
                    fresh.chroma if chroma is None else chroma,
                )
                self._entries[key] = _Entry(mask, slot, used)
        return None


def _halved(luma: Plane) -> Plane:
    """The mean of each 2x2 block, rounded; beyond an odd edge it is clear."""
    h, w = luma.shape
    even = np.zeros((h + h % 2, w + w % 2), dtype=np.uint16)
    even[:h, :w] = luma
    total = even[0::2, 0::2] + even[0::2, 1::2] + even[1::2, 0::2] + even[1::2, 1::2]
    return ((total + 2) >> 2).astype(np.uint8)
