"""Reading RTP packets and counting what got lost."""

from __future__ import annotations

import pytest
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import HeaderExtensionsMap
from aiortc.rtp import RtpPacket as StockPacket
from hypothesis import given
from hypothesis import strategies as st

from calliope.errors import MediaError
from calliope.transport.rtp import Reception, read_packet


def extension_map() -> HeaderExtensionsMap:
    uris = {
        1: "urn:ietf:params:rtp-hdrext:sdes:mid",
        2: "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        3: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    }
    made = HeaderExtensionsMap()
    made.configure(
        RTCRtpParameters(
            headerExtensions=[RTCRtpHeaderExtensionParameters(i, uri) for i, uri in uris.items()]
        )
    )
    return made


@given(
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFF_FFFF),
    payload=st.binary(max_size=50),
    marker=st.booleans(),
    csrc=st.lists(st.integers(0, 0xFFFF_FFFF), max_size=15),
    padding=st.integers(0, 20),
    mid=st.sampled_from([None, "0", "a-mid-of-16-chars", "one-that-is-longer-than-16"]),
)
def test_what_another_library_writes_is_read_the_same(
    sequence: int,
    timestamp: int,
    payload: bytes,
    marker: bool,
    csrc: list[int],
    padding: int,
    mid: str | None,
) -> None:
    stock = StockPacket(96, int(marker), sequence, timestamp, 77, payload)
    stock.csrc = csrc
    stock.padding_size = padding
    stock.extensions.mid = mid
    stock.extensions.audio_level = (True, 33)
    packet = read_packet(stock.serialize(extension_map()))
    assert (packet.payload_type, packet.marker, packet.sequence) == (96, marker, sequence)
    assert (packet.timestamp, packet.ssrc, packet.payload) == (timestamp, 77, payload)
    assert packet.extension(1) == (None if mid is None else mid.encode())
    assert packet.extension(2) == b"\xa1"
    assert packet.extension(3) is None


@given(st.binary(max_size=80))
def test_garbage_is_read_or_refused_and_nothing_else(data: bytes) -> None:
    try:
        packet = read_packet(b"\x90" + data)
    except MediaError:
        return
    for extension_id in range(16):
        packet.extension(extension_id)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80" * 11,
        b"\x40" + bytes(20),
        b"\xa0" + bytes(11) + b"\x05",
        b"\x90" + bytes(13),
        b"\x90" + bytes(11) + b"\xbe\xde\x00\x09",
        b"\x8f" + bytes(20),
    ],
    ids=["empty", "short", "version", "padding", "extension", "extension size", "csrc"],
)
def test_a_broken_packet_is_refused(data: bytes) -> None:
    with pytest.raises(MediaError):
        read_packet(data)


def test_loss_is_counted_over_the_wrap_and_by_interval() -> None:
    reception = Reception(90_000)
    for sequence in (65_533, 65_534, 0, 1):  # 65535 is lost
        reception.count(sequence, 0, 0)
    assert (reception.expected, reception.lost) == (5, 1)
    assert reception.take_fraction_lost() == 256 // 5
    assert reception.take_fraction_lost() == 0
    for sequence in (2, 3, 3, 4):  # a duplicate hides nothing and loses nothing
        reception.count(sequence, 0, 0)
    assert reception.take_fraction_lost() == 0
    assert reception.highest == 65_536 + 4


def test_jitter_is_that_of_the_arrival_and_not_of_the_sender() -> None:
    steady, shaky = Reception(90_000), Reception(90_000)
    for number in range(200):
        at_ns = number * 33_333_333
        steady.count(number, number * 3000, at_ns)
        shaky.count(number, number * 3000, at_ns + (number % 2) * 10_000_000)
    assert steady.jitter <= 1
    assert 800 < shaky.jitter < 1000  # 10 ms are 900 units
    shaky.count(200, 2**31, 200 * 33_333_333)  # a sender that jumps in time
    assert shaky.jitter < 1000
