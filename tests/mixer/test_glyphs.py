"""The atlas: asked by ticks of many threads, it never waits and never changes a held mask."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from calliope.metrics import Metrics
from calliope.mixer.fonts import FontBook
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.mask import Mask

_PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def fonts() -> FontBook:
    book = FontBook()
    book.discover()
    return book


@pytest.fixture
def atlas(fonts: FontBook) -> Iterator[GlyphAtlas]:
    with GlyphAtlas(Metrics(), fonts) as running:
        yield running


def _until(ask: Callable[[], Mask | None]) -> Mask:
    """Ask as a mixer does, tick after tick."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        mask = ask()
        if mask is not None:
            return mask
        time.sleep(0.001)
    raise AssertionError("the mask never came")


def _drops(metrics: Metrics, why: str) -> float:
    return metrics.drops.labels(queue="glyphs", why=why)._value.get()  # type: ignore[no-any-return]


def test_a_label_comes_after_the_tick_that_first_asked(atlas: GlyphAtlas) -> None:
    before = atlas.generation
    mask = _until(lambda: atlas.label("Ada عمر", 18, 200))
    assert atlas.generation > before
    assert (mask.height, mask.luma.dtype.name) == (18, "uint8")
    assert mask.width <= 200
    assert atlas.label("Ada عمر", 18, 200) is mask


def test_initials_and_marks_come_too(atlas: GlyphAtlas) -> None:
    assert _until(lambda: atlas.initials("Ada Lovelace", 64)).height == 64
    mark = _until(lambda: atlas.mark("muted", 14))
    assert mark.luma.shape == (14, 14)
    assert mark.chroma.shape == (7, 7)


def test_chroma_is_the_mean_of_each_block_and_clear_beyond_odd_edges() -> None:
    mask = GlyphAtlas(Metrics()).rasterise_now("label", "Wilhelmine", 17, 61)
    h, w = mask.luma.shape
    assert mask.chroma.shape == ((h + 1) // 2, (w + 1) // 2)
    for y, x in np.ndindex(mask.chroma.shape):
        block = mask.luma[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(int)
        assert mask.chroma[y, x] == (int(block.sum()) + 2) // 4


def test_asking_before_the_start_is_answered_after_it(fonts: FontBook) -> None:
    atlas = GlyphAtlas(Metrics(), fonts)
    assert atlas.label("Ada", 18, 100) is None
    with atlas:
        _until(lambda: atlas.label("Ada", 18, 100))


def test_rasterise_now_gives_the_mask_that_the_tick_will_get(fonts: FontBook) -> None:
    atlas = GlyphAtlas(Metrics(), fonts)
    assert atlas.rasterise_now("label", "Ada", 18, 100) is atlas.label("Ada", 18, 100)
    assert atlas.rasterise_now("initials", "Ada", 40) is atlas.initials("Ada", 40)
    assert atlas.rasterise_now("hand", "", 20) is atlas.mark("hand", 20)


def test_a_full_queue_refuses_counts_and_is_asked_again(fonts: FontBook) -> None:
    metrics = Metrics()
    atlas = GlyphAtlas(metrics, fonts, queue_limit=3)
    for i in range(10):
        assert atlas.label(f"Guest {i}", 18, 100) is None
    assert _drops(metrics, "full") == 7
    with atlas:
        for i in range(10):
            _until(partial(atlas.label, f"Guest {i}", 18, 100))


def test_asking_twice_queues_once(fonts: FontBook) -> None:
    metrics = Metrics()
    atlas = GlyphAtlas(metrics, fonts, queue_limit=1)
    for _ in range(5):
        atlas.label("Ada", 18, 100)
    assert _drops(metrics, "full") == 0


def test_many_threads_get_whole_masks(atlas: GlyphAtlas, fonts: FontBook) -> None:
    names = [f"Name {i} عمر" for i in range(12)]
    with_care = GlyphAtlas(Metrics(), FontBook())
    expected = {name: with_care.rasterise_now("label", name, 18, 90).luma.copy() for name in names}
    wrong: list[str] = []

    def ask() -> None:
        for name in names * 3:
            mask = _until(partial(atlas.label, name, 18, 90))
            if not np.array_equal(mask.luma, expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_PATIENCE_S)
    assert not wrong


def test_what_was_asked_for_longest_ago_makes_room(fonts: FontBook) -> None:
    atlas = GlyphAtlas(Metrics(), fonts, texture_size=(64, 32))  # two marks of 32
    atlas.rasterise_now("muted", "", 32)
    atlas.rasterise_now("stalled", "", 32)
    assert atlas.mark("muted", 32) is not None  # now "stalled" is the older one
    atlas.rasterise_now("hand", "", 32)
    assert atlas.mark("muted", 32) is not None
    assert atlas.mark("stalled", 32) is None


def test_a_held_mask_is_never_drawn_over(fonts: FontBook) -> None:
    atlas = GlyphAtlas(Metrics(), fonts, texture_size=(64, 32))
    held = atlas.rasterise_now("muted", "", 32)
    before = held.luma.copy(), held.chroma.copy()
    for i in range(20):
        atlas.rasterise_now("label", f"{i}", 32, 32)
    assert np.array_equal(held.luma, before[0])
    assert np.array_equal(held.chroma, before[1])
    kept = atlas.mark("muted", 32)
    assert kept is not None
    assert kept.luma is held.luma


@pytest.mark.parametrize("plane", ["luma", "chroma"])
def test_a_view_of_one_plane_holds_the_mask(fonts: FontBook, plane: str) -> None:
    atlas = GlyphAtlas(Metrics(), fonts, texture_size=(32, 32))
    part = getattr(atlas.rasterise_now("muted", "", 32), plane)[3:9].T
    gc.collect()
    before = part.copy()
    for kind in ("stalled", "hand"):
        atlas.rasterise_now(kind, "", 32)
    assert np.array_equal(part, before)


def test_a_mask_waits_while_all_of_the_texture_is_held_and_comes_when_it_is_let_go(
    fonts: FontBook,
) -> None:
    atlas = GlyphAtlas(Metrics(), fonts, texture_size=(32, 32))
    held: Mask | None = atlas.rasterise_now("muted", "", 32)
    assert held is not None
    with atlas:
        assert atlas.mark("hand", 32) is None
        outside = atlas.rasterise_now("stalled", "", 32)  # blocking: made beside the texture
        assert outside.luma.max() == 255
        assert atlas.mark("hand", 32) is None
        held = None
        _until(lambda: atlas.mark("hand", 32))


def test_masks_outlive_the_atlas(fonts: FontBook) -> None:
    def from_a_short_lived_atlas() -> Mask:
        with GlyphAtlas(Metrics(), fonts) as atlas:
            return _until(lambda: atlas.mark("hand", 24))

    mask = from_a_short_lived_atlas()
    gc.collect()
    assert mask.luma.max() == 255


def test_close_ends_the_thread_also_with_work_left(fonts: FontBook) -> None:
    atlas = GlyphAtlas(Metrics(), fonts)
    for i in range(400):
        atlas.label(f"A long name that needs cutting {i}", 40, 100)
    atlas.start()
    atlas.close()
    assert "glyphs" not in {thread.name for thread in threading.enumerate()}


def test_closing_an_atlas_that_never_started_is_fine(fonts: FontBook) -> None:
    GlyphAtlas(Metrics(), fonts).close()


def test_starting_twice_is_refused(atlas: GlyphAtlas) -> None:
    with pytest.raises(RuntimeError):
        atlas.start()


def test_a_name_that_cannot_be_drawn_is_blank_counted_and_harms_nobody(
    fonts: FontBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics()
    with GlyphAtlas(metrics, fonts) as atlas:
        draw = atlas._typesetter.set_line

        def stumble(text: str, *size: int) -> object:
            if text == "odd":
                raise ValueError("cannot be drawn")
            return draw(text, *size)

        monkeypatch.setattr(atlas._typesetter, "set_line", stumble)
        assert not _until(lambda: atlas.label("odd", 18, 100)).luma.any()
        assert _until(lambda: atlas.label("Ada", 18, 100)).luma.any()
    assert _drops(metrics, "failed") == 1


@pytest.mark.parametrize(("height_px", "width_px"), [(0, 50), (-1, 0), (10_000, 10_000), (18, 0)])
def test_senseless_sizes_are_bounded(fonts: FontBook, height_px: int, width_px: int) -> None:
    mask = GlyphAtlas(Metrics(), fonts).rasterise_now("label", "Ada", height_px, width_px)
    assert 1 <= mask.height <= 512
    assert mask.width >= 1


def test_missing_fribidi_is_said_once_at_the_start(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), GlyphAtlas(Metrics(), FontBook(shaping=False)) as atlas:
        assert not atlas.shaping
        _until(lambda: atlas.label("عمر", 18, 100))
    assert sum("libfribidi0" in record.getMessage() for record in caplog.records) == 1
