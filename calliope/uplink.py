"""How large each sender is shown, and so how much it is asked to send at most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from calliope.mixer.scene import Layout

if TYPE_CHECKING:
    from calliope.seat import Seat

BITS_PER_PIXEL = 0.08
"""VP8 from a camera looks clean at this many bits a pixel and frame; more is not seen in a tile."""
MIN_KBPS = 120
MAX_KBPS = 2500
UPLINK_MIN_BPS = 30_000
"""Left to a sender that is shown nowhere and has no channel: it must not think the link dead."""
SCREEN_FPS = 15
SCREEN_SIZE = (1920, 1080)
"""Asked of every screen: its canvas follows its size, so its size must not follow its tile."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """What one source is asked to send at most; ``kbps`` 0 pauses it."""

    width: int
    height: int
    fps: int
    kbps: int

    @classmethod
    def paused(cls) -> Uplink:
        """Shown in no view that anybody watches."""
        return cls(0, 0, 0, 0)

    def message(self, source: str) -> dict[str, object]:
        """The ``uplink`` message of the protocol."""
        return {
            "type": "uplink",
            "source": source,
            "width": self.width,
            "height": self.height,
            "fps": self.fps,
            "kbps": self.kbps,
        }


def size_uplinks(layouts: Iterable[Layout], fps: int) -> dict[tuple[str, str], Uplink]:
    """The uplink of every (participant id, source) in any of the layouts: its largest tile's."""
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    for layout in layouts:
        for tile in layout.tiles:
            width, height = sizes.get((tile.id, tile.source), (0, 0))
            shown = SCREEN_SIZE if tile.source == "screen" else (tile.w, tile.h)
            sizes[tile.id, tile.source] = (max(width, shown[0]), max(height, shown[1]))
    uplinks = {}
    for (id, source), (width, height) in sizes.items():
        rate = min(fps, SCREEN_FPS) if source == "screen" else fps
        kbps = round(width * height * rate * BITS_PER_PIXEL / 1000)
        uplinks[id, source] = Uplink(width, height, rate, min(MAX_KBPS, max(MIN_KBPS, kbps)))
    return uplinks


def tell_uplinks(seats: Iterable[Seat], layouts: Iterable[Layout], fps: int, now_ns: int) -> None:
    """Tell every sender among ``seats`` what these layouts ask of it, where that has changed."""
    uplinks = size_uplinks(layouts, fps)
    for seat in seats:
        if not seat.listed:
            continue
        for source, member in (("camera", seat.member), ("screen", seat.screen)):
            if member is None or (source == "screen" and member.feed is None):
                continue  # a screen paused before its first picture would never be laid out
            uplink = uplinks.get((seat.id, source), Uplink.paused())
            if seat.uplinks.get(source) != uplink:
                if uplink.kbps:
                    seat.resumed_ns[source] = now_ns
                seat.uplinks[source] = uplink
                if seat.member is not None and seat.member.channel_open:
                    seat.member.send(uplink.message(source))
                else:  # it cannot be told, but every sender heeds a bandwidth estimate
                    member.outlet.limit_uplink(max(UPLINK_MIN_BPS, uplink.kbps * 1000))
