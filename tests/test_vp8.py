"""VP8 headers and RTP payloads, against libvpx, a second parser, hand-made bytes and garbage."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.codecs.vpx import VpxPayloadDescriptor
from hypothesis import given
from hypothesis import strategies as st

from calliope import vp8
from calliope.errors import MediaError


def encode(width: int, height: int, count: int = 3) -> list[bytes]:
    """Frames of noise from libvpx; the first one is the keyframe."""
    encoder = av.CodecContext.create("libvpx", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
    random = np.random.default_rng(0)
    packets = []
    for index in range(count):
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [bytes(packet) for packet in packets]


@pytest.mark.parametrize(
    "size", [(640, 360), (641, 359), (360, 640), (1, 1), (17, 2), (1920, 1080)]
)
def test_the_size_stands_in_a_keyframe_and_nowhere_else(size: tuple[int, int]) -> None:
    keyframe, *others = encode(*size, count=2)
    assert vp8.is_keyframe(keyframe)
    assert vp8.read_keyframe_size(keyframe) == size
    assert others
    for frame in others:
        assert not vp8.is_keyframe(frame)
        assert vp8.read_keyframe_size(frame) is None


def keyframe_header(width: int, height: int, scale: int = 0) -> bytes:
    size = (width | scale << 14).to_bytes(2, "little") + (height | scale << 14).to_bytes(
        2, "little"
    )
    return b"\x10\x02\x00\x9d\x01\x2a" + size


@given(st.integers(1, 16383), st.integers(1, 16383), st.integers(0, 3))
def test_a_player_asked_to_upscale_sees_the_size_that_is_coded(
    width: int, height: int, scale: int
) -> None:
    assert vp8.read_keyframe_size(keyframe_header(width, height, scale)) == (width, height)


@pytest.mark.parametrize(
    "frame",
    [
        keyframe_header(640, 360)[:9],
        b"\x10",
        keyframe_header(0, 360),
        keyframe_header(640, 0, scale=3),
        keyframe_header(640, 360).replace(b"\x9d", b"\x9e"),
    ],
    ids=["cut short", "one byte", "no width", "no height", "wrong start code"],
)
def test_a_broken_keyframe_is_refused(frame: bytes) -> None:
    with pytest.raises(MediaError):
        vp8.read_keyframe_size(frame)


def test_nothing_is_no_keyframe() -> None:
    assert not vp8.is_keyframe(b"")
    assert vp8.read_keyframe_size(b"") is None


@given(st.binary(max_size=40))
def test_garbage_is_a_size_or_none_or_refused(frame: bytes) -> None:
    try:
        size = vp8.read_keyframe_size(frame)
    except MediaError:
        assert vp8.is_keyframe(frame)
    else:
        assert (size is not None) == vp8.is_keyframe(frame)


# RTP payloads


def test_a_small_frame_is_one_payload() -> None:
    assert vp8.packetise(b"frame", 0x1234) == (b"\x90\x80\x92\x34frame",)


def test_only_the_first_payload_starts_the_frame() -> None:
    assert vp8.packetise(b"abcdefgh", 5, max_payload=7) == (
        b"\x90\x80\x80\x05abc",
        b"\x80\x80\x80\x05def",
        b"\x80\x80\x80\x05gh",
    )


@given(
    st.binary(min_size=1, max_size=5000),
    st.integers(0, vp8.PICTURE_ID_MODULO - 1),
    st.integers(5, 1500),
)
def test_payloads_are_even_small_enough_and_no_more_than_needed(
    frame: bytes, picture_id: int, max_payload: int
) -> None:
    payloads = vp8.packetise(frame, picture_id, max_payload)
    sizes = [len(payload) for payload in payloads]
    assert max(sizes) <= max_payload
    assert max(sizes) - min(sizes) <= 1
    assert len(payloads) == -(-len(frame) // (max_payload - 4))
    parts = [vp8.parse_payload(payload) for payload in payloads]
    assert b"".join(part.data for part in parts) == frame
    assert [part.start_of_frame for part in parts] == [True] + [False] * (len(parts) - 1)
    assert {part.picture_id for part in parts} == {picture_id}


def test_another_parser_reads_the_payloads_of_a_real_frame() -> None:
    frame = encode(320, 180)[0]
    joined = b""
    for index, payload in enumerate(vp8.packetise(frame, 0x7FFF)):
        descriptor, data = VpxPayloadDescriptor.parse(payload)
        assert descriptor.picture_id == 0x7FFF
        assert (descriptor.partition_start, descriptor.partition_id) == (int(index == 0), 0)
        assert len(payload) <= 1200
        joined += data
    assert joined == frame


@pytest.mark.parametrize(("frame", "max_payload"), [(b"", 1200), (b"frame", 4), (b"frame", 0)])
def test_what_cannot_be_packetised_is_refused(frame: bytes, max_payload: int) -> None:
    with pytest.raises(ValueError, match="payloads"):
        vp8.packetise(frame, 0, max_payload)


@pytest.mark.parametrize(
    ("payload", "start_of_frame", "picture_id"),
    [
        (b"\x10data", True, None),
        (b"\x00data", False, None),
        (b"\x11data", False, None),  # the second partition starts: not the frame
        (b"\x50data", True, None),  # a reserved bit is ignored
        (b"\x30data", True, None),  # a frame nobody refers to
        (b"\x90\x00data", True, None),
        (b"\x90\x80\x07data", True, 7),
        (b"\x90\x80\x81\x02data", True, 258),
        (b"\x90\xe0\x81\x02\x09\x40data", True, 258),  # TL0PICIDX and TID
        (b"\x90\x10\x03data", True, None),  # KEYIDX alone
        (b"\x90\x30\x43data", True, None),  # TID and KEYIDX share a byte
        (b"\x90\x40\x11data", True, None),  # TL0PICIDX alone
    ],
)
def test_every_form_of_descriptor_is_understood(
    payload: bytes, start_of_frame: bool, picture_id: int | None
) -> None:
    assert vp8.parse_payload(payload) == vp8.Vp8Payload(start_of_frame, picture_id, b"data")


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x10", b"\x90", b"\x90\x80", b"\x90\x80\x81", b"\x90\x80\x07", b"\x90\xf0\x81\x02\x03"],
)
def test_a_payload_cut_short_is_refused(payload: bytes) -> None:
    with pytest.raises(MediaError):
        vp8.parse_payload(payload)


@given(st.binary(max_size=12))
def test_garbage_is_parsed_as_the_other_parser_does_or_refused(payload: bytes) -> None:
    try:
        parsed = vp8.parse_payload(payload)
    except MediaError:
        parsed = None
    try:
        descriptor, data = VpxPayloadDescriptor.parse(payload)
    except ValueError:
        data = b""
    if parsed is None:
        assert not data
    else:
        assert parsed.data == data
        assert parsed.picture_id == descriptor.picture_id
        partition = descriptor.partition_id & 7  # that parser takes a reserved bit for its fourth
        assert parsed.start_of_frame == (descriptor.partition_start == 1 and partition == 0)
