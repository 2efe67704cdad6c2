"""The frame ring: what its reader sees, what its writer leaves alone, and a million frames."""

from __future__ import annotations

import ctypes
import mmap
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any, TypeAlias, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope import ring as ring_module
from calliope.errors import MediaError
from calliope.jit import kernel
from calliope.media import Frame, FrameSource, Plane
from calliope.ring import FrameRing, claim_latest, load_acquire
from tests import ring_stress

MILLION = 1_000_000
Planes: TypeAlias = tuple[Plane, Plane, Plane]


def picture(width: int, height: int, seed: int = 0) -> Planes:
    """Random planes of one picture."""
    random = np.random.default_rng(seed)
    chroma = ((height + 1) // 2, (width + 1) // 2)
    return (
        random.integers(0, 256, (height, width), np.uint8),
        random.integers(0, 256, chroma, np.uint8),
        random.integers(0, 256, chroma, np.uint8),
    )


def shows(frame: Frame | None, planes: Planes) -> bool:
    """Whether the frame is that picture, to the byte."""
    return frame is not None and all(
        np.array_equal(seen, sent)
        for seen, sent in zip((frame.y, frame.u, frame.v), planes, strict=True)
    )


@kernel
def look_without_claiming(base: int) -> int:
    """The claim taken out: names the latest slot as the claim does, but leaves it the writer's."""
    return load_acquire(base + 64)


@contextmanager
def shared_block(size: int) -> Iterator[SharedMemory]:
    block = SharedMemory(create=True, size=size)
    try:
        yield block
    finally:
        block.close()
        block.unlink()


# What the reader sees


def test_there_is_no_frame_before_the_first() -> None:
    source: FrameSource = FrameRing(100)
    assert source.latest() is None
    assert source.latest() is None


def test_a_frame_arrives_whole_with_its_time_and_number() -> None:
    ring = FrameRing(64 * 48)
    ring.write(*picture(64, 48), arrived_ns=1_234_567_890_123)
    frame = ring.latest()
    assert shows(frame, picture(64, 48))
    assert frame is not None
    assert (frame.serial, frame.arrived_ns, frame.width, frame.height) == (
        1,
        1_234_567_890_123,
        64,
        48,
    )


def test_the_newest_wins_and_what_nobody_saw_is_counted() -> None:
    ring = FrameRing(64 * 48)
    for seed in range(5):
        ring.write(*picture(64, 48, seed), arrived_ns=seed)
    frame = ring.latest()
    assert shows(frame, picture(64, 48, 4))
    assert frame is not None
    assert frame.serial == 5
    ring.write(*picture(64, 48, 5), arrived_ns=5)
    assert (ring.written, ring.overwritten) == (6, 4)


def test_without_anything_newer_the_same_frame_comes_again() -> None:
    ring = FrameRing(64 * 48)
    ring.write(*picture(64, 48), arrived_ns=0)
    frame = ring.latest()
    assert frame is not None
    assert ring.latest() is frame


def overwrites_a_held_frame(ring: FrameRing) -> bool:
    """Whether anything of a frame in hand changes while a hundred others are written."""
    ring.write(*picture(32, 16), arrived_ns=0)
    held = ring.latest()
    for seed in range(1, 101):
        ring.write(*picture(32, 16, seed), arrived_ns=seed)
    return not shows(held, picture(32, 16))


@pytest.mark.parametrize("slots", [4, 5, 32])
def test_the_writer_never_touches_the_frame_in_the_readers_hand(slots: int) -> None:
    assert not overwrites_a_held_frame(FrameRing(32 * 16, slots))


def test_a_ring_without_its_claim_overwrites_the_frame_in_hand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ring_module, "claim_latest", look_without_claiming)
    assert overwrites_a_held_frame(FrameRing(32 * 16))


def test_every_frame_may_have_another_size() -> None:
    ring = FrameRing(641 * 359)
    for seed, (width, height) in enumerate(
        [(640, 358), (641, 359), (1, 1), (359, 641), (2, 3), (1, 641 * 359), (641 * 359, 1)]
    ):
        ring.write(*picture(width, height, seed), arrived_ns=0)
        assert shows(ring.latest(), picture(width, height, seed)), (width, height)


def test_a_released_frame_comes_again_until_a_newer_one_does() -> None:
    ring = FrameRing(64 * 48)
    ring.write(*picture(64, 48), arrived_ns=0)
    ring.latest()
    ring.release()
    again = ring.latest()
    assert shows(again, picture(64, 48))
    ring.release()
    ring.write(*picture(64, 48, 1), arrived_ns=0)
    assert ring.overwritten == 0  # it had been seen
    assert shows(ring.latest(), picture(64, 48, 1))


Step: TypeAlias = tuple[int, int] | str


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.integers(1, 12)) | st.sampled_from(["latest", "release"]),
        max_size=40,
    ),
    st.integers(4, 6),
)
def test_the_ring_behaves_like_one_variable(steps: list[Step], slots: int) -> None:
    """Against a model: the newest picture, whatever the reader holds unchanged, both counters."""
    ring = FrameRing(20 * 12, slots)
    newest: Planes | None = None
    held: Planes | None = None
    frame: Frame | None = None
    seen, written, overwritten = True, 0, 0
    for step in steps:
        if step == "latest":
            frame, held, seen = ring.latest(), newest, True
            assert (frame is None) == (newest is None)
            assert frame is None or frame.serial == written
        elif step == "release":
            ring.release()
            held = None
        else:
            width, height = cast(tuple[int, int], step)
            newest = picture(width, height, written)
            ring.write(*newest, arrived_ns=written)
            overwritten += not seen
            written += 1
            seen = False
        assert held is None or shows(frame, held)
        assert (ring.written, ring.overwritten) == (written, overwritten)


# What a writer may bring


def spread(planes: Planes, make: Callable[[Plane], Plane]) -> Planes:
    return make(planes[0]), make(planes[1]), make(planes[2])


def padded(plane: Plane) -> Plane:
    """As decoders give them: rows with a gap behind."""
    wide = np.full((plane.shape[0], plane.shape[1] + 29), 77, np.uint8)
    wide[:, : plane.shape[1]] = plane
    return wide[:, : plane.shape[1]]


def upside_down(plane: Plane) -> Plane:
    """Rows stored last first: a negative stride."""
    return np.ascontiguousarray(plane[::-1])[::-1]


def interleaved(plane: Plane) -> Plane:
    """As in NV12: every other byte is somebody else's."""
    both = np.full((plane.shape[0], plane.shape[1] * 2), 77, np.uint8)
    both[:, ::2] = plane
    return both[:, ::2]


def transposed(plane: Plane) -> Plane:
    return np.asfortranarray(plane)


def read_only(plane: Plane) -> Plane:
    return np.frombuffer(plane.tobytes(), np.uint8).reshape(plane.shape)


@pytest.mark.parametrize("make", [padded, upside_down, interleaved, transposed, read_only])
def test_any_strides_come_in(make: Callable[[Plane], Plane]) -> None:
    ring = FrameRing(33 * 17)
    ring.write(*spread(picture(33, 17), make), arrived_ns=0)
    assert shows(ring.latest(), picture(33, 17))


def test_no_layout_of_planes_meets_the_compiler() -> None:
    writer: Any = ring_module.write_frame
    compiled = len(writer.signatures)
    ring = FrameRing(33 * 17)
    ring.write(picture(33, 17)[0], *spread(picture(33, 17), padded)[1:], arrived_ns=0)
    ring.write(padded(picture(33, 17)[0]), *spread(picture(33, 17), read_only)[1:], arrived_ns=0)
    assert compiled == len(writer.signatures) == 1


@pytest.mark.parametrize(
    "planes",
    [
        picture(101, 100),
        picture(10_001, 1),
        (np.empty((0, 8), np.uint8), np.empty((0, 4), np.uint8), np.empty((0, 4), np.uint8)),
        (picture(8, 8)[0], picture(8, 8)[1], picture(8, 6)[2]),
        (picture(9, 8)[0], picture(8, 8)[1], picture(8, 8)[2]),
        (picture(8, 8)[0], picture(8, 8)[0], picture(8, 8)[0]),
    ],
    ids=["too large", "too wide", "empty", "v too low", "chroma too narrow", "4:4:4"],
)
def test_a_picture_that_does_not_fit_changes_nothing(planes: Planes) -> None:
    ring = FrameRing(100 * 100)
    ring.write(*picture(100, 100), arrived_ns=0)
    with pytest.raises(MediaError):
        ring.write(*planes, arrived_ns=0)
    assert ring.written == 1
    assert shows(ring.latest(), picture(100, 100))


# Memory


def resident_bytes(ring: FrameRing) -> int:
    """How much of the ring's memory is really there (mincore)."""
    size = FrameRing.bytes_needed(ring._max_pixels, ring._slots)
    pages = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
    failed = ctypes.CDLL(None, use_errno=True).mincore(
        ctypes.c_void_p(ring._base), ctypes.c_size_t(size), pages
    )
    assert not failed
    return sum(page & 1 for page in pages) * mmap.PAGESIZE


def test_a_ring_costs_what_its_frames_need_not_what_they_might() -> None:
    ring = FrameRing(2560 * 1600)
    for seed in range(10):
        ring.write(*picture(160, 90, seed), arrived_ns=0)
        ring.latest()
    one_frame = 160 * 90 * 3 // 2
    assert 3 * one_frame <= resident_bytes(ring) <= 4 * (one_frame + 2 * mmap.PAGESIZE)


@pytest.mark.parametrize(("max_pixels", "slots"), [(0, 4), (-1, 4), (100, 3), (100, 33)])
def test_a_ring_that_cannot_be_is_refused(max_pixels: int, slots: int) -> None:
    with pytest.raises(ValueError, match="no ring"):
        FrameRing(max_pixels, slots)


def test_two_rings_over_one_block_are_its_two_ends() -> None:
    with shared_block(FrameRing.bytes_needed(100 * 100, 5)) as block:
        writer = FrameRing(100 * 100, 5, block.buf)
        reader = FrameRing.attach(ring_stress.buffer_of(block))
        assert reader.latest() is None
        for seed in range(3):
            writer.write(*picture(99, 77, seed), arrived_ns=seed)
        assert shows(reader.latest(), picture(99, 77, 2))
        assert (reader.written, reader.overwritten) == (3, 2)
        with pytest.raises(MediaError):
            reader.write(*picture(101, 100), arrived_ns=0)
        reader.close()
        later = FrameRing.attach(ring_stress.buffer_of(block))
        assert shows(later.latest(), picture(99, 77, 2))
        later.close()
        writer.close()


def test_a_closed_ring_lets_its_block_be_closed_and_takes_nothing_more() -> None:
    with shared_block(FrameRing.bytes_needed(100)) as block:
        ring = FrameRing(100, buffer=block.buf)
        ring.write(*picture(10, 10), arrived_ns=0)
        ring.latest()
        ring.close()
        with pytest.raises(ValueError, match="closed"):
            ring.write(*picture(10, 10), arrived_ns=0)
        with pytest.raises(ValueError, match="released"):
            ring.latest()


def test_a_used_block_is_laid_out_anew() -> None:
    with shared_block(FrameRing.bytes_needed(100)) as block:
        old = FrameRing(100, buffer=block.buf)
        old.write(*picture(10, 10), arrived_ns=0)
        old.close()
        fresh = FrameRing(50, buffer=block.buf)
        assert fresh.latest() is None
        assert (fresh.written, fresh.overwritten) == (0, 0)
        fresh.close()


def test_what_is_no_ring_is_refused() -> None:
    size = FrameRing.bytes_needed(100)
    memory = memoryview(mmap.mmap(-1, size + 64))
    with pytest.raises(ValueError, match="no frame ring"):
        FrameRing.attach(memory)
    FrameRing(100, buffer=memory)
    with pytest.raises(ValueError, match="no frame ring"):
        FrameRing.attach(memory[: size - 1])
    with pytest.raises(ValueError, match="fits"):
        FrameRing.attach(memory[:1000])
    with pytest.raises(ValueError, match="buffer"):
        FrameRing(100, buffer=memory[: size - 1])
    with pytest.raises(ValueError, match="bound"):
        FrameRing(100, buffer=memory[8:])


# A million frames


def await_first_frame(ring: FrameRing, writer: threading.Thread | BaseProcess) -> None:
    """A fresh process has modules to import and kernels to load first."""
    while not ring.written:
        assert writer.is_alive()
        writer.join(0.01)


@contextmanager
def writer_thread() -> Iterator[FrameRing]:
    size = FrameRing.bytes_needed(ring_stress.MAX_PIXELS) + 64
    ring = FrameRing(ring_stress.MAX_PIXELS, buffer=memoryview(mmap.mmap(-1, size)))
    writer = threading.Thread(target=ring_stress.write_until_stopped, args=(ring,))
    writer.start()
    try:
        await_first_frame(ring, writer)
        yield ring
    finally:
        ring_stress.stop(ring_stress.stop_address(ring))
        writer.join()


@contextmanager
def writer_process() -> Iterator[FrameRing]:
    with shared_block(FrameRing.bytes_needed(ring_stress.MAX_PIXELS) + 64) as block:
        ring = FrameRing(ring_stress.MAX_PIXELS, buffer=block.buf)
        writer = multiprocessing.get_context("spawn").Process(
            target=ring_stress.write_into_shared_memory, args=(block.name,)
        )
        writer.start()
        try:
            await_first_frame(ring, writer)
            yield ring
        finally:
            ring_stress.stop(ring_stress.stop_address(ring))
            writer.join()
            ring.close()
        assert writer.exitcode == 0


def test_frames_taken_by_latest_are_whole_while_another_thread_writes() -> None:
    seen = last = 0
    with writer_thread() as ring:
        while seen < 2_000:
            frame = ring.latest()
            if frame is None or frame.serial == last:
                os.sched_yield()
                continue
            assert frame.serial > last
            last = frame.serial
            seen += 1
            assert (frame.y.shape, frame.arrived_ns) == (ring_stress.shape(last), last * 1000)
            for plane, pixels in enumerate((frame.y, frame.u, frame.v)):
                value = ring_stress.plane_value(last, plane)
                assert pixels.min() == pixels.max() == value


def test_a_writer_killed_in_the_middle_leaves_a_ring_that_works() -> None:
    with shared_block(FrameRing.bytes_needed(ring_stress.MAX_PIXELS) + 64) as block:
        ring = FrameRing(ring_stress.MAX_PIXELS, buffer=block.buf)
        writer = multiprocessing.get_context("spawn").Process(
            target=ring_stress.write_into_shared_memory, args=(block.name,)
        )
        writer.start()
        await_first_frame(ring, writer)
        writer.kill()
        writer.join()
        last = ring.written
        frame = ring.latest()
        assert frame is not None
        assert (frame.serial, frame.y.shape) == (last, ring_stress.shape(last))
        assert set(frame.y.flat) == {ring_stress.plane_value(last, 0)}
        successor = FrameRing.attach(ring_stress.buffer_of(block))
        successor.write(*picture(9, 7), arrived_ns=0)
        assert shows(ring.latest(), picture(9, 7))
        assert ring.written == last + 1
        del frame
        successor.close()
        ring.close()


def hunt_torn_frames(
    writer: Callable[[], AbstractContextManager[FrameRing]], claim: Callable[[int], int]
) -> tuple[int, int]:
    """How many frames the reader looked at, up to a million, and how many were torn."""
    read = ring_stress.make_reader(claim)
    with writer() as ring:
        return read(ring._base, ring._slot_bytes, ring._memory, MILLION)


@pytest.mark.parametrize("writer", [writer_thread, writer_process])
def test_no_frame_is_torn_in_a_million(
    writer: Callable[[], AbstractContextManager[FrameRing]],
) -> None:
    assert hunt_torn_frames(writer, claim_latest) == (MILLION, 0)


@pytest.mark.parametrize("writer", [writer_thread, writer_process])
def test_the_same_hunt_finds_torn_frames_once_the_claim_is_taken_out(
    writer: Callable[[], AbstractContextManager[FrameRing]],
) -> None:
    _, torn = hunt_torn_frames(writer, look_without_claiming)
    assert torn == 1
