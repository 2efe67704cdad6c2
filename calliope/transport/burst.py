"""Encrypting and sending the packets of one frame, to one viewer or to many, in one native call.

In Python a packet costs two calls into C, a system call, and the GIL let go and taken back, for
which the event loop may have to wait behind a decoder thread. Here one kernel writes headers,
encrypts (libsrtp's own function, called by address) and hands all packets of a viewer to the kernel
in one ``sendmmsg``, then those of the next. Neighbours of one size, and a smaller one behind them,
are one message that Linux cuts up (UDP_SEGMENT, since 4.18): they go through its network stack as
one.

Linux on 64 bits only, for the layout of its structures; elsewhere, and with the JIT disabled,
:class:`Burst` cannot be built and ``MediaTransport`` sends packet by packet.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import ipaddress
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from calliope.jit import kernel
from calliope.simd import (
    byte_at,
    copy_bytes,
    number_at,
    numbers_in,
    put_byte,
    start_of,
)

Bytes: TypeAlias = npt.NDArray[np.uint8]
Longs: TypeAlias = npt.NDArray[np.int64]

BURST_PACKETS = 16
"""Packets that go out in one call."""
PACKET_BYTES = 1500
SPACING = 1536
"""From one packet to the next while they are encrypted: libsrtp wants them aligned."""
HEADER_BYTES = 64
"""The longest RTP header, with its extensions."""
TRAILER_BYTES = 16
"""What encryption adds at most (RFC 7714 section 14.1: a 16-byte tag)."""

_TEMPLATE_AT = 24
"""Where the header begins in a template's memory: behind three numbers."""

_SOL_UDP, _UDP_SEGMENT = 17, 103  # of Linux
_EAGAIN, _ENOBUFS = errno.EAGAIN, errno.ENOBUFS

_pointer: Any = types.CPointer
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


def _errno_instruction(_typing: Any, _location: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        form = ir.FunctionType(_I32.as_pointer(), [])
        called = builder.inttoptr(arguments[0], form.as_pointer())
        return builder.sext(builder.load(builder.call(called, [])), _I64)

    return types.int64(types.int64), generate


def _memory_instruction(_typing: Any, _address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], _I8P)

    return _pointer(types.uint8)(types.int64), generate


def _put_number_instruction(_typing: Any, _address: Any, _index: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        numbers = builder.inttoptr(arguments[0], _I64.as_pointer())
        builder.store(arguments[2], builder.gep(numbers, [arguments[1]]))
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64, types.int64), generate


_protect = cast(Callable[[int, int, int, int], int], intrinsic(_protect_instruction))
_sendmmsg = cast(Callable[[int, int, int, int], int], intrinsic(_sendmmsg_instruction))
_sendto = cast(Callable[[int, int, int, int, int, int], int], intrinsic(_sendto_instruction))
_errno = cast(Callable[[int], int], intrinsic(_errno_instruction))
_memory_at = cast(Callable[[int], Bytes], intrinsic(_memory_instruction))
_put_number = cast(Callable[[int, int, int], int], intrinsic(_put_number_instruction))

_READ_ONLY = types.Array(types.uint8, 1, "C", readonly=True)


@kernel
def _fill_messages(
    messages: Longs, vectors: Longs, control: Longs, counts: Longs, packets_at: int, sizes: Longs,
    count: int, address_at: int, address_size: int, together: int,
) -> int:  # fmt: skip
    """Describe ``count`` packets, which lie ``SPACING`` apart, to ``sendmmsg``.

    Returns how many messages they are; ``counts`` is how many packets each holds.
    """
    made = index = 0
    while index < count:
        first, size = index, sizes[index]
        vectors[index, 0] = packets_at + index * SPACING
        vectors[index, 1] = size
        index += 1
        while together and index < count and sizes[index] <= size and sizes[index - 1] == size:
            vectors[index, 0] = packets_at + index * SPACING
            vectors[index, 1] = sizes[index]
            index += 1
        messages[made, :] = 0
        messages[made, 0] = address_at
        messages[made, 1] = address_size
        messages[made, 2] = vectors.ctypes.data + first * 16
        messages[made, 3] = index - first
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


@kernel
def _write_header(
    template: Bytes, start: int, time_at: int, send_time: int, sequence: int, timestamp: int,
    marked: int, packets: Bytes, at: int,
) -> None:  # fmt: skip
    """The header of one packet (RFC 3550 section 5.1) and its extensions."""
    copy_bytes(template, _TEMPLATE_AT, packets, at, start)
    if marked:
        put_byte(packets, at + 1, byte_at(packets, at + 1) | 0x80)
    put_byte(packets, at + 2, sequence >> 8)
    put_byte(packets, at + 3, sequence)
    for index in range(4):
        put_byte(packets, at + 4 + index, timestamp >> (24 - 8 * index))
    if time_at:
        for index in range(3):
            put_byte(packets, at + time_at + index, send_time >> (16 - 8 * index))


@kernel(
    signature=types.int64(
        types.int64, types.int64, types.int64, types.Array(types.int64, 2, "C"), types.int64,
        _READ_ONLY, types.int64[::1], types.int64, types.int64, types.int64,
    ),
)  # fmt: skip
def _send_packets(
    protect: int, sendmmsg: int, errno_location: int, entries: Longs, now_ns: int, data: Bytes,
    ends: Longs, begin: int, end: int, marked: int,
) -> int:  # fmt: skip
    """Send payloads ``begin`` to ``end``, at most ``BURST_PACKETS``, by every entry.

    An entry is where a :class:`Burst` and a :class:`Template` have their memory, the first
    sequence number and the timestamp. Payload ``index`` of ``data`` ends at ``ends[index]``; the
    one of index ``marked`` gets the marker. Returns how many packets went.
    """
    packets = np.empty(BURST_PACKETS * SPACING, np.uint8)
    sizes = np.empty(BURST_PACKETS, np.int64)
    counts = np.empty(BURST_PACKETS, np.int64)
    vectors = np.empty((BURST_PACKETS, 2), np.int64)  # struct iovec: base, length
    # struct mmsghdr: name and its size, iovec and how many, control and its size, flags, sent.
    messages = np.empty((BURST_PACKETS, 8), np.int64)
    control = np.empty((BURST_PACKETS, 3), np.int64)
    length = np.zeros(1, np.int64)  # an int for libsrtp, in the low half
    all_sent = 0
    for entry in range(entries.shape[0]):
        # Taken in every turn: an array that is not named any more in what follows is freed.
        packets_at, length_at = packets.ctypes.data, length.ctypes.data
        out, payloads = start_of(packets), start_of(data)
        target = numbers_in(_memory_at(entries[entry, 0]), 0)
        template = _memory_at(entries[entry, 1])
        head = numbers_in(template, 0)
        session, descriptor = number_at(target, 0), number_at(target, 1)
        start, time_at = number_at(head, 0), number_at(head, 1)
        # Seconds and fraction, 6 and 18 bits (abs-send-time).
        unix_ns = now_ns + number_at(head, 2)
        send_time = (unix_ns // 1_000_000_000 << 18) + (
            (unix_ns % 1_000_000_000 << 18) // 1_000_000_000
        )
        count = 0
        for index in range(begin, end):
            at = count * SPACING
            first = ends[index - 1] if index > 0 else 0
            _write_header(
                template, start, time_at, send_time, entries[entry, 2] + index - begin,
                entries[entry, 3], index == marked, out, at,
            )  # fmt: skip
            copy_bytes(payloads, first, out, at + start, ends[index] - first)
            length[0] = start + ends[index] - first
            if _protect(protect, session, packets_at + at, length_at) == 0:
                sizes[count] = length[0] & 0xFFFF
                count += 1
        together = number_at(target, 4)
        while count:
            made = _fill_messages(
                messages, vectors, control, counts, packets_at, sizes, count,
                number_at(target, 2), number_at(target, 3), together,
            )  # fmt: skip
            taken = _sendmmsg(sendmmsg, descriptor, messages.ctypes.data, made)
            if taken < 0 and made < count:
                why = _errno(errno_location)
                if why not in (_EAGAIN, _ENOBUFS):  # a kernel or a card that cuts nothing up
                    together = 0
                    continue
            if taken > 0 and together != number_at(target, 4):
                _put_number(entries[entry, 0], 4, 0)
            for message in range(taken):
                all_sent += counts[message]
            break
    return all_sent


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


class Template:
    """What the headers of one RTP stream have in common, where the kernel finds it.

    ``header`` is an RTP header with its extensions; sequence number and timestamp are filled in
    for each packet, and at ``time_at``, if not 0, the time of sending (abs-send-time): the clock's
    plus ``unix_offset_ns``.
    """

    __slots__ = ("_memory", "_numbers", "_view", "at")

    def __init__(self, header: bytes = b"", time_at: int = 0, unix_offset_ns: int = 0) -> None:
        self._memory = np.zeros(_TEMPLATE_AT + HEADER_BYTES, np.uint8)
        self.at = self._memory.ctypes.data
        self._view = self._memory.data
        self._numbers = self._memory[:_TEMPLATE_AT].view(np.int64)
        self._numbers[1:] = time_at, unix_offset_ns
        self.write(header)

    def write(self, header: bytes) -> None:
        """Take another header; ValueError where it is too long."""
        if len(header) > HEADER_BYTES:
            raise ValueError(f"an RTP header of {len(header)} bytes")
        self._numbers[0] = len(header)
        self._view[_TEMPLATE_AT : _TEMPLATE_AT + len(header)] = header


class Burst:
    """Sends through one SRTP session, to one address at a time.

    ``protect`` is the address of libsrtp's ``srtp_protect`` and ``session`` that of its session,
    which ``owner`` keeps alive.
    """

    def __init__(self, protect: int, session: int, owner: object) -> None:
        """OSError where this machine has no ``sendmmsg`` as we know it."""
        self._sendmmsg = _libc_address("sendmmsg")
        self._sendto = _libc_address("sendto")
        self._errno_location = _libc_address("__errno_location")
        self._protect = protect
        self._session = session
        self._owner = owner
        self._target: tuple[str, int] | None = None
        self._descriptor = -1
        self._socket: socket.socket | None = None
        self._address: Bytes = np.zeros(0, np.uint8)
        self._address_at = self._address_size = 0
        # For the kernel: session, descriptor, address and its size, whether packets go together.
        self._state = np.array([session, -1, 0, 0, 1], np.int64)
        self.at = self._state.ctypes.data
        self._template = Template()
        self._packet = np.zeros(PACKET_BYTES + 4, np.uint8)
        self._packet_view = self._packet.data
        self._packet_at = self._packet.ctypes.data
        self._length = np.zeros(1, np.int64)
        self._length_view = self._length.data

    @property
    def is_open(self) -> bool:
        """Whether the socket it is aimed from is still the same."""
        return self._socket is not None and self._socket.fileno() == self._descriptor

    def aim(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Send from this socket to this address from now on."""
        if address != self._target:
            self._address = np.frombuffer(_sockaddr(address), np.uint8)
            self._address_at, self._address_size = self._address.ctypes.data, self._address.size
            self._state[2:4] = self._address_at, self._address_size
            self._target = address
        self._socket = sock
        descriptor = sock.fileno()
        if descriptor != self._descriptor:
            self._state[1] = self._descriptor = descriptor

    def send(
        self, header: bytes, sequence: int, payloads: tuple[bytes, ...], ends_frame: bool
    ) -> int:
        """Encrypt and send one packet for each payload; returns how many went.

        ``header`` has at most ``HEADER_BYTES``. ValueError for a payload that does not fit.
        """
        if len(payloads) == 1:
            return self._send_one(header, sequence, payloads[0], ends_frame)
        self._template.write(header)
        timestamp = int.from_bytes(header[4:8], "big")
        entries = [self.at, self._template.at, sequence, timestamp]
        return self.send_to_all(entries, len(header), payloads, ends_frame, 0)

    def send_to_all(
        self,
        entries: Sequence[int],
        longest_header: int,
        payloads: tuple[bytes, ...],
        ends_frame: bool,
        now_ns: int,
    ) -> int:
        """Send the same to many viewers; returns how many packets went in all.

        Of every viewer ``entries`` has the ``at`` of its :class:`Burst`, aimed, and of its
        :class:`Template`, its next sequence number and its timestamp, one behind the other. Both
        must live until this returns. Which burst is asked makes no difference.
        """
        data, ends, longest = _flatten(payloads)
        if longest + longest_header + TRAILER_BYTES > PACKET_BYTES:
            raise ValueError("a payload that does not fit into a packet")
        table = np.array(entries, np.int64).reshape(-1, 4)
        whole = len(payloads)
        sent = 0
        for begin in range(0, whole, BURST_PACKETS):
            end = min(whole, begin + BURST_PACKETS)
            sent += _send_packets(
                self._protect, self._sendmmsg, self._errno_location, table, now_ns, data, ends,
                begin, end, whole - 1 if ends_frame else -1,
            )  # fmt: skip
            table[:, 2] += end - begin
        return sent

    def _send_one(self, header: bytes, sequence: int, payload: bytes, marked: bool) -> int:
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
            self._protect, self._session, self._sendto, self._descriptor, self._packet_at,
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
