"""The two ends of a frame ring, as fast as they go: what tests/test_ring.py hunts torn frames with.

Every frame's size and every byte of it follow from its serial, so one look at a slot tells
whether it holds one whole frame. Writer and reader give their core away at random moments: on a
single busy core, too, each then meets the other in the middle of its work.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numba
import numpy as np
from numba import types

from calliope.jit import kernel
from calliope.media import Plane
from calliope.ring import FrameRing, load_acquire, store_release, write_frame

MAX_PIXELS = 24 * 16
IDLE_TURNS = 20_000_000  # a writer that dies ends the test, it does not hang it

_WORD_AT, _SLOT_HEADERS_AT, _SLOTS_AT, _LINE = 64, 192, 4096, 64
_yield_core: Any = types.ExternalFunction("sched_yield", types.int32())


@kernel
def shape(serial: int) -> tuple[int, int]:
    """Height and width of frame ``serial``."""
    return 1 + serial * 5 % 16, 1 + serial * 7 % 24


@kernel
def plane_value(serial: int, plane: int) -> int:
    """What every byte of plane 0, 1 or 2 of frame ``serial`` is."""
    return (serial * (2 * plane + 1) + (serial >> 8)) & 0xFF


@kernel
def _random(state: int) -> int:
    """The next of a simple sequence (Marsaglia's xorshift, 32 bits)."""
    state ^= (state << 13) & 0xFFFFFFFF
    state ^= state >> 17
    return state ^ (state << 5) & 0xFFFFFFFF


@kernel
def write_frames(
    base: int, slots: int, slot_bytes: int, stop: int, y: Plane, u: Plane, v: Plane
) -> int:
    """Write until the word at ``stop`` is set; returns how many. The planes are scratch."""
    state = 2463534242
    serial = load_acquire(base + _WORD_AT) >> 17
    while not load_acquire(stop):
        serial += 1
        height, width = shape(serial)
        y_part = y[:height, :width]
        u_part = u[: (height + 1) // 2, : (width + 1) // 2]
        v_part = v[: (height + 1) // 2, : (width + 1) // 2]
        y_part[:] = plane_value(serial, 0)
        u_part[:] = plane_value(serial, 1)
        v_part[:] = plane_value(serial, 2)
        write_frame(base, slots, slot_bytes, y_part, u_part, v_part, serial * 1000)
        state = _random(state)
        if state & 7 == 0:
            _yield_core()
    return serial


@kernel
def _holds_one_frame(base: int, slot_bytes: int, slot: int, serial: int, memory: Plane) -> bool:
    """Whether slot ``slot`` (from 0) of ``memory`` is frame ``serial`` in every byte."""
    header = base + _SLOT_HEADERS_AT + slot * _LINE
    height, width = shape(serial)
    if load_acquire(header) != width or load_acquire(header + 8) != height:
        return False
    if load_acquire(header + 16) != serial or load_acquire(header + 24) != serial * 1000:
        return False
    at = _SLOTS_AT + slot * slot_bytes
    size = width * height
    difference = 0
    for plane in range(3):
        value = plane_value(serial, plane)
        for i in range(at, at + size):
            difference |= memory[i] ^ value
        at += (size + _LINE - 1) // _LINE * _LINE
        size = ((width + 1) // 2) * ((height + 1) // 2)
    return difference == 0


def make_reader(claim: Callable[[int], int]) -> Callable[[int, int, Plane, int], tuple[int, int]]:
    """A reader that takes frames by ``claim``: ``read(base, slot_bytes, memory, wanted)``.

    It looks at every new frame twice, holding it for a random while in between, until it has
    seen ``wanted`` of them or a torn one; it returns how many it saw and how many were torn.
    """

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator, unused-ignore]
    def read(base: int, slot_bytes: int, memory: Plane, wanted: int) -> tuple[int, int]:
        state = 88675123
        seen = torn = polls = idle = last = 0
        while seen < wanted and not torn and idle < IDLE_TURNS:
            word = claim(base)
            serial = word >> 17
            if serial == last:
                polls += 1
                if polls & 63 == 0:
                    idle += 1
                    _yield_core()
                continue
            last = serial
            idle = 0
            seen += 1
            slot = (word & 0xFF) - 1
            whole = _holds_one_frame(base, slot_bytes, slot, serial, memory)
            state = _random(state)
            if state & 63 == 0:
                _yield_core()
            for _ in range(state >> 8 & 31):
                load_acquire(base + _WORD_AT)
            if not whole or not _holds_one_frame(base, slot_bytes, slot, serial, memory):
                torn += 1
        return seen, torn

    return read  # type: ignore[no-any-return, unused-ignore]


def scratch() -> tuple[Plane, Plane, Plane]:
    """Planes for ``write_frames``."""
    return (
        np.zeros((16, 24), np.uint8),
        np.zeros((8, 12), np.uint8),
        np.zeros((8, 12), np.uint8),
    )


def buffer_of(block: SharedMemory) -> memoryview:
    """The bytes of an open block."""
    assert block.buf is not None
    return block.buf


def write_into_shared_memory(name: str) -> None:
    """A whole process: writes into the ring in the named block until its last word is set."""
    shared = SharedMemory(name)
    ring = FrameRing.attach(buffer_of(shared))
    write_until_stopped(ring)
    ring.close()
    shared.close()


def write_until_stopped(ring: FrameRing) -> None:
    """Write frames until the word after the ring is set."""
    write_frames(ring._base, ring._slots, ring._slot_bytes, stop_address(ring), *scratch())


def stop_address(ring: FrameRing) -> int:
    """Where the test says that it has seen enough: the word after the ring."""
    return ring._base + FrameRing.bytes_needed(ring._max_pixels, ring._slots)


@kernel
def stop(address: int) -> None:
    """Set the word that ends ``write_frames``."""
    store_release(address, 1)
