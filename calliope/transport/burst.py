"""Encrypting and sending a burst of packets of one frame in one native call.

In Python a packet costs two calls into C, a system call, and the GIL let go and taken back, for
which the event loop may have to wait behind a decoder thread. Here one kernel writes headers,
encrypts (libsrtp's own function, called by address) and hands all packets to the kernel in one
``sendmmsg``; it keeps the GIL, for some tens of microseconds. Neighbours of one size, and a
smaller one behind them, are one message that Linux cuts up (UDP_SEGMENT, since 4.18): they go
through its network stack as one.

Linux on 64 bits only, for the layout of its structures; elsewhere, and with the JIT disabled,
:class:`Burst` cannot be built and ``MediaTransport`` sends packet by packet.
"""

from __future__ import annotations

import ctypes
import functools
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from calliope.jit import kernel

Bytes: TypeAlias = npt.NDArray[np.uint8]
Longs: TypeAlias = npt.NDArray[np.int64]

BURST_PACKETS = 16
"""Packets that go out in one call."""
PACKET_BYTES = 1500
TRAILER_BYTES = 16
"""What encryption adds at most (RFC 7714 section 14.1: a 16-byte tag)."""

_SOL_UDP, _UDP_SEGMENT = 17, 103  # of Linux

_I8P, _I32, _I64 = ir.IntType(8).as_pointer(), ir.IntType(32), ir.IntType(64)


def _protect_instruction(
    _typing: Any, _function: Any, _session: Any, _data: Any, _size: Any
) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        form = ir.FunctionType(_I32, [_I8P, _I8P, _I8P])
        called = builder.inttoptr(arguments[0], form.as_pointer())
        pointers = [builder.inttoptr(argument, _I8P) for argument in arguments[1:]]
        return builder.sext(builder.call(called, pointers), _I64)

    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


def _sendmmsg_instruction(_typing: Any, _function: Any, _file: Any, _all: Any, _count: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        form = ir.FunctionType(_I32, [_I32, _I8P, _I32, _I32])
        called = builder.inttoptr(arguments[0], form.as_pointer())
        values = [
            builder.trunc(arguments[1], _I32),
            builder.inttoptr(arguments[2], _I8P),
            builder.trunc(arguments[3], _I32),
            ir.Constant(_I32, 0),
        ]
        return builder.sext(builder.call(called, values), _I64)

    return types.int64(types.int64, types.int64, types.int64, types.int64), generate


def _sendto_instruction(
    _typing: Any, _function: Any, _file: Any, _data: Any, _size: Any, _to: Any, _to_size: Any
) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        form = ir.FunctionType(_I64, [_I32, _I8P, _I64, _I32, _I8P, _I32])
        called = builder.inttoptr(arguments[0], form.as_pointer())
        values = [
            builder.trunc(arguments[1], _I32),
            builder.inttoptr(arguments[2], _I8P),
            arguments[3],
            ir.Constant(_I32, 0),
            builder.inttoptr(arguments[4], _I8P),
            builder.trunc(arguments[5], _I32),
        ]
        return builder.call(called, values)

    return types.int64(*[types.int64] * 6), generate


_protect = cast(Callable[[int, int, int, int], int], intrinsic(_protect_instruction))
_sendmmsg = cast(Callable[[int, int, int, int], int], intrinsic(_sendmmsg_instruction))
_sendto = cast(Callable[[int, int, int, int, int, int], int], intrinsic(_sendto_instruction))

_READ_ONLY = types.Array(types.uint8, 1, "C", readonly=True)


@kernel
def _fill_messages(
    messages: Longs, vectors: Longs, control: Longs, counts: Longs, packets_at: int, sizes: Longs,
    count: int, address: Bytes, together: int,
) -> int:  # fmt: skip
    """Describe ``count`` packets, which lie one behind the other, to ``sendmmsg``.

    Returns how many messages they are; ``counts`` is how many packets each holds.
    """
    made = index = offset = 0
    while index < count:
        first, begin, size = index, offset, sizes[index]
        offset += size
        index += 1
        while together and index < count and sizes[index] <= size and sizes[index - 1] == size:
            offset += sizes[index]
            index += 1
        vectors[made, 0] = packets_at + begin
        vectors[made, 1] = offset - begin
        messages[made, :] = 0
        messages[made, 0] = address.ctypes.data
        messages[made, 1] = address.size
        messages[made, 2] = vectors.ctypes.data + made * 16
        messages[made, 3] = 1
        if index - first > 1:
            # struct cmsghdr: size, level and type in one word, then the size of a segment.
            control[made, 0] = 18
            control[made, 1] = _SOL_UDP | _UDP_SEGMENT << 32
            control[made, 2] = size
            messages[made, 4] = control.ctypes.data + made * 24
            messages[made, 5] = 24
        counts[made] = index - first
        made += 1
    return made


@kernel(
    signature=types.int64(
        types.int64, types.int64, types.int64, types.int64, _READ_ONLY, types.uint8[::1],
        types.int64, types.int64, _READ_ONLY, types.int64[::1], types.int64, types.int64,
        types.int64, types.int64,
    ),
    nogil=False,
)  # fmt: skip
def _send_packets(
    protect: int, session: int, sendmmsg: int, descriptor: int, address: Bytes, header: Bytes,
    start: int, sequence: int, data: Bytes, ends: Longs, begin: int, end: int, marked: int,
    together: int,
) -> int:  # fmt: skip
    """Send payloads ``begin`` to ``end`` (see :meth:`Burst.send`); returns how many went.

    With ``together`` neighbours are one message. Where the network takes none of that, they are
    sent one by one, and the result is -1 - how many went.

    The memory is taken anew each time, so that all viewers use the same, which is in the cache.
    """
    packet = np.empty(PACKET_BYTES, np.uint8)  # libsrtp wants it aligned
    packets = np.empty(BURST_PACKETS * PACKET_BYTES, np.uint8)
    sizes = np.empty(BURST_PACKETS, np.int64)
    counts = np.empty(BURST_PACKETS, np.int64)
    vectors = np.empty((BURST_PACKETS, 2), np.int64)  # struct iovec: base, length
    # struct mmsghdr: name and its size, iovec and how many, control and its size, flags, sent.
    messages = np.empty((BURST_PACKETS, 8), np.int64)
    control = np.empty((BURST_PACKETS, 3), np.int64)
    length = np.zeros(1, np.int64)  # an int for libsrtp, in the low half
    packet_at, length_at = packet.ctypes.data, length.ctypes.data
    count = offset = 0
    for index in range(begin, end):
        packet[:start] = header[:start]
        if index == marked:
            packet[1] |= 0x80
        number = sequence + index - begin
        packet[2] = (number >> 8) & 0xFF
        packet[3] = number & 0xFF
        first = ends[index - 1] if index > 0 else 0
        length[0] = start + ends[index] - first
        packet[start : length[0]] = data[first : ends[index]]
        if _protect(protect, session, packet_at, length_at) == 0:
            size = length[0] & 0xFFFF
            packets[offset : offset + size] = packet[:size]
            sizes[count] = size
            offset += size
            count += 1
    if count == 0:
        return 0
    refused = False
    while True:
        made = _fill_messages(
            messages, vectors, control, counts, packets.ctypes.data, sizes, count, address, together
        )
        taken = _sendmmsg(sendmmsg, descriptor, messages.ctypes.data, made)
        if taken >= 0 or made == count:
            break
        refused, together = True, 0
    sent = 0
    for message in range(taken):
        sent += counts[message]
    return -1 - sent if refused and sent else sent


@kernel(
    signature=types.int64(*[types.int64] * 5, types.int64[::1], types.int64, types.int64),
    nogil=False,
)
def _send_packet(
    protect: int, session: int, sendto: int, descriptor: int, packet_at: int, length: Longs,
    address_at: int, address_size: int,
) -> int:  # fmt: skip
    """Send the packet at ``packet_at``, of ``length`` bytes; 1 if it went, else 0.

    All but one of the arguments are numbers: an array costs ten times as much to hand over.
    """
    if _protect(protect, session, packet_at, length.ctypes.data) != 0:
        return 0
    size = length[0] & 0xFFFF
    return int(_sendto(sendto, descriptor, packet_at, size, address_at, address_size) == size)


@functools.lru_cache(maxsize=32)
def _flatten(payloads: tuple[bytes, ...]) -> tuple[Bytes, Longs, int]:
    """All payloads in a row, where each ends, and the longest: the same for all viewers."""
    sizes = [len(payload) for payload in payloads]
    data = np.frombuffer(b"".join(payloads) or b"\0", np.uint8)
    return data, np.cumsum(sizes, dtype=np.int64), max(sizes, default=0)


class Burst:
    """Sends through one SRTP session.

    ``protect`` is the address of libsrtp's ``srtp_protect`` and ``session`` that of its session,
    which must live as long as this is used.
    """

    def __init__(self, protect: int, session: int) -> None:
        """OSError where this machine has no ``sendmmsg`` as we know it."""
        self._sendmmsg = _libc_address("sendmmsg")
        self._sendto = _libc_address("sendto")
        self._protect = protect
        self._session = session
        self._together = 1
        self._target: tuple[str, int] | None = None
        self._address: Bytes = np.zeros(0, np.uint8)
        self._address_at = self._address_size = 0
        self._header = np.zeros(64, np.uint8)
        self._header_view = self._header.data
        self._packet = np.zeros(PACKET_BYTES + 4, np.uint8)
        self._packet_view = self._packet.data
        self._packet_at = self._packet.ctypes.data
        self._length = np.zeros(1, np.int64)
        self._length_view = self._length.data

    def send(
        self,
        sock: socket.socket,
        address: tuple[str, int],
        header: bytes,
        sequence: int,
        payloads: tuple[bytes, ...],
        ends_frame: bool,
    ) -> int:
        """Encrypt and send one packet for each payload; returns how many went.

        ``header`` has at most 64 bytes. ValueError for a payload that does not fit.
        """
        if address != self._target:
            self._address = np.frombuffer(_sockaddr(address), np.uint8)
            self._address_at, self._address_size = self._address.ctypes.data, self._address.size
            self._target = address
        if len(payloads) == 1:
            return self._send_one(sock, header, sequence, payloads[0], ends_frame)
        data, ends, longest = _flatten(payloads)
        if longest + len(header) + TRAILER_BYTES > PACKET_BYTES:
            raise ValueError("a payload that does not fit into a packet")
        start = len(header)
        self._header_view[:start] = header
        whole = len(payloads)
        marked = whole - 1 if ends_frame else -1
        sent = begin = 0
        while begin < whole:
            end = min(whole, begin + BURST_PACKETS)
            went = _send_packets(
                self._protect, self._session, self._sendmmsg, sock.fileno(), self._address,
                self._header, start, sequence + begin, data, ends, begin, end, marked,
                self._together,
            )  # fmt: skip
            if went < 0:  # a kernel or a network card that cuts nothing up
                self._together, went = 0, -1 - went
            sent += went
            begin = end
        return sent

    def _send_one(
        self, sock: socket.socket, header: bytes, sequence: int, payload: bytes, marked: bool
    ) -> int:
        """The same for a single packet, as all sound is: 20 us with its header, not 60."""
        start = len(header)
        size = start + len(payload)
        if size + TRAILER_BYTES > PACKET_BYTES:
            raise ValueError("a payload that does not fit into a packet")
        packet = self._packet_view
        packet[:start] = header
        packet[start:size] = payload
        packet[2], packet[3] = sequence >> 8 & 0xFF, sequence & 0xFF
        if marked:
            packet[1] |= 0x80
        self._length_view[0] = size
        return _send_packet(
            self._protect, self._session, self._sendto, sock.fileno(), self._packet_at,
            self._length, self._address_at, self._address_size,
        )  # fmt: skip


def _sockaddr(address: tuple[str, int]) -> bytes:
    """``struct sockaddr_in`` or ``sockaddr_in6`` of Linux."""
    host, port = ipaddress.ip_address(address[0]), address[1].to_bytes(2, "big")
    if host.version == 4:
        return socket.AF_INET.to_bytes(2, sys.byteorder) + port + host.packed + bytes(8)
    return socket.AF_INET6.to_bytes(2, sys.byteorder) + port + bytes(4) + host.packed + bytes(4)


def _libc_address(name: str) -> int:
    """Where a function of the C library lies; OSError where bursts cannot be used."""
    if sys.platform != "linux" or sys.maxsize < 1 << 62 or sys.byteorder != "little":
        raise OSError("bursts are for 64-bit, little-endian Linux")
    if vars(numba.config).get("DISABLE_JIT"):
        raise OSError("bursts need the JIT")
    try:
        function = getattr(ctypes.CDLL(None), name)
    except AttributeError as error:
        raise OSError(f"no {name}") from error
    return cast(int, ctypes.cast(function, ctypes.c_void_p).value)
