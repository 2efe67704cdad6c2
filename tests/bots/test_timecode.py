"""Numbers in pictures: read back after scaling, cutting, noise and coding, or not at all."""

from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope import vp8
from calliope.bots.loops import record_picture
from calliope.bots.timecode import NUMBERS, Place, Reader, stamp
from calliope.media import Plane

SOURCE = (640, 360)
LEVELS = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def picture(number: int, rng: np.random.Generator) -> tuple[Plane, Plane, Plane]:
    """A noisy picture with a number in it."""
    width, height = SOURCE
    planes = tuple(
        rng.integers(90, 150, (height // part, width // part)).astype(np.uint8)
        for part in (1, 2, 2)
    )
    stamp(planes, number)  # type: ignore[arg-type]
    return planes  # type: ignore[return-value]


def shown(luma: Plane, tile: Place) -> Plane:
    """A 720p canvas with the picture in its tile, cut or whole."""
    canvas = np.full((720, 1280), 30, np.uint8)
    across, down = tile.w / SOURCE[0], tile.h / SOURCE[1]
    grown = max(across, down) if tile.crop else min(across, down)
    size = round(SOURCE[0] * grown), round(SOURCE[1] * grown)
    scaled = cv2.resize(luma, size, interpolation=cv2.INTER_AREA)
    w, h = min(tile.w, size[0]), min(tile.h, size[1])
    x, y = (size[0] - w) // 2, (size[1] - h) // 2
    left, top = tile.x + (tile.w - w) // 2, tile.y + (tile.h - h) // 2
    canvas[top : top + h, left : left + w] = scaled[y : y + h, x : x + w]
    return canvas


@given(st.integers(0, NUMBERS - 1), LEVELS)
def test_every_number_is_read_back_through_noise(number: int, rng: np.random.Generator) -> None:
    luma, _, _ = picture(number, rng)
    tile = Place("p1", 0, 0, *SOURCE, crop=True)
    assert Reader([tile], 1.0, SOURCE).read(luma) == [number]


@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("place", [(1016, 568, 256, 144), (2, 4, 636, 712), (640, 0, 640, 300)])
def test_a_number_is_read_in_a_small_tile_and_a_cut_one(
    place: tuple[int, int, int, int], crop: bool
) -> None:
    tile = Place("p1", *place, crop=crop)
    reader = Reader([tile], 1.0, SOURCE)
    for number in range(NUMBERS):
        luma, _, _ = picture(number, np.random.default_rng(number))
        assert reader.read(shown(luma, tile)) == [number]


def test_two_tiles_are_read_in_a_smaller_rendition() -> None:
    rng = np.random.default_rng(1)
    left = Place("a", 0, 180, 640, 360, crop=True)
    right = Place("b", 640, 180, 640, 360, crop=True)
    canvas = shown(picture(7, rng)[0], left)
    canvas[:, 640:] = shown(picture(101, rng)[0], right)[:, 640:]
    small = cv2.resize(canvas, (640, 360), interpolation=cv2.INTER_AREA).astype(np.uint8)
    assert Reader([left, right], 0.5, SOURCE).read(small) == [7, 101]


@given(LEVELS)
def test_a_picture_without_a_code_reads_as_none(rng: np.random.Generator) -> None:
    luma = rng.integers(90, 140, SOURCE[::-1]).astype(np.uint8)
    tile = Place("p1", 0, 0, *SOURCE, crop=True)
    assert Reader([tile], 1.0, SOURCE).read(luma) == [None]


@given(st.integers(0, NUMBERS - 1), st.integers(0, 11))
def test_one_block_painted_over_is_noticed(number: int, block: int) -> None:
    luma, _, _ = picture(number, np.random.default_rng(0))
    x = 320 + (block - 6) * 20
    middle = luma[180, x + 10]
    luma[168:192, x : x + 20] = 24 if middle > 128 else 224
    tile = Place("p1", 0, 0, *SOURCE, crop=True)
    assert Reader([tile], 1.0, SOURCE).read(luma) == [None]


def test_every_frame_of_a_coded_loop_shows_its_number() -> None:
    decoder = av.CodecContext.create("vp8", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    reader = Reader([Place("p1", 0, 0, 256, 144, crop=True)], 1.0, (256, 144))
    read: list[int | None] = []
    for payloads in record_picture(3, 256, 144, 15, stamped=True):
        data = b"".join(vp8.parse_payload(payload).data for payload in payloads)
        for frame in decoder.decode(av.Packet(data)):
            read += reader.read(frame.to_ndarray(format="yuv420p")[:144].astype(np.uint8))
    assert read == list(range(60))
