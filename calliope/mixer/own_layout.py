"""A user's own layout: a plain Python function, loaded by name and again when its file changes.

``mixer.layout = "my_module:my_layout"`` names ``my_layout(people, canvas) -> tiles`` (types in
:mod:`calliope.mixer.scene`). It replaces the grid. Whatever goes wrong in it, the room falls
back to the grid and says so once.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

from calliope.clock import NS_PER_S, Clock
from calliope.errors import ConfigError
from calliope.mixer.scene import Person, Tile

_log = logging.getLogger(__name__)

LOOK_SPACING_NS = NS_PER_S
"""How often the file is looked at for a change."""


class OwnLayout:
    """Calls the user's function, or ``fallback`` where that fails. Used by one mixer thread.

    ConfigError if the name cannot be loaded at all: that ends the start, not a call.
    """

    def __init__(
        self,
        name: str,
        fallback: Callable[[Sequence[Person], tuple[int, int]], tuple[Tile, ...]],
        clock: Clock,
    ) -> None:
        module_name, _, self._function_name = name.partition(":")
        self._name = name
        self._fallback = fallback
        self._clock = clock
        self._complained = False
        try:
            self._module = importlib.import_module(module_name)
            self._function = self._find(self._module)
        except Exception as error:
            raise ConfigError(
                f"mixer.layout is {name!r}, which cannot be loaded: {error}. It must be 'grid' or "
                "MODULE:FUNCTION of a Python module on the path."
            ) from None
        self._changed = self._stamp()
        self._looked_ns = clock.now_ns()

    def __call__(self, people: Sequence[Person], canvas: tuple[int, int]) -> tuple[Tile, ...]:
        self._reload_if_changed()
        try:
            tiles = tuple(self._function(people, canvas))
            fault = find_fault(tiles, people, canvas)
        except Exception as error:  # the user's code: anything may come of it
            fault = f"it raised {type(error).__name__}: {error}"
        if fault is None:
            return tiles
        if not self._complained:
            self._complained = True
            _log.warning("The layout %s is not used, the grid is: %s", self._name, fault)
        return self._fallback(people, canvas)

    def _find(
        self, module: ModuleType
    ) -> Callable[[Sequence[Person], tuple[int, int]], Sequence[Tile]]:
        function = getattr(module, self._function_name, None)
        if not callable(function):
            raise TypeError(f"{module.__name__} has no function {self._function_name!r}")
        found: Callable[[Sequence[Person], tuple[int, int]], Sequence[Tile]] = function
        return found

    def _stamp(self) -> tuple[int, int]:
        """What changes when the file does: its time and size; zeros where there is no file."""
        try:
            state = os.stat(self._module.__file__ or "")
        except OSError:
            return 0, 0
        return state.st_mtime_ns, state.st_size

    def _reload_if_changed(self) -> None:
        now_ns = self._clock.now_ns()
        if now_ns - self._looked_ns < LOOK_SPACING_NS:
            return
        self._looked_ns = now_ns
        stamp = self._stamp()
        if stamp in (self._changed, (0, 0)):
            return
        self._changed = stamp
        self._complained = False
        try:
            # A module of our own beside the imported one: several rooms reload by themselves. It
            # is compiled from the source: Python's bytecode cache tells files apart by the second.
            spec = importlib.util.spec_from_file_location(
                self._module.__name__, self._module.__file__ or ""
            )
            assert spec is not None
            fresh = importlib.util.module_from_spec(spec)
            with open(self._module.__file__ or "", encoding="utf-8") as file:
                exec(compile(file.read(), self._module.__file__ or "", "exec"), fresh.__dict__)
            self._function = self._find(fresh)
            self._module = fresh
        except Exception as error:
            self._complained = True
            _log.warning("The layout %s stays as it was: %s", self._name, error)


def find_fault(
    tiles: Sequence[Tile], people: Sequence[Person], canvas: tuple[int, int]
) -> str | None:
    """What is wrong with a layout, in words; None if nothing is."""
    ids = {person.id for person in people}
    seen = set()
    for tile in tiles:
        if not isinstance(tile, Tile):
            return f"it returned {type(tile).__name__}, not Tile"
        box = (tile.x, tile.y, tile.w, tile.h)
        if not all(isinstance(value, int) and value % 2 == 0 for value in box):
            return f"the tile of {tile.id} has odd or broken coordinates {box}"
        right, bottom = tile.x + tile.w, tile.y + tile.h
        if tile.x < 0 or tile.y < 0 or right > canvas[0] or bottom > canvas[1]:
            return f"the tile of {tile.id} lies outside the canvas: {box}"
        if tile.w < 2 or tile.h < 2:
            return f"the tile of {tile.id} is empty: {box}"
        if tile.id not in ids:
            return f"nobody has the id {tile.id!r}"
        if tile.source not in ("camera", "screen") or tile.fit not in ("crop", "contain"):
            return f"the tile of {tile.id} has source {tile.source!r} and fit {tile.fit!r}"
        if (tile.id, tile.source) in seen:
            return f"{tile.id} is shown twice"
        seen.add((tile.id, tile.source))
    return None


def allow_local_modules() -> None:
    """Let MODULE be a file in the folder the server was started in, as people expect."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
