"""The frame ring: decoder thread to mixer thread, or process to process; no lock, no waiting.

One writer, one reader, a few slots, and one 64-bit word that says everything there is to agree
on::

    bits  0..7    latest   slot of the newest complete frame, counted from 1; 0: none yet
    bits  8..15   claimed  slot the reader holds; 0: none
    bit   16      taken    the newest frame has been claimed at least once
    bits 17..62   serial   how many frames were written

Why nothing is ever torn:

* The writer fills a slot that is neither latest nor claimed. Only the latest slot can become
  claimed, and only the writer makes a slot the latest. So the slot it is filling stays its own
  until it publishes it: one compare-and-swap that sets latest, clears taken and counts serial.
* The reader claims by one compare-and-swap that copies latest into claimed. It succeeds only if
  the word is still what the reader saw, so no publication comes between looking and claiming.
  The serial in the word makes each publication's word a new one (no ABA).
* Swaps release and loads acquire. The writer's bytes come before the publication that the
  reader sees, the reader's last look at a slot before the word by which the writer sees it let go.

Nobody waits. The writer's swap fails only if the reader has claimed or released since it looked,
the reader's only if a frame was published meanwhile; each frame can be claimed anew only once.
Newest wins: a frame nobody claimed before the next was published is counted as overwritten.

Three slots are in use at any time. The writer takes free ones in rotation, so a slot just let go is
the last to be overwritten.

Everything lives in one block of memory, without a Python object or an address in it::

    0      magic, max_pixels, slots
    64     the word
    128    overwritten (written by the writer only)
    192    per slot: width, height, serial, arrived_ns (64 bytes each)
    4096   the slots, whole pages each: y, u, v, rows without gaps, planes on 64-byte bounds

All header fields are int64 in native byte order. Pages never touched are never committed: a slot
is sized for ``max_pixels`` and costs what its largest frame so far needed.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from calliope.errors import MediaError
from calliope.jit import kernel
from calliope.media import Frame, Plane

MIN_SLOTS = 4
MAX_SLOTS = 32

_MAGIC = int.from_bytes(b"CALRING1", "little")
_PAGE = 4096
_LINE = 64  # one cache line: what writer and reader each touch alone stays apart
_WORD_AT = 64
_OVERWRITTEN_AT = 128
_SLOT_HEADERS_AT = 192
_SLOTS_AT = _PAGE
_WORD_INDEX, _OVERWRITTEN_INDEX = _WORD_AT // 8, _OVERWRITTEN_AT // 8  # as int64s

_LATEST = 0xFF
_CLAIMED_SHIFT = 8
_CLAIMED = 0xFF << _CLAIMED_SHIFT
_TAKEN = 1 << 16
_SERIAL_SHIFT = 17

# Atomic operations: plain numba has none. Addresses are int64 and 8-byte aligned.

_I8, _I64 = ir.IntType(8), ir.IntType(64)


def _load_acquire_instruction(_typing: Any, _address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "acquire", 8, typ=_I64)

    return types.int64(types.int64), generate


def _store_release_instruction(_typing: Any, _address: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        builder.store_atomic(arguments[1], pointer, "release", 8)

    return types.void(types.int64, types.int64), generate


def _compare_exchange_instruction(
    _typing: Any, _address: Any, _expected: Any, _desired: Any
) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], _I64.as_pointer())
        outcome = builder.cmpxchg(pointer, arguments[1], arguments[2], "acq_rel", "acquire")
        return builder.extract_value(outcome, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


def _copy_bytes_instruction(_typing: Any, _target: Any, _source: Any, _count: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        to, origin = (builder.inttoptr(a, _I8.as_pointer()) for a in arguments[:2])
        cast(Any, cgutils.raw_memcpy)(builder, to, origin, arguments[2], 1)

    return types.void(types.int64, types.int64, types.int64), generate


load_acquire = cast(Callable[[int], int], intrinsic(_load_acquire_instruction))
store_release = cast(Callable[[int, int], None], intrinsic(_store_release_instruction))
compare_exchange = cast(Callable[[int, int, int], bool], intrinsic(_compare_exchange_instruction))
copy_bytes = cast(Callable[[int, int, int], None], intrinsic(_copy_bytes_instruction))

# Kernels. ``base`` is the address of the ring's memory. All are compiled on import, for one
# signature each, so that no layout of planes a decoder may bring meets the compiler.

_ANY_PLANE = types.Array(types.uint8, 2, "A", readonly=True)


@kernel(signature=types.int64(types.int64, _ANY_PLANE))
def _copy_plane(target: int, plane: Plane) -> int:
    """Copy a plane's rows, without gaps, to ``target``; returns where the next plane goes."""
    height: int = plane.shape[0]
    width: int = plane.shape[1]
    row_step, pixel_step = plane.strides
    source: Any = np.int64(plane.ctypes.data)  # uint64 + int64 would be a float
    if pixel_step == 1 and row_step == width:
        copy_bytes(target, source, height * width)
    elif pixel_step == 1:
        for row in range(height):
            copy_bytes(target + row * width, source + row * row_step, width)
    else:
        for row in range(height):
            for column in range(width):
                pixel = source + row * row_step + column * pixel_step
                copy_bytes(target + row * width + column, pixel, 1)
    return target + (height * width + _LINE - 1) // _LINE * _LINE


@kernel(
    signature=types.int64(
        types.int64, types.int64, types.int64, _ANY_PLANE, _ANY_PLANE, _ANY_PLANE, types.int64
    )
)
def write_frame(
    base: int, slots: int, slot_bytes: int, y: Plane, u: Plane, v: Plane, arrived_ns: int
) -> int:
    """Copy one frame into a free slot and publish it; returns its serial. The writer's side."""
    word = load_acquire(base + _WORD_AT)
    claimed = (word & _CLAIMED) >> _CLAIMED_SHIFT
    slot = (word & _LATEST) % slots + 1
    if slot == claimed:
        slot = slot % slots + 1
    serial = (word >> _SERIAL_SHIFT) + 1
    header = base + _SLOT_HEADERS_AT + (slot - 1) * _LINE
    store_release(header, y.shape[1])
    store_release(header + 8, y.shape[0])
    store_release(header + 16, serial)
    store_release(header + 24, arrived_ns)
    target = base + _SLOTS_AT + (slot - 1) * slot_bytes
    target = _copy_plane(target, y)
    target = _copy_plane(target, u)
    _copy_plane(target, v)
    while True:
        published = (serial << _SERIAL_SHIFT) | (word & _CLAIMED) | slot
        if compare_exchange(base + _WORD_AT, word, published):
            break
        word = load_acquire(base + _WORD_AT)  # the reader has claimed or released meanwhile
    if word & _LATEST and not word & _TAKEN:
        store_release(base + _OVERWRITTEN_AT, load_acquire(base + _OVERWRITTEN_AT) + 1)
    return serial


@kernel(signature=types.int64(types.int64), nogil=False)
def claim_latest(base: int) -> int:
    """Make the latest slot the claimed one; returns the word as it stands then.

    The reader's side. It keeps the GIL: it takes nanoseconds, getting the GIL back may not.
    """
    while True:
        word = load_acquire(base + _WORD_AT)
        latest = word & _LATEST
        if latest == (word & _CLAIMED) >> _CLAIMED_SHIFT:
            return word
        claimed = (word & ~_CLAIMED) | _TAKEN | latest << _CLAIMED_SHIFT
        if compare_exchange(base + _WORD_AT, word, claimed):
            return claimed


@kernel(signature=types.void(types.int64), nogil=False)
def release_claim(base: int) -> None:
    """Let go of the claimed slot. The reader's side."""
    while True:
        word = load_acquire(base + _WORD_AT)
        if compare_exchange(base + _WORD_AT, word, word & ~_CLAIMED):
            return


class FrameRing:
    """The newest frame of one camera: one thread or process writes, one reads.

    ``max_pixels`` bounds width times height of a frame; ``slots`` is 4 to 32. Without ``buffer``
    the ring has private memory of its own. With one (``SharedMemory.buf`` of at least
    ``bytes_needed``, on a 64-byte bound) it is laid out anew there, and another process joins it
    by ``attach``. The buffer stays the caller's, who calls ``close`` before giving it up.
    """

    def __init__(self, max_pixels: int, slots: int = 4, buffer: memoryview | None = None) -> None:
        size = self.bytes_needed(max_pixels, slots)
        memory = np.frombuffer(_private_memory(size) if buffer is None else buffer, np.uint8)
        if memory.size < size:
            raise ValueError(f"a ring of {size} bytes in a buffer of {memory.size}")
        header = memory[:_SLOTS_AT].view(np.int64)
        header[:] = 0
        header[1], header[2] = max_pixels, slots
        header[0] = _MAGIC
        self._open(memory)

    @classmethod
    def attach(cls, buffer: memoryview) -> FrameRing:
        """Join the ring that was laid out in ``buffer``; ValueError if there is none."""
        memory = np.frombuffer(buffer, np.uint8)
        if memory.size < _SLOTS_AT:
            raise ValueError(f"no frame ring fits into {memory.size} bytes")
        magic, max_pixels, slots = memory[:24].view(np.int64).tolist()
        if magic != _MAGIC or memory.size < cls.bytes_needed(max_pixels, slots):
            raise ValueError("the buffer holds no frame ring of this version")
        ring = cls.__new__(cls)
        ring._open(memory)
        return ring

    @staticmethod
    def bytes_needed(max_pixels: int, slots: int = 4) -> int:
        """How large a buffer must be; ValueError for sizes no ring can have."""
        if max_pixels < 1 or not MIN_SLOTS <= slots <= MAX_SLOTS:
            raise ValueError(f"no ring has {slots} slots of {max_pixels} pixels")
        return _SLOTS_AT + slots * _slot_bytes(max_pixels)

    def _open(self, memory: Plane) -> None:
        self._memory = memory
        self._base = int(memory.ctypes.data)
        if self._base % _LINE:
            raise ValueError(f"a ring's buffer must begin on a {_LINE}-byte bound")
        self._words = memory.data[:_SLOTS_AT].cast("q")
        self._max_pixels, self._slots = self._words[1], self._words[2]
        self._slot_bytes = _slot_bytes(self._max_pixels)
        self._views: list[tuple[Plane, Plane, Plane] | None] = [None] * self._slots
        self._seen = -1  # the word as the last claim left it
        self._frame: Frame | None = None

    def write(self, y: Plane, u: Plane, v: Plane, arrived_ns: int) -> None:
        """Copy one I420 frame in and publish it as the newest; never waits.

        Planes as in :mod:`calliope.media`, of any strides, read-only or not; they are the
        caller's again on return. The copy runs without the GIL. MediaError if the frame is empty
        or has more than ``max_pixels``, or if its planes do not belong together.
        """
        if not self._base:
            raise ValueError("write to a closed ring")
        height, width = y.shape
        if not 0 < width * height <= self._max_pixels:
            raise MediaError(f"a frame of {width}x{height}: allowed are {self._max_pixels} pixels")
        chroma = ((height + 1) >> 1, (width + 1) >> 1)
        if u.shape != chroma or v.shape != chroma:
            raise MediaError(f"chroma planes of {u.shape} and {v.shape} for {width}x{height}")
        write_frame(self._base, self._slots, self._slot_bytes, y, u, v, arrived_ns)

    def latest(self) -> Frame | None:
        """The newest complete frame, or None before the first: see ``media.FrameSource``.

        Its planes are C-contiguous views into the slot, which is claimed until the next call.
        """
        # Only a hint, so a plain read will do: an old word gives the frame it gave before.
        if self._words[_WORD_INDEX] == self._seen:
            return self._frame
        word = self._seen = claim_latest(self._base)
        if word & _LATEST:
            slot = (word & _LATEST) - 1
            at = (_SLOT_HEADERS_AT + slot * _LINE) // 8
            y, u, v = self._planes(slot, self._words[at], self._words[at + 1])
            self._frame = Frame(y, u, v, self._words[at + 2], self._words[at + 3])
        return self._frame

    def _planes(self, slot: int, width: int, height: int) -> tuple[Plane, Plane, Plane]:
        planes = self._views[slot]
        if planes is None or planes[0].shape != (height, width):
            at = _SLOTS_AT + slot * self._slot_bytes
            chroma = ((height + 1) >> 1, (width + 1) >> 1)
            u_at = at + _whole(height * width, _LINE)
            v_at = u_at + _whole(chroma[0] * chroma[1], _LINE)
            planes = (
                np.ndarray((height, width), np.uint8, self._memory, at),
                np.ndarray(chroma, np.uint8, self._memory, u_at),
                np.ndarray(chroma, np.uint8, self._memory, v_at),
            )
            self._views[slot] = planes
        return planes

    def release(self) -> None:
        """Let go of the frame last handed out: it is not valid any more. The reader's to call."""
        self._frame = None
        self._seen = -1
        if self._base:
            release_claim(self._base)

    def close(self) -> None:
        """Let go of the memory, so that a shared block can be closed once no frame is held.

        Neither end may be in use any more. The other process's end is not touched.
        """
        self.release()
        self._base = 0
        self._words.release()
        self._views = []
        self._memory = np.empty(0, np.uint8)

    @property
    def written(self) -> int:
        """Frames published since the ring was laid out."""
        return self._words[_WORD_INDEX] >> _SERIAL_SHIFT

    @property
    def overwritten(self) -> int:
        """Frames that were replaced by a newer one before the reader had claimed them."""
        return self._words[_OVERWRITTEN_INDEX]


def _slot_bytes(max_pixels: int) -> int:
    chroma = (max_pixels + 1) // 2  # the most a plane can have: a picture one pixel wide
    return _whole(_whole(max_pixels, _LINE) + 2 * _whole(chroma, _LINE), _PAGE)


def _whole(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _private_memory(size: int) -> memoryview:
    """Zeroed memory whose pages are committed one by one as they are first written."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A huge page would commit 2 MiB for a slot that holds a thumbnail.
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memoryview(memory)
