"""Packets sent by the native burst are those that the plain way sends."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pylibsrtp import Policy, Session
from pylibsrtp._binding import ffi, lib  # type: ignore[import-not-found]

from calliope.transport import aiortc_seams, burst
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.burst import Burst
from calliope.transport.rtp import read_packet
from tests.transport.media_peers import GreyTrack, StockCall, until

HEADER = bytes((0x90, 96, 0, 0, 0, 0, 0, 9, 0, 0, 0, 5)) + b"\xbe\xde\x00\x01\x32\x01\x02\x03"
PROFILES = {
    "GCM 128": (Policy.SRTP_PROFILE_AEAD_AES_128_GCM, 28),
    "GCM 256": (Policy.SRTP_PROFILE_AEAD_AES_256_GCM, 44),
    "CM and SHA1": (Policy.SRTP_PROFILE_AES128_CM_SHA1_80, 30),
}


class Ends:
    """A sending session and socket, and what the other end makes of the datagrams."""

    def __init__(self, profile: str = "GCM 128", host: str = "127.0.0.1") -> None:
        kind, key_bytes = PROFILES[profile]
        key = os.urandom(key_bytes)
        self.out = Session(Policy(key, Policy.SSRC_ANY_OUTBOUND, srtp_profile=kind))
        self.back = Session(Policy(key, Policy.SSRC_ANY_INBOUND, srtp_profile=kind))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.source = socket.socket(family, socket.SOCK_DGRAM)
        self.sink = socket.socket(family, socket.SOCK_DGRAM)
        self.sink.bind((host, 0))
        self.sink.settimeout(10)
        self.address = cast("tuple[str, int]", self.sink.getsockname()[:2])
        protect = int(ffi.cast("intptr_t", ffi.addressof(lib, "srtp_protect")))
        self.burst = Burst(protect, int(ffi.cast("intptr_t", self.out._srtp[0])), self.out)

    def send(self, sequence: int, payloads: tuple[bytes, ...], *, ends_frame: bool = True) -> int:
        self.burst.aim(self.source, self.address)
        return self.burst.send(HEADER, sequence, payloads, ends_frame)

    def receive(self) -> bytes:
        return self.back.unprotect(self.sink.recv(2048))

    def close(self) -> None:
        self.source.close()
        self.sink.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize("profile", PROFILES)
def test_every_cipher_arrives_as_it_was_sent(profile: str) -> None:
    ends = Ends(profile)
    payloads = tuple(bytes([n]) * (1 + 79 * n) for n in range(burst.BURST_PACKETS))
    assert ends.send(65_530, payloads) == len(payloads)
    for number, payload in enumerate(payloads):
        plain = ends.receive()
        packet = read_packet(plain)
        assert packet.sequence == (65_530 + number) & 0xFFFF
        assert packet.marker == (number == len(payloads) - 1)
        assert (packet.payload_type, packet.timestamp, packet.ssrc) == (96, 9, 5)
        assert packet.payload == payload
        assert plain[12:20] == HEADER[12:]
    ends.close()


@pytest.mark.parametrize("together", [1, 0])
def test_neighbours_of_one_size_go_together_and_arrive_one_by_one(
    ends: Ends, together: int
) -> None:
    ends.burst._state[4] = together
    sizes = (900, 900, 900, 300, 300, 40, 900, 899, 900, 1)
    payloads = tuple(bytes([n]) * size for n, size in enumerate(sizes))
    assert ends.send(300, payloads) == len(sizes)
    assert [read_packet(ends.receive()).payload for _ in sizes] == list(payloads)
    assert ends.burst._state[4] == together


def test_a_network_that_cuts_nothing_up_gets_packets_one_by_one(ends: Ends) -> None:
    """A socket with checksums off takes no segments: Linux answers as some network cards do."""
    ends.source.setsockopt(socket.SOL_SOCKET, 11, 1)  # SO_NO_CHECK
    payloads = (b"a" * 500, b"b" * 500, b"c" * 20)
    for sequence in (10, 20):
        assert ends.send(sequence, payloads) == 3
        assert [read_packet(ends.receive()).payload for _ in payloads] == list(payloads)
        assert ends.burst._state[4] == 0


@pytest.mark.parametrize("why", [errno.EAGAIN, errno.ENOBUFS])
def test_a_full_buffer_is_not_taken_for_a_network_that_cuts_nothing_up(
    ends: Ends, why: int
) -> None:
    """The loopback is never full, so a stand-in of ``sendmmsg`` says that it is."""
    calls = []

    def full(_file: int, _all: int, count: int, _flags: int) -> int:
        calls.append(count)
        ctypes.set_errno(why)
        return -1

    form = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, use_errno=True
    )
    stand_in, sendmmsg = form(full), ends.burst._sendmmsg
    payloads = (b"a" * 500, b"b" * 500, b"c" * 20)
    ends.burst._sendmmsg = cast(int, ctypes.cast(stand_in, ctypes.c_void_p).value)
    assert (ends.send(10, payloads), calls) == (0, [1])
    assert ends.burst._state[4] == 1
    ends.burst._sendmmsg = sendmmsg
    assert ends.send(20, payloads) == 3
    assert [read_packet(ends.receive()).payload for _ in payloads] == list(payloads)


def test_ipv6_is_spoken() -> None:
    ends = Ends(host="::1")
    assert ends.send(7, (b"six",)) == 1
    assert read_packet(ends.receive()).payload == b"six"
    ends.close()


def test_a_long_frame_goes_out_in_several_bursts(ends: Ends) -> None:
    payloads = tuple(b"%d" % n * 100 for n in range(3 * burst.BURST_PACKETS + 2))
    assert ends.send(100, payloads, ends_frame=False) == len(payloads)
    for number, payload in enumerate(payloads):
        packet = read_packet(ends.receive())
        assert (packet.sequence, packet.marker, packet.payload) == (100 + number, False, payload)


@settings(max_examples=30, deadline=None)
@given(
    sequence=st.integers(0, 0xFFFF),
    payloads=st.lists(st.binary(min_size=1, max_size=1200), min_size=1, max_size=5),
    ends_frame=st.booleans(),
)
def test_bursts_equal_the_plain_way(sequence: int, payloads: list[bytes], ends_frame: bool) -> None:
    """The slow twin: header and payload put together in Python, protected one by one."""
    ends = Ends()
    ends.send(sequence, tuple(payloads), ends_frame=ends_frame)
    for number, payload in enumerate(payloads):
        expected = bytearray(HEADER + payload)
        if ends_frame and number == len(payloads) - 1:
            expected[1] |= 0x80
        expected[2:4] = ((sequence + number) & 0xFFFF).to_bytes(2, "big")
        assert ends.receive() == bytes(expected)
    ends.close()


def test_what_does_not_fit_is_refused_and_not_written(ends: Ends) -> None:
    room = burst.PACKET_BYTES - burst.TRAILER_BYTES - len(HEADER)
    with pytest.raises(ValueError, match="fit"):
        ends.send(1, (b"x" * (room + 1),))
    assert ends.send(2, (b"x" * room,)) == 1
    assert len(read_packet(ends.receive()).payload) == room


def test_a_closed_socket_takes_nothing(ends: Ends) -> None:
    ends.source.close()
    assert ends.send(1, (b"x", b"y")) == 0
    assert ends.send(3, (b"x",)) == 0


def test_a_single_packet_leaves_nothing_of_itself_in_the_next(ends: Ends) -> None:
    for number, size in enumerate((1200, 1, 90)):
        payload = bytes([number]) * size
        assert ends.send(number, (payload,), ends_frame=number == 0) == 1
        packet = read_packet(ends.receive())
        assert (packet.payload, packet.marker, packet.sequence) == (payload, number == 0, number)


def test_another_address_is_followed(ends: Ends) -> None:
    assert ends.send(1, (b"one",)) == 1
    moved = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    moved.bind(("127.0.0.1", 0))
    moved.settimeout(10)
    first = ends.receive()
    ends.address = moved.getsockname()
    assert ends.send(2, (b"two",)) == 1
    assert read_packet(first).payload == b"one"
    assert read_packet(ends.back.unprotect(moved.recv(2048))).payload == b"two"
    moved.close()


@pytest.mark.parametrize("native", [True, False])
async def test_both_ways_reach_a_stock_client(
    monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    if not native:

        def absent(name: str) -> int:
            raise OSError(f"no {name}")

        monkeypatch.setattr(burst, "_libc_address", absent)
    call = StockCall(video=GreyTrack())
    await call.offer()
    await call.answer()
    sender: MediaSender = call.sender("video")
    got: list[bytes] = []
    receiver = call.client.getReceivers()[0]
    monkeypatch.setattr(
        receiver, "_handle_rtp_packet", lambda packet, **_: _keep(got, packet.payload)
    )
    await until(lambda: sender.running)
    header = bytes((0x80, sender.payload_type)) + bytes(6) + sender.ssrc.to_bytes(4, "big")
    assert sender.media_transport.send_rtp(header, 40, (b"a", b"b")) == 2
    await until(lambda: got == [b"a", b"b"])
    assert (sender.media_transport._burst is not None) == native
    await call.close()
    assert sender.media_transport.send_rtp(header, 42, (b"c",)) == 0


async def _keep(got: list[bytes], payload: bytes) -> None:
    got.append(payload)


def test_the_address_of_libsrtp_s_function_is_there() -> None:
    aiortc_seams.check()
    assert int(ffi.cast("intptr_t", ffi.addressof(lib, "srtp_protect"))) > 0
