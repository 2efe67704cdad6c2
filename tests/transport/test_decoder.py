"""The decoder's thread, and the planes it writes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from calliope.errors import MediaError
from calliope.metrics import Metrics
from calliope.ring import FrameRing
from calliope.transport import decoder
from calliope.transport.decoder import (
    QUEUE_FRAMES,
    CodedFrame,
    Decoder,
    check_size,
    read_planes,
    to_i420,
)
from tests.transport.media_peers import dropped, encode, luma_of, picture
from tests.waiting import wait_until


class Desk:
    """A decoder with a ring; what it posts is run at once, on its thread."""

    def __init__(self, before_post: Callable[[], None] = lambda: None) -> None:
        self.metrics = Metrics()
        self.ring = FrameRing(640 * 480)
        self.first = threading.Event()
        self.broken = 0
        self.ended = threading.Event()

        def post(call: Callable[[], None]) -> None:
            before_post()
            call()

        self.decoder = Decoder(
            self.ring,
            640 * 480,
            self.metrics,
            post,
            on_first=self.first.set,
            on_broken=self._break,
            on_end=self.ended.set,
        )

    def _break(self) -> None:
        self.broken += 1

    def end(self) -> None:
        self.decoder.close()
        self.decoder.join()
        assert self.ended.is_set()


def coded(data: bytes, *, key: bool, codec: str = "VP8", arrived_ns: int = 0) -> CodedFrame:
    return CodedFrame(codec, data, key, arrived_ns)


def test_pictures_arrive_in_the_ring_with_their_time() -> None:
    desk = Desk()
    desk.decoder.start()
    for number, data in enumerate(encode("VP8", [40, 80, 120])):
        assert desk.decoder.submit(coded(data, key=number == 0, arrived_ns=number))
    wait_until(lambda: desk.ring.written == 3)
    frame = desk.ring.latest()
    assert frame is not None
    assert frame.arrived_ns == 2
    assert abs(luma_of(frame.y) - 120) <= 4
    assert frame.u.shape == (60, 80)
    assert desk.first.is_set()
    desk.end()


def test_a_decoder_that_cannot_keep_up_drops_to_the_next_keyframe() -> None:
    """Nothing is decoded before the thread starts: the queue fills as behind a busy decoder."""
    desk = Desk()
    key, delta = encode("VP8", [40, 80])
    assert desk.decoder.submit(coded(key, key=True))
    for _ in range(QUEUE_FRAMES - 1):
        assert desk.decoder.submit(coded(delta, key=False))
    assert not desk.decoder.submit(coded(delta, key=False))
    assert dropped(desk.metrics, "decoder", "overflow") == QUEUE_FRAMES + 1
    assert desk.decoder.submit(coded(key, key=True))
    desk.decoder.start()
    wait_until(lambda: desk.ring.written == 1)
    desk.end()


def test_a_keyframe_takes_the_place_of_a_full_queue() -> None:
    desk = Desk()
    key, delta = encode("VP8", [40, 80])
    for _ in range(QUEUE_FRAMES):
        assert desk.decoder.submit(coded(delta, key=False))
    assert desk.decoder.submit(coded(key, key=True))
    desk.decoder.start()
    wait_until(lambda: desk.ring.written == 1)
    assert desk.broken == 0
    desk.end()


def test_what_cannot_be_decoded_is_reported_and_the_thread_goes_on() -> None:
    desk = Desk()
    desk.decoder.start()
    (key,) = encode("VP8", [90])
    desk.decoder.submit(coded(b"\x01garbage", key=False))
    desk.decoder.submit(coded(b"", key=False))
    desk.decoder.submit(coded(b"\xff" * 50, key=False, codec="H264"))
    wait_until(lambda: desk.broken >= 2)
    desk.decoder.submit(coded(key, key=True))
    wait_until(lambda: desk.ring.written == 1)
    desk.end()


def test_not_even_a_bug_of_ours_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    key, delta = encode("VP8", [90, 100])
    real = decoder.read_planes

    def fail_once(picture: av.VideoFrame) -> object:
        monkeypatch.setattr(decoder, "read_planes", real)
        raise RuntimeError("a bug")

    monkeypatch.setattr(decoder, "read_planes", fail_once)
    desk.decoder.start()
    desk.decoder.submit(coded(key, key=True))
    desk.decoder.submit(coded(delta, key=False))
    wait_until(lambda: desk.ring.written == 1)
    assert desk.broken == 1
    desk.end()


def test_a_thread_that_is_closed_ends_with_frames_still_queued() -> None:
    desk = Desk()
    for data in encode("VP8", [40, 80, 120]):
        desk.decoder.submit(coded(data, key=False))
    desk.decoder.start()
    desk.end()


def test_the_size_is_judged_by_the_header_alone() -> None:
    (key,) = encode("VP8", [40], 640, 480)
    check_size(coded(key, key=True), 640 * 480)
    with pytest.raises(MediaError, match="640x480"):
        check_size(coded(key, key=True), 640 * 480 - 1)
    (unit,) = encode("H264", [40], 640, 360)  # coded as 640x368
    check_size(coded(unit, key=True, codec="H264"), 640 * 360)
    with pytest.raises(MediaError, match="640x368"):
        check_size(coded(unit, key=True, codec="H264"), 320 * 180)


def test_planes_are_read_in_place_whatever_their_padding() -> None:
    frame = picture(77, 150, 98)
    y, u, v = read_planes(frame)
    assert (y.shape, u.shape, v.shape) == ((98, 150), (49, 75), (49, 75))
    assert luma_of(y) == 77
    assert np.shares_memory(y, np.frombuffer(memoryview(frame.planes[0]), np.uint8))


def test_full_range_becomes_limited_range() -> None:
    frame = picture(255)
    frame.color_range = ColorRange.JPEG
    y, u, _v = read_planes(to_i420(frame))
    assert abs(luma_of(y) - 235) <= 1
    assert luma_of(u) == 128
    full = frame.reformat(format="yuvj420p")
    assert abs(luma_of(read_planes(to_i420(full))[0]) - 235) <= 1


def test_bt709_becomes_bt601() -> None:
    frame = av.VideoFrame(160, 120, "yuv420p")
    for plane, value in zip(frame.planes, (81, 90, 240), strict=True):
        plane.update(bytes([value]) * plane.buffer_size)
    frame.colorspace = Colorspace.ITU709
    y, u, v = (luma_of(plane) for plane in read_planes(to_i420(frame)))
    # By hand: the same red, through linear light's R'G'B' and the other matrix.
    assert abs(y - 94) <= 1
    assert abs(u - 83) <= 1
    assert abs(v - 231) <= 1


def test_vp8_has_no_full_range_whatever_its_clamping_bit_says() -> None:
    desk = Desk()
    desk.decoder.start()
    key = bytearray(encode("VP8", [235])[0])
    key[10] ^= 0x40  # the clamping type: the second bit, at even odds, behind the start code
    assert desk.decoder.submit(coded(bytes(key), key=True))
    wait_until(lambda: desk.ring.written == 1)
    frame = desk.ring.latest()
    assert frame is not None
    assert luma_of(frame.y) == 235
    desk.end()


def test_other_pixel_formats_are_converted() -> None:
    frame = picture(120).reformat(format="yuv444p")
    y, u, _v = read_planes(to_i420(frame))
    assert u.shape == (60, 80)
    assert abs(luma_of(y) - 120) <= 1
