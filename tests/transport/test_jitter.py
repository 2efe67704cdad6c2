"""The jitter buffer: what leaves it, when, and what it asks for. Simulated time only."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.transport import jitter
from calliope.transport.jitter import AssembledFrame, JitterBuffer

MS = 1_000_000


class Sender:
    """Numbers packets as a sender does: (sequence, timestamp, marker, part, key_start)."""

    def __init__(self, sequence: int = 100) -> None:
        self.sequence = sequence
        self.timestamp = 0
        self.count = 0

    def frame(
        self, packets: int, key: bool = False, marker: bool = True
    ) -> list[tuple[int, int, bool, bytes, bool]]:
        made = []
        for index in range(packets):
            part = b"%d.%d;" % (self.count, index)
            last = index == packets - 1
            made.append(
                (
                    self.sequence & 0xFFFF,
                    self.timestamp & 0xFFFF_FFFF,
                    marker and last,
                    part,
                    key and index == 0,
                )
            )
            self.sequence += 1
        self.timestamp += 3000
        self.count += 1
        return made


def names(frames: list[AssembledFrame]) -> list[int]:
    """Which of the sender's frames these are; fails if one is not whole and in order."""
    found = []
    for frame in frames:
        pieces = b"".join(frame.parts).decode().rstrip(";").split(";")
        number = int(pieces[0].split(".")[0])
        assert pieces == [f"{number}.{index}" for index in range(len(pieces))]
        found.append(number)
    return found


def test_a_frame_leaves_with_its_marker_and_not_with_the_next_frame() -> None:
    buffer, sender = JitterBuffer(), Sender()
    key = sender.frame(3, key=True)
    assert buffer.waiting
    assert buffer.insert(*key[0], 1) == []
    assert not buffer.waiting
    assert buffer.insert(*key[1], 2) == []
    (frame,) = buffer.insert(*key[2], 3)
    assert names([frame]) == [0]
    assert frame.keyframe
    assert frame.arrived_ns == 3
    (frame,) = buffer.insert(*sender.frame(1)[0], 4)
    assert not frame.keyframe
    assert len(buffer) == 0


def test_a_sender_without_markers_is_followed_by_timestamps() -> None:
    buffer, sender = JitterBuffer(), Sender()
    for packet in sender.frame(2, key=True, marker=False):
        assert buffer.insert(*packet, 0) == []
    frames = buffer.insert(*sender.frame(1, marker=False)[0], 0)
    assert names(frames) == [0]


def test_nothing_leaves_before_a_keyframe() -> None:
    buffer, sender = JitterBuffer(), Sender()
    for _ in range(5):
        for packet in sender.frame(2):
            assert buffer.insert(*packet, 0) == []
    assert len(buffer) == 0
    assert buffer.waiting
    frames = [f for packet in sender.frame(2, key=True) for f in buffer.insert(*packet, 0)]
    assert names(frames) == [5]


def test_reordered_packets_make_the_same_frames() -> None:
    buffer, sender = JitterBuffer(), Sender()
    a, b, c = sender.frame(1, key=True), sender.frame(2), sender.frame(1)
    out = []
    for packet in (*a, c[0], b[1], b[0]):
        out += names(buffer.insert(*packet, 0))
    assert out == [0, 1, 2]
    assert buffer.due_ns is None


def test_the_first_keyframe_may_come_in_any_order() -> None:
    buffer, sender = JitterBuffer(), Sender()
    first, second, third = sender.frame(3, key=True)
    assert buffer.insert(*second, 0) == []
    assert buffer.insert(*first, 0) == []
    # The second came too early to be kept; it is asked for at once.
    assert names(buffer.insert(*third, 0)) == []
    assert buffer.sweep(0) == [second[0]]
    assert names(buffer.insert(*second, 1)) == [0]


def test_parameter_sets_overtaken_by_their_picture_stay_with_it() -> None:
    buffer = JitterBuffer()
    assert buffer.insert(10, 0, False, b"x", False, 0) == []
    assert buffer.insert(12, 5, False, b"idr ", True, 0) == []
    assert buffer.insert(11, 5, False, b"sps ", True, 0) == []
    (frame,) = buffer.insert(13, 5, True, b"rest", False, 0)
    assert b"".join(frame.parts) == b"sps idr rest"


def test_sequence_numbers_and_timestamps_wrap() -> None:
    buffer, sender = JitterBuffer(), Sender(sequence=0xFFFE)
    sender.timestamp = 0xFFFF_FFFF - 2000
    out = []
    for number in range(6):
        for packet in sender.frame(3, key=number == 0):
            out += names(buffer.insert(*packet, 0))
    assert out == [0, 1, 2, 3, 4, 5]


def test_a_duplicate_changes_nothing() -> None:
    buffer, sender = JitterBuffer(), Sender()
    key, later = sender.frame(2, key=True), sender.frame(2)
    out = []
    for packet in (key[0], key[0], key[1], key[1], later[0], later[0], later[1], key[0]):
        out += names(buffer.insert(*packet, 0))
    assert out == [0, 1]
    assert buffer.dropped["duplicate"] == 2
    assert buffer.dropped["late"] == 2


def test_padding_is_no_picture_and_no_gap() -> None:
    buffer, sender = JitterBuffer(), Sender()
    out = names(buffer.insert(*sender.frame(1, key=True)[0], 0))
    padding_timestamp = sender.timestamp - 3000
    for _ in range(3):
        assert buffer.insert(sender.sequence, padding_timestamp, False, b"", False, 0) == []
        sender.sequence += 1
    out += names(buffer.insert(*sender.frame(1)[0], 0))
    assert out == [0, 1]
    assert buffer.due_ns is None


def test_a_gap_is_asked_for_after_a_moment_and_again_until_it_is_filled() -> None:
    buffer, sender = JitterBuffer(), Sender()
    assert buffer.insert(*sender.frame(1, key=True)[0], 0)
    lost, later = sender.frame(1)[0], sender.frame(1)[0]
    assert buffer.insert(*later, 0) == []
    assert buffer.due_ns == jitter.REORDER_NS
    assert buffer.sweep(5 * MS) == []
    asked_at = [t for t in range(200) if buffer.sweep(t * MS) == [lost[0]]]
    assert asked_at == [10, 60, 110, 160]
    assert names(buffer.insert(*lost, 200 * MS)) == [1, 2]
    assert buffer.due_ns is None


def test_a_packet_sent_again_is_of_use_only_where_one_is_missing() -> None:
    buffer, sender = JitterBuffer(), Sender(sequence=0xFFFE)
    first, second = sender.frame(1, key=True)[0], sender.frame(1)[0]
    assert buffer.lacks(first[0])
    buffer.insert(*first, 0)
    assert not buffer.lacks(first[0])
    buffer.insert(*sender.frame(1)[0], 0)
    assert buffer.lacks(second[0])
    assert buffer.lacks(sender.frame(1)[0][0])  # lost at the end, not yet known to be missing
    buffer.insert(*second, 0)
    assert not buffer.lacks(second[0])


def test_a_long_round_trip_is_given_time_to_answer() -> None:
    buffer, sender = JitterBuffer(), Sender()
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    sender.frame(1)
    buffer.insert(*sender.frame(1)[0], 0)
    asked_at = [t for t in range(0, 700) if buffer.sweep(t * MS, 250 * MS)]
    assert asked_at == [10, 160, 310, 460, 610]  # not before the answer could be there
    assert not buffer.waiting
    buffer.sweep(800 * MS, 250 * MS)
    assert buffer.waiting


def test_what_is_never_repaired_is_given_up_and_the_next_keyframe_goes_on() -> None:
    buffer, sender = JitterBuffer(), Sender()
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    sender.frame(1)  # lost
    for _ in range(5):
        assert buffer.insert(*sender.frame(2)[0], 0) == []
        sender.frame(0)
    buffer.sweep(jitter.GIVE_UP_NS)
    assert buffer.waiting
    assert buffer.dropped["gave_up"] == 1
    frames = [
        f for p in sender.frame(2, key=True) for f in buffer.insert(*p, jitter.GIVE_UP_NS + MS)
    ]
    assert len(frames) == 1
    assert frames[0].keyframe
    assert len(buffer) == 0


def test_a_whole_keyframe_overtakes_what_waits_for_a_lost_packet() -> None:
    buffer, sender = JitterBuffer(), Sender()
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    sender.frame(1)
    assert buffer.insert(*sender.frame(1)[0], 0) == []
    frames = [f for p in sender.frame(3, key=True) for f in buffer.insert(*p, 1)]
    assert names(frames) == [3]
    assert buffer.dropped["overtaken"] == 1
    assert names(buffer.insert(*sender.frame(1)[0], 2)) == [4]


def test_a_great_gap_is_not_asked_for() -> None:
    buffer, sender = JitterBuffer(), Sender()
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    sender.frame(jitter.MAX_GAP + 10)
    assert buffer.insert(*sender.frame(1)[0], 0) == []
    assert buffer.waiting
    assert buffer.sweep(50 * MS) == []


def test_one_stray_packet_is_dropped_and_two_in_a_row_are_a_new_beginning() -> None:
    buffer, sender = JitterBuffer(), Sender(sequence=100)
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    assert buffer.insert(40_000, 7, True, b"stray", False, 0) == []
    assert names(buffer.insert(*sender.frame(1)[0], 0)) == [1]
    sender.sequence = 30_000
    assert buffer.insert(*sender.frame(1)[0], 0) == []
    frames = [f for p in sender.frame(2, key=True) for f in buffer.insert(*p, 0)]
    assert names(frames) == [3]


def test_resync_drops_to_the_next_keyframe() -> None:
    buffer, sender = JitterBuffer(), Sender()
    buffer.insert(*sender.frame(1, key=True)[0], 0)
    buffer.insert(*sender.frame(2)[0], 0)
    buffer.resync()
    assert buffer.waiting
    assert len(buffer) == 0
    assert buffer.insert(*sender.frame(1)[0], 0) == []
    assert names(buffer.insert(*sender.frame(1, key=True)[0], 0)) == [3]


def test_a_flood_of_packets_that_never_complete_stays_bounded() -> None:
    buffer, sender = JitterBuffer(capacity=64), Sender()
    for index, packet in enumerate(sender.frame(2000, key=True, marker=False)):
        if index != 5:
            buffer.insert(*packet, index)
        assert len(buffer) <= 64
    assert buffer.dropped["overflow"] > 0


def test_random_loss_repaired_by_retransmission_loses_no_frame() -> None:
    """Five percent loss both ways, 40 ms of round trip: every frame comes out, in order."""
    chance = random.Random(5)
    buffer, sender = JitterBuffer(), Sender(sequence=65_000)
    on_the_way: list[tuple[int, tuple[int, int, bool, bytes, bool]]] = []
    sent: dict[int, tuple[int, int, bool, bytes, bool]] = {}
    out: list[int] = []
    for now_ms in range(20_000):
        now_ns = now_ms * MS
        if now_ms % 33 == 0 and now_ms < 19_000:
            for packet in sender.frame(4, key=now_ms == 0):
                sent[packet[0]] = packet
                if now_ms == 0 or chance.random() > 0.05:
                    on_the_way.append((now_ns + 20 * MS, packet))
        due = buffer.due_ns
        if due is not None and due <= now_ns:
            asked = [s for s in buffer.sweep(now_ns, 40 * MS) if chance.random() > 0.05]
            repeated = [sent[s] for s in asked if chance.random() > 0.05]
            on_the_way += [(now_ns + 40 * MS, packet) for packet in repeated]
        arrived = [packet for at_ns, packet in on_the_way if at_ns <= now_ns]
        on_the_way = [(at_ns, packet) for at_ns, packet in on_the_way if at_ns > now_ns]
        for packet in arrived:
            out += names(buffer.insert(*packet, now_ns))
    assert out == list(range(sender.count))


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_order_with_duplicates_gives_whole_frames_in_order(data: st.DataObject) -> None:
    sender = Sender(sequence=data.draw(st.integers(0, 0xFFFF)))
    sizes = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=12))
    packets = [p for n, size in enumerate(sizes) for p in sender.frame(size, key=n == 0)]
    extra = data.draw(st.lists(st.sampled_from(packets), max_size=10))
    shuffled = data.draw(st.permutations(packets + extra))
    buffer = JitterBuffer()
    out = []
    now_ns = 0
    for packet in shuffled:
        now_ns += MS
        out += names(buffer.insert(*packet, now_ns))
    assert out == sorted(out)
    assert len(out) == len(set(out))
    # What is still missing is asked for, and then everything from the keyframe on is there.
    by_sequence = {packet[0]: packet for packet in packets}
    for _ in range(100):
        now_ns += 60 * MS if buffer.due_ns is None else max(0, buffer.due_ns - now_ns)
        for sequence in buffer.sweep(now_ns):
            if sequence in by_sequence:
                out += names(buffer.insert(*by_sequence[sequence], now_ns))
    assert out == list(range(len(sizes)))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 0xFFFF),
            st.integers(0, 0xFFFF_FFFF),
            st.booleans(),
            st.binary(max_size=2),
            st.booleans(),
            st.integers(0, 500),
        ),
        max_size=80,
    )
)
def test_garbage_never_raises_and_stays_bounded(
    packets: list[tuple[int, int, bool, bytes, bool, int]],
) -> None:
    buffer = JitterBuffer(capacity=32)
    now_ns = 0
    for sequence, timestamp, marker, part, key_start, wait_ms in packets:
        now_ns += wait_ms * MS
        buffer.insert(sequence, timestamp, marker, part, key_start, now_ns)
        assert len(buffer) <= 32
        assert buffer.missing <= 32
        if buffer.due_ns is not None and buffer.due_ns <= now_ns:
            assert len(buffer.sweep(now_ns)) <= jitter.MAX_NACKS
