"""H.264 parameter sets (ITU-T H.264, 7.3) and H.264 in RTP payloads (RFC 6184, mode 1).

Pure functions. A *stream* is one or more NAL units in Annex B form, each behind a start code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from calliope.errors import MediaError

_START_CODE = b"\x00\x00\x00\x01"
_SHORT_START_CODE = b"\x00\x00\x01"
_SLICE, _IDR, _SEI, _SPS, _PPS, _DELIMITER = 1, 5, 6, 7, 8, 9
_STAP_A, _FU_A = 24, 28
_SPS_BYTES_READ = 4096  # the longest that can come before the size: no more is looked at
_HIGH_PROFILES = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_CHROMA_SUBSAMPLING = ((1, 1), (2, 2), (2, 1), (1, 1))  # by chroma_format_idc: x, y


@dataclass(frozen=True, slots=True)
class Sps:
    """What a sequence parameter set says of its pictures.

    ``coded_width`` and ``coded_height`` are what a decoder allocates, whole macroblocks;
    ``width`` and ``height`` are what is left of them after cropping.
    """

    profile_idc: int
    width: int
    height: int
    coded_width: int
    coded_height: int


def iter_nal_units(stream: bytes) -> Iterator[bytes]:
    """The NAL units of a stream, without start codes; data without any is one NAL unit."""
    at = stream.find(_SHORT_START_CODE)
    if at < 0:
        if stream:
            yield stream
        return
    while at >= 0:
        begin = at + 3
        at = stream.find(_SHORT_START_CODE, begin)
        unit = stream[begin : at if at >= 0 else len(stream)].rstrip(b"\x00")
        if unit:
            yield unit


def is_keyframe(stream: bytes) -> bool:
    """Whether an IDR picture is in the stream: decoding can begin there."""
    return any(unit[0] & 0x1F == _IDR for unit in iter_nal_units(stream))


def read_sps_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height of the largest picture that a stream (or one NAL unit) announces.

    After cropping; None without a sequence parameter set, MediaError if one is broken.
    """
    sps = read_sps(stream)
    return None if sps is None else (sps.width, sps.height)


def read_sps(stream: bytes) -> Sps | None:
    """The sequence parameter set of a stream (or one NAL unit); None if it has none.

    Of several it is the one with the most coded pixels: who guards memory must know of it.
    MediaError if one is broken.
    """
    found = [
        _parse_sps(unit[1 : 1 + _SPS_BYTES_READ])
        for unit in iter_nal_units(stream)
        if unit[0] & 0x1F == _SPS
    ]
    return max(found, key=lambda sps: sps.coded_width * sps.coded_height, default=None)


def depacketise(payload: bytes) -> bytes:
    """One RTP payload as a piece of Annex B stream (RFC 6184, 5.6 to 5.8).

    Joined in order, the pieces of all packets of one timestamp are the access unit. MediaError
    for what packetization mode 1 does not allow, and for what is cut short.
    """
    kind = _unit_type(payload)
    if 1 <= kind <= 23:
        return _START_CODE + payload
    if kind == _STAP_A:
        return b"".join(_START_CODE + unit for unit in _aggregated_units(payload))
    if kind == _FU_A:
        indicator, header = _fragment_header(payload)
        if header & 0x80:
            return _START_CODE + bytes((indicator & 0xE0 | header & 0x1F,)) + payload[2:]
        return payload[2:]
    raise MediaError(f"an H264 payload of type {kind}, which mode 1 does not have")


def starts_frame(payload: bytes) -> bool:
    """Whether an access unit can begin with this RTP payload (H.264, 7.4.1.2.3).

    True for parameter sets, SEI, a delimiter and a picture's first slice. Several packets of one
    frame may say so (SPS, then PPS, then the slice). MediaError for what is cut short.
    """
    kind = _unit_type(payload)
    if kind == _STAP_A:
        unit = next(iter(_aggregated_units(payload)))
        return _unit_starts_frame(unit[0] & 0x1F, unit[1:2])
    if kind == _FU_A:
        _, header = _fragment_header(payload)
        return bool(header & 0x80) and _unit_starts_frame(header & 0x1F, payload[2:3])
    return _unit_starts_frame(kind, payload[1:2])


def _unit_starts_frame(kind: int, second: bytes) -> bool:
    if kind in (_SLICE, _IDR):
        return bool(second) and second[0] >= 0x80  # first_mb_in_slice, ue(v), is 0
    return kind in (_SEI, _SPS, _PPS, _DELIMITER)


def _unit_type(payload: bytes) -> int:
    if len(payload) < 2:
        raise MediaError("an H264 payload of less than two bytes")
    if payload[0] & 0x80:
        raise MediaError("an H264 payload with its forbidden bit set")
    return payload[0] & 0x1F


def _aggregated_units(payload: bytes) -> list[bytes]:
    units = []
    at = 1
    while at < len(payload):
        size = int.from_bytes(payload[at : at + 2], "big")
        unit = payload[at + 2 : at + 2 + size]
        if not size or len(unit) < size:
            raise MediaError("an H264 STAP-A payload whose sizes do not fit")
        if unit[0] & 0x80 or not 1 <= unit[0] & 0x1F <= 23:
            raise MediaError("an H264 STAP-A payload that holds no plain NAL units")
        units.append(unit)
        at += 2 + size
    return units


def _fragment_header(payload: bytes) -> tuple[int, int]:
    if len(payload) < 3:
        raise MediaError("an H264 FU-A payload without data")
    header = payload[1]
    if header & 0xC0 == 0xC0 or not 1 <= header & 0x1F <= 23:
        raise MediaError("an H264 FU-A payload with an impossible header")
    return payload[0], header


class _BitReader:
    """Reads a raw byte sequence payload bit by bit; MediaError at its end."""

    def __init__(self, rbsp: bytes) -> None:
        self._value = int.from_bytes(rbsp, "big")
        self._left = len(rbsp) * 8

    def bits(self, count: int) -> int:
        if count > self._left:
            raise MediaError("an H264 parameter set that is cut short")
        self._left -= count
        return self._value >> self._left & (1 << count) - 1

    def unsigned(self) -> int:
        """ue(v): Exp-Golomb (9.1)."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
            if zeros > 32:
                raise MediaError("an H264 parameter set with an endless number")
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed(self) -> int:
        """se(v): Exp-Golomb mapped to 0, 1, -1, 2, -2 (9.1.1)."""
        code = self.unsigned()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _parse_sps(escaped: bytes) -> Sps:
    """``escaped`` is the NAL unit without its header byte (7.3.2.1.1)."""
    read = _BitReader(escaped.replace(b"\x00\x00\x03", b"\x00\x00"))
    profile_idc = read.bits(8)
    read.bits(16)  # constraint flags, level
    read.unsigned()  # seq_parameter_set_id
    chroma_format_idc, separate_planes = 1, 0
    if profile_idc in _HIGH_PROFILES:
        chroma_format_idc = read.unsigned()
        if chroma_format_idc > 3:
            raise MediaError(f"an H264 parameter set with chroma format {chroma_format_idc}")
        if chroma_format_idc == 3:
            separate_planes = read.bits(1)
        read.unsigned()  # bit_depth_luma_minus8
        read.unsigned()  # bit_depth_chroma_minus8
        read.bits(1)  # qpprime_y_zero_transform_bypass_flag
        if read.bits(1):  # seq_scaling_matrix_present_flag
            for index in range(12 if chroma_format_idc == 3 else 8):
                if read.bits(1):
                    _skip_scaling_list(read, 16 if index < 6 else 64)
    read.unsigned()  # log2_max_frame_num_minus4
    order_count_type = read.unsigned()
    if order_count_type == 0:
        read.unsigned()  # log2_max_pic_order_cnt_lsb_minus4
    elif order_count_type == 1:
        read.bits(1)  # delta_pic_order_always_zero_flag
        read.signed()  # offset_for_non_ref_pic
        read.signed()  # offset_for_top_to_bottom_field
        cycle = read.unsigned()
        if cycle > 255:
            raise MediaError(f"an H264 parameter set with an order cycle of {cycle} frames")
        for _ in range(cycle):
            read.signed()  # offset_for_ref_frame
    elif order_count_type != 2:
        raise MediaError(f"an H264 parameter set with order count type {order_count_type}")
    read.unsigned()  # max_num_ref_frames
    read.bits(1)  # gaps_in_frame_num_value_allowed_flag
    coded_width = (read.unsigned() + 1) * 16
    map_units = read.unsigned() + 1
    frames_only = read.bits(1)
    coded_height = map_units * 16 * (2 - frames_only)
    if not frames_only:
        read.bits(1)  # mb_adaptive_frame_field_flag
    read.bits(1)  # direct_8x8_inference_flag
    width, height = coded_width, coded_height
    if read.bits(1):  # frame_cropping_flag
        unit_x, unit_y = (1, 1) if separate_planes else _CHROMA_SUBSAMPLING[chroma_format_idc]
        unit_y *= 2 - frames_only
        width -= (read.unsigned() + read.unsigned()) * unit_x
        height -= (read.unsigned() + read.unsigned()) * unit_y
    if width < 1 or height < 1:
        raise MediaError("an H264 parameter set that crops its whole picture away")
    return Sps(profile_idc, width, height, coded_width, coded_height)


def _skip_scaling_list(read: _BitReader, size: int) -> None:
    """Pass over one scaling list (7.3.2.1.1.1); deltas end where the next scale is 0."""
    last = 8
    for _ in range(size):
        last = (last + read.signed() + 256) % 256
        if last == 0:
            return
