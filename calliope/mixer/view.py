"""One view of a room: its canvas, its layout and the encoders of its watched renditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

from calliope.media import Frame
from calliope.mixer.canvas import Canvas
from calliope.mixer.compositor import Compositor, TilePicture, scale_canvas
from calliope.mixer.encoder import Rendition, VideoEncoder, screen_renditions
from calliope.mixer.scene import Layout, Person, SourceKind, Tile, ViewName

LayoutFunction: TypeAlias = Callable[[Sequence[Person], tuple[int, int]], tuple[Tile, ...]]
Latest: TypeAlias = Callable[[Person, SourceKind], Frame | None]
"""A person's newest picture: the same one all through a tick."""

SETTLE_TICKS = 15
"""How long an unchanged picture goes on being encoded, so that the encoder can sharpen it."""
SCREEN_FPS = 15
"""How often a view that shows a screen is composed, at most: text needs bits, not frames."""
SCREEN_MAX = (1920, 1080)
"""The largest canvas of a view that shows a screen."""
SCREEN_MIN = (640, 360)
"""A smaller screen than this is enlarged, so that the names beside it can be read."""


class View:
    """Composes and encodes one view of a room; used by one thread.

    Its canvas has the room's ordinary size, or follows the screen that its layout shows. A canvas
    of another size means new encoders: everybody gets the new picture whole, from a keyframe on.
    """

    def __init__(
        self,
        name: ViewName,
        *,
        fps: int,
        canvas: tuple[int, int],
        renditions: Sequence[Rendition],
        arrange: LayoutFunction,
        compositor: Compositor,
    ) -> None:
        self.layout = Layout(name, 0, canvas, ())
        self._fps = fps
        self._ordinary = canvas
        self._ordinary_renditions = tuple(renditions)
        self._arrange = arrange
        self._compositor = compositor
        self._canvas = Canvas(*canvas)
        self._renditions = {rendition.name: rendition for rendition in renditions}
        self._small: dict[str, Canvas] = {}
        self._encoders: dict[str, VideoEncoder] = {}
        self._people: tuple[Person, ...] | None = None
        self._by_id: dict[str, Person] = {}
        self._tiles: tuple[Tile, ...] = ()
        self._uncut: set[str] = set()
        self._frames: list[Frame | None] = []
        self._shapes: list[tuple[int, ...] | None] | None = None
        self._seats: list[tuple[Tile, Person]] = []
        self._pictures: list[TilePicture] = []
        self._presenter: Person | None = None
        self._screen = (0, 0)
        self._turns_of_screen = 0
        self._tick_index = -1
        self._unchanged_turns = 0

    @property
    def fps(self) -> int:
        """How many ticks a second are this view's turn."""
        return self._fps if self._presenter is None else min(self._fps, SCREEN_FPS)

    def takes_turn(self, tick_index: int) -> bool:
        """Whether this view is composed in this tick; asked once a tick."""
        turn, last = (index * self.fps // self._fps for index in (tick_index, self._tick_index))
        if turn == last:
            return False
        self._tick_index = tick_index
        return True

    def arrange(self, people: tuple[Person, ...], latest: Latest) -> Layout | None:
        """Lay the people out; the new layout where it differs from the last one, else None.

        Takes the frames that :meth:`compose` then shows.
        """
        first, same = self._people is None, people is self._people
        if not same:
            self._people = people
            self._by_id = {person.id: person for person in people}
            self._find_presenter(people)
        screen = self._screen_size(latest)
        if screen != self._screen:
            self._screen, self._turns_of_screen = screen, 0
            same = False
        if not same:
            size = self._ordinary
            if screen != (0, 0):
                size = size_screen_canvas(self._arrange, people, screen)
            if size != self._canvas.size:
                self._resize(size)
            self._tiles = self._arrange(people, size)
            self._shapes = None
        self._frames = [latest(self._by_id[tile.id], tile.source) for tile in self._tiles]
        uncut = self._find_uncut()
        if same and uncut is self._uncut:
            return None
        self._uncut = uncut
        tiles = tuple(replace(t, fit="contain") if t.id in uncut else t for t in self._tiles)
        self._seats = [(tile, self._by_id[tile.id]) for tile in tiles]
        self._pictures = []
        if self._canvas.size == self.layout.canvas and tiles == self.layout.tiles and not first:
            return None
        self.layout = replace(
            self.layout, serial=self.layout.serial + 1, canvas=self._canvas.size, tiles=tiles
        )
        return self.layout

    def _find_uncut(self) -> set[str]:
        """Whose camera is shown whole, though the layout would cut it: less than half were left.

        So an upright phone shows a face, not a nose. The same set comes back while no source has
        another size.
        """
        shapes = [None if frame is None else frame.y.shape for frame in self._frames]
        if shapes == self._shapes:
            return self._uncut
        self._shapes = shapes
        uncut = set()
        for tile, frame in zip(self._tiles, self._frames, strict=True):
            if tile.fit == "crop" and frame is not None:
                one, other = frame.width * tile.h, frame.height * tile.w
                if 2 * min(one, other) < max(one, other):
                    uncut.add(tile.id)
        return uncut

    def _find_presenter(self, people: Sequence[Person]) -> None:
        """Whose screen the layout shows: it decides that, whatever the size."""
        before = self._presenter.id if self._presenter else None
        self._presenter = None
        if any(person.screen is not None for person in people):
            tile = _screen_tile(self._arrange(people, self._ordinary))
            self._presenter = self._by_id[tile.id] if tile else None
        if before != (self._presenter.id if self._presenter else None):
            self._turns_of_screen = SCREEN_FPS  # another's screen: no need to wait

    def _screen_size(self, latest: Latest) -> tuple[int, int]:
        """Width and height of the screen to show; zeros for none.

        A window that is being dragged has another size in every frame: one a second is enough.
        """
        if self._presenter is None:
            return 0, 0
        self._turns_of_screen += 1
        frame = latest(self._presenter, "screen")
        if frame is None or (self._screen != (0, 0) and self._turns_of_screen <= SCREEN_FPS):
            return self._screen
        return frame.width, frame.height

    def _resize(self, size: tuple[int, int]) -> None:
        self.close()
        self._canvas = Canvas(*size)
        self._small.clear()
        renditions = self._ordinary_renditions
        if self._screen != (0, 0):
            renditions = screen_renditions(renditions, self._ordinary, size)
        self._renditions = {rendition.name: rendition for rendition in renditions}

    def compose(self) -> None:
        """Bring the canvas up to date with what :meth:`arrange` laid out in this turn.

        A tile that shows what it showed keeps its very picture object: the compositor then sees
        at once that nothing changed.
        """
        pictures = self._pictures or [_picture(*seat, None) for seat in self._seats]
        for at, frame in enumerate(self._frames):
            if frame is not pictures[at].frame:
                pictures[at] = _picture(*self._seats[at], frame)
        self._pictures = pictures
        touched = self._compositor.compose(self._canvas, self._pictures)
        self._unchanged_turns = 0 if touched else self._unchanged_turns + 1

    def encoder(self, rendition: str) -> VideoEncoder:
        """The encoder of a watched rendition, made when first asked for."""
        encoder = self._encoders.get(rendition)
        if encoder is None:
            encoder = VideoEncoder(
                self._renditions[rendition], self.fps, screen=self._screen != (0, 0)
            )
            self._encoders[rendition] = encoder
        return encoder

    def is_worth_encoding(self, encoder: VideoEncoder) -> bool:
        """Whether viewers gain by a frame now: while it moves or settles, then once a second."""
        return (
            self._unchanged_turns <= SETTLE_TICKS
            or self._unchanged_turns % self.fps == 0
            or encoder.keyframe_pending
        )

    def unsettle(self) -> None:
        """A frame was dropped to keep the bitrate: go on even if nothing moves any more."""
        self._unchanged_turns = 0

    def picture(self, rendition: str) -> Canvas:
        """The canvas at a rendition's size: itself where it has that size already."""
        wanted = self._renditions[rendition]
        if (wanted.width, wanted.height) == self._canvas.size:
            return self._canvas
        small = self._small.get(rendition)
        if small is None:
            small = self._small[rendition] = Canvas(wanted.width, wanted.height)
        scale_canvas(self._canvas, small)
        return small

    def keep_only(self, renditions: set[str]) -> None:
        """Free the encoders that nobody watches any more."""
        for name in self._encoders.keys() - renditions:
            self._encoders.pop(name).close()
            self._small.pop(name, None)

    def close(self) -> None:
        """Free every encoder."""
        for encoder in self._encoders.values():
            encoder.close()
        self._encoders.clear()


def size_screen_canvas(
    arrange: LayoutFunction, people: Sequence[Person], screen: tuple[int, int]
) -> tuple[int, int]:
    """The smallest canvas whose layout shows a ``screen`` (width, height) pixel for pixel.

    At most SCREEN_MAX: a screen that does not fit beside the cameras is shown smaller.
    """
    scale = min(1.0, SCREEN_MAX[0] / screen[0], SCREEN_MAX[1] / screen[1])
    scale = max(scale, min(SCREEN_MIN[0] / screen[0], SCREEN_MIN[1] / screen[1]))
    wanted = _even(screen[0] * scale), _even(screen[1] * scale)
    size = wanted
    for _ in range(4):  # a larger canvas has larger cameras, which in turn need more room
        tile = _screen_tile(arrange(people, size))
        if tile is None or (tile.w >= wanted[0] and tile.h >= wanted[1]):
            break
        size = (
            min(SCREEN_MAX[0], size[0] + max(0, wanted[0] - tile.w)),
            min(SCREEN_MAX[1], size[1] + max(0, wanted[1] - tile.h)),
        )
    return size


def _even(length: float) -> int:
    return max(2, round(length / 2) * 2)


def _screen_tile(tiles: Sequence[Tile]) -> Tile | None:
    return next((tile for tile in tiles if tile.source == "screen"), None)


def _picture(tile: Tile, person: Person, frame: Frame | None) -> TilePicture:
    of_camera = tile.source == "camera"
    stalled = person.camera_stalled if of_camera else person.screen_stalled
    hand = person.hand and of_camera  # a screen raises no hand: it would hide what is shown
    return TilePicture(tile, frame, person.name, person.muted, stalled, person.speaking, hand)
