"""H.264 parameter sets and RTP payloads, against libx264, a second packetiser and garbage."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc.codecs.h264 import H264Encoder
from hypothesis import given
from hypothesis import strategies as st

from calliope import h264
from calliope.errors import MediaError

START = b"\x00\x00\x00\x01"
SPS, PPS, SEI, IDR, SLICE = b"\x67sps", b"\x68pps", b"\x06sei", b"\x65\x88idr", b"\x41\x9aslice"


def encode(
    width: int, height: int, count: int = 3, pix_fmt: str = "yuv420p", **options: str
) -> list[bytes]:
    """Annex B frames of noise from libx264; the first one is the keyframe."""
    encoder = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
    encoder.time_base = Fraction(1, 30)
    encoder.options = {"preset": "ultrafast", "tune": "zerolatency", **options}
    random = np.random.default_rng(0)
    packets = []
    for index in range(count):
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=pix_fmt)
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return [bytes(packet) for packet in packets]


# Parameter sets


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ((640, 360), {"profile": "baseline"}),
        ((1280, 720), {"profile": "baseline"}),
        ((1920, 1080), {"profile": "main"}),
        ((360, 640), {"profile": "high"}),
        ((642, 358), {"profile": "high"}),
        ((16, 16), {"profile": "baseline"}),
        ((2, 2), {"profile": "main"}),
        ((176, 144), {"profile": "main", "tune": "film", "bf": "2"}),
        ((640, 360), {"profile": "high", "x264-params": "cqm=jvt:8x8dct=1"}),
        ((720, 576), {"profile": "high", "x264-params": "interlaced=1"}),
        ((720, 572), {"profile": "high", "x264-params": "interlaced=1"}),
        ((642, 358), {"profile": "high422", "pix_fmt": "yuv422p"}),
        ((641, 359), {"profile": "high444", "pix_fmt": "yuv444p"}),
        ((641, 359), {"profile": "high", "pix_fmt": "gray"}),
    ],
    ids=str,
)
def test_the_size_an_encoder_was_given_stands_in_its_stream(
    size: tuple[int, int], options: dict[str, str]
) -> None:
    keyframe, *others = encode(*size, **options)  # type: ignore[arg-type]
    assert h264.is_keyframe(keyframe)
    assert h264.read_sps_size(keyframe) == size
    parameter_set = next(u for u in h264.iter_nal_units(keyframe) if u[0] & 0x1F == 7)
    assert h264.read_sps_size(parameter_set) == size
    sps = h264.read_sps(keyframe)
    assert sps is not None
    assert (sps.coded_width % 16, sps.coded_height % 16) == (0, 0)
    assert others
    for frame in others:
        assert not h264.is_keyframe(frame)
        assert h264.read_sps_size(frame) is None


class BitWriter:
    """Writes the fields of a parameter set (H.264, 7.2), to have such as x264 never makes."""

    def __init__(self) -> None:
        self._bits = ""

    def bits(self, value: int, count: int = 1) -> None:
        self._bits += f"{value:0{count}b}"

    def unsigned(self, value: int) -> None:
        digits = f"{value + 1:b}"
        self._bits += "0" * (len(digits) - 1) + digits

    def signed(self, value: int) -> None:
        self.unsigned(2 * value - 1 if value > 0 else -2 * value)

    def unit(self, header: int) -> bytes:
        """A NAL unit: stop bit, padding, emulation prevention (7.4.1)."""
        bits = self._bits + "1"
        bits += "0" * (-len(bits) % 8)
        escaped = bytearray((header,))
        zeros = 0
        for byte in int(bits, 2).to_bytes(len(bits) // 8, "big"):
            if zeros >= 2 and byte <= 3:
                escaped.append(3)
                zeros = 0
            escaped.append(byte)
            zeros = 0 if byte else zeros + 1
        return bytes(escaped)


CropSide = st.integers(0, 3)


@given(
    macroblocks=st.tuples(st.integers(1, 1024), st.integers(1, 1024)),
    crop=st.tuples(CropSide, CropSide, CropSide, CropSide) | st.none(),
    profile=st.sampled_from([66, 77, 100, 244]),
    chroma=st.integers(0, 3),
    interlaced=st.booleans(),
    order_offsets=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), max_size=255) | st.none(),
    scaling=st.lists(st.integers(-128, 127), min_size=64, max_size=64) | st.none(),
    set_id=st.integers(0, 31),
)
def test_whatever_stands_before_the_size_it_is_found(
    macroblocks: tuple[int, int],
    crop: tuple[int, int, int, int] | None,
    profile: int,
    chroma: int,
    interlaced: bool,
    order_offsets: list[int] | None,
    scaling: list[int] | None,
    set_id: int,
) -> None:
    write = BitWriter()
    write.bits(profile, 8)
    write.bits(0, 16)
    write.unsigned(set_id)
    if profile < 100:
        chroma = 1
    else:
        write.unsigned(chroma)
        if chroma == 3:
            write.bits(0)
        write.unsigned(0)
        write.unsigned(0)
        write.bits(0)
        write.bits(scaling is not None)
        if scaling is not None:
            for index in range(12 if chroma == 3 else 8):
                write.bits(index % 2)
                last = 8
                for delta in scaling[: 16 if index < 6 else 64] if index % 2 else []:
                    write.signed(delta)
                    last = (last + delta) % 256
                    if not last:
                        break
    write.unsigned(4)
    if order_offsets is None:
        write.unsigned(2)
    else:
        write.unsigned(1)
        write.bits(0)
        write.signed(-3)
        write.signed(4)
        write.unsigned(len(order_offsets))
        for offset in order_offsets:
            write.signed(offset)
    write.unsigned(1)
    write.bits(0)
    write.unsigned(macroblocks[0] - 1)
    write.unsigned(macroblocks[1] - 1)
    write.bits(not interlaced)
    if interlaced:
        write.bits(0)
    write.bits(1)
    write.bits(crop is not None)
    left, right, top, bottom = crop or (0, 0, 0, 0)
    if crop is not None:
        for side in crop:
            write.unsigned(side)
    write.bits(0)
    unit_x, unit_y = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}[chroma]
    coded = macroblocks[0] * 16, macroblocks[1] * 16 * (1 + interlaced)
    width = coded[0] - (left + right) * unit_x
    height = coded[1] - (top + bottom) * unit_y * (1 + interlaced)
    unit = write.unit(0x67)
    assert h264.read_sps(START + unit) == h264.Sps(profile, width, height, *coded)
    assert h264.read_sps_size(unit) == (width, height)


def parameter_set(width: int, height: int) -> bytes:
    """A Baseline parameter set of so many macroblocks."""
    write = BitWriter()
    for value, count in ((66, 8), (0, 16)):
        write.bits(value, count)
    for value in (0, 0, 2, 1):
        write.unsigned(value)
    write.bits(0)
    write.unsigned(width - 1)
    write.unsigned(height - 1)
    write.bits(0b1100, 4)
    return write.unit(0x67)


def test_of_several_parameter_sets_the_largest_counts() -> None:
    stream = START + parameter_set(2, 2) + START + parameter_set(900, 800) + START + IDR
    assert h264.read_sps_size(stream + START + parameter_set(3, 3)) == (14400, 12800)


def test_the_size_is_read_behind_short_start_codes_and_padding() -> None:
    stream = b"\x00\x00\x01\x09\xf0" + b"\x00\x00\x00\x00\x01" + parameter_set(40, 30)
    assert h264.read_sps_size(stream + b"\x00\x00\x00\x01" + IDR) == (640, 480)


@pytest.mark.parametrize("size", range(1, 7))
def test_a_parameter_set_cut_short_is_refused(size: int) -> None:
    with pytest.raises(MediaError):
        h264.read_sps_size(parameter_set(40, 30)[:size])


def test_an_endless_number_is_refused() -> None:
    with pytest.raises(MediaError, match="endless"):
        h264.read_sps(b"\x67\x42\x00\x1e" + b"\x00\x00\x03" * 100)


def test_a_picture_cropped_to_nothing_is_refused() -> None:
    write = BitWriter()
    for value, count in ((66, 8), (0, 16)):
        write.bits(value, count)
    for value in (0, 0, 2, 1):
        write.unsigned(value)
    write.bits(0)
    write.unsigned(0)
    write.unsigned(0)
    write.bits(0b111, 3)
    for side in (4, 4, 0, 0):
        write.unsigned(side)
    with pytest.raises(MediaError, match="crops"):
        h264.read_sps(write.unit(0x67))


@given(st.binary(max_size=60))
def test_garbage_parameter_sets_are_read_or_refused(tail: bytes) -> None:
    try:
        sps = h264.read_sps(START + b"\x67" + tail)
    except MediaError:
        return
    assert sps is not None
    assert 1 <= sps.width <= sps.coded_width
    assert 1 <= sps.height <= sps.coded_height


@given(st.binary(max_size=60))
def test_garbage_streams_hurt_nobody(stream: bytes) -> None:
    kinds = [unit[0] & 0x1F for unit in h264.iter_nal_units(stream)]
    assert h264.is_keyframe(stream) == (5 in kinds)
    try:
        size = h264.read_sps_size(stream)
    except MediaError:
        assert 7 in kinds
    else:
        assert (size is not None) == (7 in kinds)


def test_nothing_is_no_keyframe_and_has_no_size() -> None:
    assert not h264.is_keyframe(b"")
    assert h264.read_sps_size(b"") is None


# RTP payloads


def stap_a(*units: bytes) -> bytes:
    return b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def fu_a(unit: bytes, size: int) -> list[bytes]:
    pieces = [unit[1 + at : 1 + at + size] for at in range(0, len(unit) - 1, size)]
    indicator = unit[0] & 0xE0 | 28
    last = len(pieces) - 1
    return [
        bytes((indicator, (index == 0) << 7 | (index == last) << 6 | unit[0] & 0x1F)) + piece
        for index, piece in enumerate(pieces)
    ]


def test_a_single_unit_gets_a_start_code() -> None:
    assert h264.depacketise(IDR) == START + IDR


def test_an_aggregate_falls_apart_into_its_units() -> None:
    assert h264.depacketise(stap_a(SPS, PPS, IDR)) == START + SPS + START + PPS + START + IDR


@pytest.mark.parametrize("unit", [IDR, SLICE])
def test_fragments_joined_are_the_unit(unit: bytes) -> None:
    pieces = fu_a(unit, 1)
    assert len(pieces) > 2
    assert b"".join(map(h264.depacketise, pieces)) == START + unit


@pytest.mark.parametrize("profile", ["baseline", "high"])
def test_a_frame_from_another_packetiser_comes_out_decodable(profile: str) -> None:
    frames = encode(320, 180, count=4, profile=profile)
    decoder = av.CodecContext.create("h264", "r")
    decoded = []
    payloads_seen = set()
    for frame in frames:
        units = H264Encoder._split_bitstream(frame)
        payloads = H264Encoder._packetize(units)
        payloads_seen |= {payload[0] & 0x1F for payload in payloads}
        assert h264.starts_frame(payloads[0])
        stream = b"".join(map(h264.depacketise, payloads))
        assert list(h264.iter_nal_units(stream)) == list(h264.iter_nal_units(frame))
        decoded += decoder.decode(av.Packet(stream))
    decoded += decoder.decode(None)
    assert {24, 28} <= payloads_seen
    assert [(picture.width, picture.height) for picture in decoded] == [(320, 180)] * 4


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x65",
        b"\xe5\x88idr",
        b"\x60data",
        b"\x79\x00\x00\x00\x02\x65\x88",
        b"\x7a\x00\x00data",
        b"\x7d\x85\x00\x00data",
        b"\x7edata",
        b"\x7c\x85",
        b"\x7c\xc5data",
        b"\x7c\x9cdata",
        b"\x7c\x80data",
        b"\x78\x00",
        b"\x78\x00\x00",
        stap_a(SPS, PPS)[:-1],
        stap_a(SPS) + b"\x00",
        stap_a(stap_a(SPS)),
        stap_a(SPS, b"\x80x"),
    ],
    ids=[
        "empty",
        "one byte",
        "forbidden bit",
        "type 0",
        "STAP-B",
        "MTAP16",
        "FU-B",
        "type 30",
        "FU-A without data",
        "FU-A that starts and ends",
        "FU-A of FU-A",
        "FU-A of type 0",
        "STAP-A cut in a size",
        "STAP-A with an empty unit",
        "STAP-A cut in a unit",
        "STAP-A with a crumb behind",
        "STAP-A in STAP-A",
        "STAP-A with a forbidden bit",
    ],
)
def test_what_mode_1_does_not_have_is_refused(payload: bytes) -> None:
    with pytest.raises(MediaError):
        h264.depacketise(payload)


@pytest.mark.parametrize(
    ("payload", "starts"),
    [
        (SPS, True),
        (PPS, True),
        (SEI, True),
        (b"\x09\xf0", True),
        (IDR, True),
        (SLICE, True),
        (b"\x41\x40later slice", False),
        (b"\x0cfiller", False),
        (stap_a(SPS, PPS), True),
        (stap_a(b"\x41\x40later", b"\x41\x20later still"), False),
        (stap_a(b"\x41"), False),
        (fu_a(IDR, 2)[0], True),
        (fu_a(IDR, 2)[1], False),
        (fu_a(b"\x41\x40later slice", 3)[0], False),
    ],
    ids=range(14),
)
def test_a_frame_starts_where_it_can(payload: bytes, starts: bool) -> None:
    assert h264.starts_frame(payload) == starts


@pytest.mark.parametrize("function", [h264.depacketise, h264.starts_frame])
@given(payload=st.binary(max_size=30))
def test_garbage_payloads_are_taken_or_refused(
    function: Callable[[bytes], object], payload: bytes
) -> None:
    try:
        function(payload)
    except MediaError:
        return
    assert len(payload) >= 2
