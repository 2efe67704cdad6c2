"""VP8 bitstream headers (RFC 6386) and VP8 in RTP payloads (RFC 7741); pure functions."""

from __future__ import annotations

from typing import NamedTuple

from calliope.errors import MediaError

PICTURE_ID_MODULO = 1 << 15
"""Picture ids count modulo this: the 15-bit form is the one sent."""

_KEYFRAME_START_CODE = b"\x9d\x01\x2a"
_SIZE_MASK = 0x3FFF  # the two bits above ask the player to upscale; they change no pixel


class Vp8Payload(NamedTuple):
    """One RTP payload, taken apart. ``data`` is the share of the frame it carries.

    A tuple: one is made for every packet, and it costs half of a frozen dataclass.
    """

    start_of_frame: bool
    picture_id: int | None
    data: bytes


def is_keyframe(frame: bytes) -> bool:
    """Whether the frame that begins with ``frame`` can be decoded on its own (RFC 6386, 9.1)."""
    return len(frame) > 0 and not frame[0] & 1


def read_keyframe_size(frame: bytes) -> tuple[int, int] | None:
    """Width and height announced by a keyframe (RFC 6386, 9.1); None for any other frame.

    Needs the frame's first ten bytes. MediaError when a keyframe's header is cut short, lacks
    its start code or announces an empty picture.
    """
    if not is_keyframe(frame):
        return None
    if len(frame) < 10 or frame[3:6] != _KEYFRAME_START_CODE:
        raise MediaError("a VP8 keyframe without its start code")
    width = int.from_bytes(frame[6:8], "little") & _SIZE_MASK
    height = int.from_bytes(frame[8:10], "little") & _SIZE_MASK
    if not width or not height:
        raise MediaError(f"a VP8 keyframe of {width}x{height} pixels")
    return width, height


def packetise(
    frame: bytes, picture_id: int | None = None, max_payload: int = 1200
) -> tuple[bytes, ...]:
    """Split one frame into RTP payloads of nearly the same size (RFC 7741, 4.2).

    Each has a descriptor, with the 15-bit ``picture_id`` if there is one, and holds at most
    ``max_payload`` bytes in all. Without picture ids a receiver tells from the sequence numbers
    alone whether it has every frame, so a viewer may be moved to another encoder's stream at a
    keyframe: two encoders' ids would clash. Sizes are even, the last a little smaller: no crumb
    costs a whole header, and the kernel sends packets of one size in one go. ValueError for an
    empty frame or where no data would fit.
    """
    extension = b""
    if picture_id is not None:
        extension = bytes((0x80, 0x80 | picture_id >> 8 & 0x7F, picture_id & 0xFF))
    room = max_payload - 1 - len(extension)
    if room < 1 or not frame:
        raise ValueError(f"cannot put {len(frame)} bytes into payloads of {max_payload}")
    total = len(frame)
    count = -(-total // room)
    has_extension = 0x80 if extension else 0
    first, later = bytes((has_extension | 0x10,)) + extension, bytes((has_extension,)) + extension
    size = -(-total // count)
    payloads = [later + frame[at : at + size] for at in range(0, total, size)]
    payloads[0] = first + frame[:size]
    return tuple(payloads)


def parse_payload(payload: bytes) -> Vp8Payload:
    """Take one RTP payload apart (RFC 7741, 4.2); reserved bits are ignored, as it asks.

    MediaError when the descriptor is cut short or no data follows it.
    """
    try:
        first = payload[0]
        at = 1
        picture_id = None
        if first & 0x80:
            flags = payload[1]
            at = 2
            if flags & 0x80:
                picture_id = payload[2]
                at = 3
                if picture_id & 0x80:
                    picture_id = (picture_id & 0x7F) << 8 | payload[3]
                    at = 4
            at += (flags >> 6 & 1) + (flags & 0x30 != 0)  # TL0PICIDX; TID, Y and KEYIDX
    except IndexError:
        raise MediaError("a VP8 payload shorter than its descriptor") from None
    if at >= len(payload):
        raise MediaError("a VP8 payload without data")
    start_of_frame = first & 0x17 == 0x10  # S, and partition 0
    return Vp8Payload(start_of_frame, picture_id, payload[at:])
