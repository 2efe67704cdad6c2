"""A user's own layout: loaded, reloaded, and never able to break a room."""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path

import pytest

from calliope.clock import FakeClock
from calliope.errors import ConfigError
from calliope.mixer import layout
from calliope.mixer.own_layout import OwnLayout, find_fault
from calliope.mixer.scene import Person, Tile

PEOPLE = (Person("p1", "Ada"), Person("p2", "Lin"))
CANVAS = (640, 360)
STRIPES = """
from calliope.mixer.scene import Tile
def stripes(people, canvas):
    return [Tile(p.id, "camera", 0, {step} * i, 64, 36, "crop") for i, p in enumerate(people)]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return tmp_path


def write(path: Path, text: str, clock: FakeClock) -> None:
    """Write a file such that its time differs from any earlier one."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, ns=(clock.now_ns(), clock.now_ns()))


def test_a_function_of_ones_own_lays_the_room_out_and_follows_its_file(folder: Path) -> None:
    clock = FakeClock()
    write(folder / "mine_a.py", STRIPES.format(step=40), clock)
    own = OwnLayout("mine_a:stripes", layout.grid, clock)
    assert [tile.y for tile in own(PEOPLE, CANVAS)] == [0, 40]
    clock.advance(s=2)
    write(folder / "mine_a.py", STRIPES.format(step=60), clock)
    assert [tile.y for tile in own(PEOPLE, CANVAS)] == [0, 60]


def test_an_edit_that_does_not_load_leaves_the_old_layout(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    write(folder / "mine_b.py", STRIPES.format(step=40), clock)
    own = OwnLayout("mine_b:stripes", layout.grid, clock)
    clock.advance(s=2)
    write(folder / "mine_b.py", "def stripes(:", clock)
    with caplog.at_level(logging.WARNING):
        assert [tile.y for tile in own(PEOPLE, CANVAS)] == [0, 40]
        clock.advance(s=2)
        own(PEOPLE, CANVAS)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    "body",
    [
        "raise RuntimeError('no')",
        "return 7",
        "return [None]",
        "return [Tile('p1', 'camera', 0, 0, 9999, 36, 'crop')]",
        "return [Tile('p1', 'camera', -2, 0, 64, 36, 'crop')]",
        "return [Tile('p1', 'camera', 1, 0, 64, 36, 'crop')]",
        "return [Tile('p1', 'camera', 0, 0, 0, 36, 'crop')]",
        "return [Tile('p1', 'camera', 0, 0, 64.0, 36, 'crop')]",
        "return [Tile('p9', 'camera', 0, 0, 64, 36, 'crop')]",
        "return [Tile('p1', 'mirror', 0, 0, 64, 36, 'crop')]",
        "return [Tile('p1', 'camera', 0, 0, 64, 36, 'crop')] * 2",
    ],
)
def test_whatever_it_does_wrong_the_grid_is_shown_and_it_is_said_once(
    folder: Path, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    source = f"from calliope.mixer.scene import Tile\ndef broken(people, canvas):\n    {body}\n"
    name = f"mine_{abs(hash(body))}"
    write(folder / f"{name}.py", source, FakeClock())
    own = OwnLayout(f"{name}:broken", layout.grid, FakeClock())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert own(PEOPLE, CANVAS) == layout.grid(PEOPLE, CANVAS)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", ["no_such_module:f", "os:no_such_function", "os:sep"])
def test_a_name_that_cannot_be_loaded_ends_the_start(name: str) -> None:
    with pytest.raises(ConfigError, match=r"mixer\.layout"):
        OwnLayout(name, layout.grid, FakeClock())


def test_the_built_in_layouts_have_no_fault() -> None:
    people = tuple(Person(f"p{i}", "x") for i in range(25))
    for built_in in (layout.grid, layout.speaker, layout.presenter):
        assert find_fault(built_in(people, (1280, 720)), people, (1280, 720)) is None
    overlap = (
        Tile("p1", "camera", 0, 0, 64, 36, "crop"),
        Tile("p2", "camera", 2, 0, 64, 36, "crop"),
    )
    assert find_fault(overlap, people, (1280, 720)) is None  # picture in picture is a layout too
