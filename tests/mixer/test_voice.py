"""A voice on a bad network: what is heard of it, how late, and what is counted."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.media import AudioPacket
from calliope.metrics import Metrics
from calliope.mixer.opus import Pcm, packet_samples
from calliope.mixer.voice import SILENCE_DBOV, Voice
from tests.mixer.sound import (
    BLOCK,
    TICK_NS,
    Microphone,
    Network,
    largest_bend,
    packets_of,
    power_db,
    tone,
)

HZ = 400
SMOOTH = 3 * 0.1 * (2 * np.pi * HZ / 48_000) ** 2
"""A click would bend the tone more than this."""


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def network(metrics: Metrics) -> Network:
    return Network(Voice(metrics))


def drops(metrics: Metrics) -> dict[str, float]:
    """What was dropped of incoming sound, by reason."""
    return {
        sample.labels["why"]: sample.value
        for metric in metrics.registry.collect()
        if metric.name == "calliope_drops"
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.value
    }


def loudest_gap(sound: Pcm) -> float:
    """The RMS of the quietest 10 ms, as a share of the whole's."""
    parts = sound.astype(np.float64).reshape(-1, 480)
    return float(np.sqrt(np.square(parts).mean(axis=1)).min() / np.sqrt(np.square(parts).mean()))


def every_20_ms(i: int) -> float:
    return 20.0 * i + 5


def _evenly(begin_ms: float, spacing_ms: float, i: int) -> float:
    return begin_ms + spacing_ms * i


class TestAGoodNetwork:
    def test_a_tone_comes_out_whole_and_early(self, network: Network, metrics: Metrics) -> None:
        network.send(packets_of(tone(HZ, 5)), every_20_ms)
        network.play(0.1)
        heard = network.play(4.8)
        assert power_db(heard, HZ) == pytest.approx(-20, abs=0.5)
        assert largest_bend(heard) < SMOOTH
        assert network.voice.concealed_samples == 0
        assert network.voice.buffered_ms <= 20
        assert not drops(metrics)

    def test_the_first_sound_is_heard_within_40_ms(self, network: Network) -> None:
        network.send(packets_of(tone(HZ, 1)), lambda i: 20.0 * i)
        heard = network.play(0.06)
        assert np.abs(heard[-480:]).max() > 1_000

    @pytest.mark.parametrize("samples", [120, 240, 480, 960, 1_920, 2_880])
    def test_packets_of_any_duration_play(
        self, network: Network, metrics: Metrics, samples: int
    ) -> None:
        ms = samples / 48
        packets = packets_of(tone(HZ, 3), Microphone(samples=samples))
        network.send(packets, lambda i: ms * i + 5)
        network.play(0.4)
        heard = network.play(2)
        assert loudest_gap(heard) > 0.7
        assert largest_bend(heard) < SMOOTH
        assert not drops(metrics)

    def test_packets_of_120_ms_made_of_six_frames_play(self, network: Network) -> None:
        microphone = Microphone()
        frames = [microphone.encode(b) for b in tone(HZ, 2.4).reshape(-1, BLOCK)]
        packets = []
        for i in range(0, len(frames), 6):
            six = frames[i : i + 6]
            lengths = bytes(len(frame) - 1 for frame in six[:-1])
            assert all(len(frame) < 252 for frame in six)
            # RFC 6716, 3.2.5: code 3, variable bitrate
            data = bytes([six[0][0] | 3, 0x80 | 6]) + lengths + b"".join(f[1:] for f in six)
            assert packet_samples(data) == 5_760
            packets.append(AudioPacket(i // 6, 960 * i, data, 20, 0))
        network.send(packets, lambda i: 120.0 * i)
        network.play(0.4)
        assert loudest_gap(network.play(1.6)) > 0.7

    def test_the_timestamp_wraps_without_a_sound(self, network: Network, metrics: Metrics) -> None:
        microphone = Microphone(timestamp=2**32 - 48_000)
        network.send(packets_of(tone(HZ, 2.5), microphone), every_20_ms)
        network.play(0.1)
        heard = network.play(2.2)
        assert largest_bend(heard) < SMOOTH
        assert network.voice.concealed_samples == 0
        assert not drops(metrics)

    @pytest.mark.parametrize("ppm", [-200, 200])
    def test_a_sender_whose_clock_is_wrong_gets_no_later_in_five_minutes(
        self, network: Network, metrics: Metrics, ppm: int
    ) -> None:
        """A second of tone, again and again: 60 ms more or less than real time in the end."""
        packets = packets_of(tone(HZ, 1))
        delays = []
        for second in range(300):
            again = [
                AudioPacket(0, p.timestamp_48k + second * 48_000, p.data, 20, 0) for p in packets
            ]
            spacing_ms = 20 * (1 - ppm * 1e-6)
            begin_ms = 50 * second * spacing_ms - network.now_ns / 1e6
            network.send(again, partial(_evenly, begin_ms, spacing_ms))
            heard = network.play(1)
            delays.append(network.voice.buffered_ms)
            if second % 20 == 19:
                assert power_db(heard, HZ) == pytest.approx(-20, abs=2)
        assert max(delays) <= 60
        assert network.voice.concealed_samples < 0.001 * 300 * 48_000
        assert not drops(metrics)


class TestABadNetwork:
    def test_five_percent_loss_leaves_no_gap_and_no_click(
        self, network: Network, metrics: Metrics
    ) -> None:
        rng = random.Random(5)
        kept = [p for i, p in enumerate(packets_of(tone(HZ, 20))) if i < 5 or rng.random() > 0.05]
        network.send(kept, lambda i: (kept[i].timestamp_48k - 1_000) / 48)
        network.play(0.1)
        heard = network.play(19.5)
        assert loudest_gap(heard) > 0.5
        assert largest_bend(heard) < SMOOTH
        lost = 1 - len(kept) / 1_000
        assert network.voice.concealed_samples / 960_000 == pytest.approx(lost, rel=0.3)
        assert not drops(metrics)

    def test_jitter_of_40_ms_is_ridden_out(self, network: Network, metrics: Metrics) -> None:
        rng = random.Random(6)
        network.send(packets_of(tone(HZ, 30)), lambda i: 20 * i + rng.uniform(0, 40))
        network.play(10)
        before = network.voice.concealed_samples
        heard = network.play(18)
        assert loudest_gap(heard) > 0.5
        assert (network.voice.concealed_samples - before) / (18 * 48_000) < 0.01
        assert network.voice.buffered_ms <= 120

    def test_reordered_packets_find_their_place_once_it_is_known_that_they_come(
        self, network: Network, metrics: Metrics
    ) -> None:
        """Every second packet is 30 ms late, so each comes after the one that follows it."""
        network.send(packets_of(tone(HZ, 20)), lambda i: 20.0 * i + 30 * (i % 2))
        network.play(5)
        late_so_far = drops(metrics).get("late", 0)
        before = network.voice.concealed_samples
        heard = network.play(14)
        assert drops(metrics).get("late", 0) - late_so_far <= 7
        assert network.voice.concealed_samples - before < 0.02 * 14 * 48_000
        assert loudest_gap(heard) > 0.5

    def test_duplicates_are_counted_and_change_nothing(self, metrics: Metrics) -> None:
        packets = packets_of(tone(HZ, 3))
        once, twice = Network(Voice(Metrics())), Network(Voice(metrics))
        once.send(packets, every_20_ms)
        twice.send([p for p in packets for _ in range(2)], lambda i: every_20_ms(i // 2))
        np.testing.assert_array_equal(once.play(2.9), twice.play(2.9))
        counted = drops(metrics)
        assert counted.pop("duplicate") + counted.pop("late", 0) == pytest.approx(145, abs=3)
        assert not counted

    def test_duplicates_that_come_after_their_twin_was_played_cost_no_delay(
        self, network: Network, metrics: Metrics
    ) -> None:
        packets = packets_of(tone(HZ, 10))
        network.send(packets, every_20_ms)
        network.send(packets, lambda i: every_20_ms(i) + 30)
        network.play(9)
        assert network.voice.buffered_ms <= 20
        assert network.voice.concealed_samples == 0
        assert drops(metrics) == {"duplicate": pytest.approx(448, abs=3)}

    def test_after_a_stall_of_100_ms_the_delay_goes_away_again(
        self, network: Network, metrics: Metrics
    ) -> None:
        """Five packets come late and at once, as through a Wi-Fi hiccup; none is thrown away."""
        network.send(packets_of(tone(HZ, 20)), lambda i: 20.0 * (105 if 100 <= i < 105 else i) + 5)
        network.play(2.2)
        assert network.voice.buffered_ms >= 60
        heard = network.play(17)
        assert network.voice.buffered_ms <= 45
        assert largest_bend(heard) < SMOOTH
        assert not drops(metrics)

    def test_after_a_stall_of_half_a_second_the_delay_is_gone_at_once(
        self, network: Network, metrics: Metrics
    ) -> None:
        network.send(packets_of(tone(HZ, 5)), lambda i: 20.0 * (125 if 100 <= i < 125 else i) + 5)
        network.play(2.6)
        assert network.voice.buffered_ms <= 80
        assert drops(metrics)["deep"] >= 15
        assert loudest_gap(network.play(2)) > 0.5

    def test_a_path_that_becomes_longer_for_good_costs_no_lasting_delay_here(
        self, network: Network
    ) -> None:
        network.send(packets_of(tone(HZ, 20)), lambda i: 20.0 * i + (300 if i >= 100 else 5))
        network.play(19)
        assert network.voice.buffered_ms <= 60

    def test_what_is_missing_at_the_end_fades_out(self, network: Network) -> None:
        network.send(packets_of(tone(HZ, 1)), every_20_ms)
        heard = network.play(2)
        end = len(heard) - int(np.flatnonzero(heard[::-1])[0])
        assert 48_000 < end < 48_000 * 1.2
        assert largest_bend(heard[BLOCK * 10 :]) < SMOOTH
        network.arrive()
        assert network.voice.pull_block(network.now_ns) is None


class TestPauses:
    def test_a_dtx_sender_is_silent_without_loss_and_then_heard_whole(
        self, network: Network, metrics: Metrics
    ) -> None:
        microphone = Microphone()
        first = packets_of(tone(HZ, 1), microphone)
        rest = []
        for _ in range(10):  # a packet of one byte every 400 ms
            rest.append(microphone.packet(bytes([0xF8])))
            microphone.skip(19 * BLOCK)
        second = packets_of(tone(HZ, 1), microphone)
        packets = first + rest + second
        network.send(packets, lambda i: (packets[i].timestamp_48k - 1_000) / 48 + 5)
        network.play(2)
        concealed = network.voice.concealed_samples
        assert not network.play(2.9).any()
        heard = network.play(1.1)
        whole = heard[np.flatnonzero(heard)[0] :]
        assert np.count_nonzero(np.abs(heard) > 500) > 0.8 * 48_000
        assert largest_bend(whole[:40_000]) < SMOOTH
        assert network.voice.concealed_samples == concealed
        assert network.voice.buffered_ms <= 40
        assert not drops(metrics)

    def test_a_sender_whose_clock_stood_still_in_a_pause_is_heard_at_once(
        self, network: Network, metrics: Metrics
    ) -> None:
        microphone = Microphone()
        network.send(packets_of(tone(HZ, 1), microphone), every_20_ms)
        network.play(10)
        network.send(packets_of(tone(HZ, 1), microphone), every_20_ms)
        heard = network.play(0.2)
        assert np.abs(heard[:2_880]).max() > 1_000
        assert network.voice.buffered_ms <= 40
        assert not drops(metrics)

    @pytest.mark.parametrize("jump", [-2_000_000, -50_000, 50_000, 2_000_000_000])
    def test_a_sender_that_begins_a_new_timeline_is_heard_again_soon(
        self, network: Network, jump: int
    ) -> None:
        network.send(packets_of(tone(HZ, 1)), every_20_ms)
        network.play(1)
        network.send(packets_of(tone(HZ, 2), Microphone(timestamp=49_000 + jump)), every_20_ms)
        network.play(0.3)
        heard = network.play(1.5)
        assert loudest_gap(heard) > 0.5
        assert network.voice.buffered_ms <= 60


class TestNotDecoding:
    def test_a_voice_that_becomes_wanted_is_heard_as_if_it_always_had_been(self) -> None:
        packets = packets_of(tone(HZ, 3))
        always, wanted = Network(Voice(Metrics())), Network(Voice(Metrics()))
        for network in (always, wanted):
            network.send(packets, every_20_ms)
        always.play(1)
        for _ in range(50):
            wanted.arrive()
            wanted.voice.skip_block(wanted.now_ns)
        one, other = always.play(1).astype(float), wanted.play(1).astype(float)
        error = np.sqrt(np.square(one - other).reshape(-1, BLOCK).mean(axis=1)) / 2_300
        assert error[0] < 0.2
        assert error[2:].max() < 0.05

    @pytest.mark.parametrize("samples", [120, 2_880])
    def test_wanted_in_the_middle_of_a_packet_it_goes_on_there(
        self, network: Network, samples: int
    ) -> None:
        packets = packets_of(tone(HZ, 2), Microphone(samples=samples))
        network.send(packets, lambda i: samples / 48 * i)
        for _ in range(46):
            network.arrive()
            network.voice.skip_block(network.now_ns)
        assert loudest_gap(network.play(0.8)) > 0.5

    def test_skipping_keeps_the_delay_small_too(self, network: Network, metrics: Metrics) -> None:
        network.send(packets_of(tone(HZ, 20)), lambda i: 20.0 * (105 if 100 <= i < 105 else i) + 5)
        for _ in range(900):
            network.arrive()
            network.voice.skip_block(network.now_ns)
        assert network.voice.buffered_ms <= 45
        assert not drops(metrics)

    def test_loudness_is_known_one_block_before_it_sounds(self, network: Network) -> None:
        microphone = Microphone(level=127)
        quiet = packets_of(tone(HZ, 1, 0.0), microphone)
        microphone.level = 25
        network.send(quiet + packets_of(tone(HZ, 1), microphone), every_20_ms)
        loud_at, heard_at = None, None
        for block in range(70):
            network.arrive()
            if network.voice.peek(network.now_ns) > -30 and loud_at is None:
                loud_at = block
            sound = network.voice.pull_block(network.now_ns)
            if sound is not None and np.abs(sound).max() > 500 and heard_at is None:
                heard_at = block
        assert loud_at is not None
        assert heard_at is not None
        assert loud_at <= heard_at

    def test_without_levels_loudness_is_measured(self, network: Network) -> None:
        network.send(packets_of(tone(HZ, 1), Microphone(level=None)), every_20_ms)
        network.play(0.5)
        assert network.voice.must_decode
        assert network.voice.peek(network.now_ns) == pytest.approx(-23, abs=1)  # a sine's RMS

    def test_untrue_levels_are_no_longer_believed(self, network: Network) -> None:
        network.send(packets_of(tone(HZ, 1, 0.0), Microphone(level=0)), every_20_ms)
        network.play(0.2)
        assert network.voice.peek(network.now_ns) == 0
        network.voice.distrust_levels()
        network.play(0.1)
        assert network.voice.peek(network.now_ns) < -60


class TestMuted:
    def test_what_comes_while_deaf_is_never_heard(self, network: Network) -> None:
        network.send(packets_of(tone(HZ, 3)), every_20_ms)
        network.play(0.5)
        network.voice.deafen()
        network.play(0.2)
        for _ in range(20):
            assert not network.step().any()
        network.voice.restart()
        assert network.voice.peek(network.now_ns) == SILENCE_DBOV
        network.play(0.1)
        assert loudest_gap(network.play(1)) > 0.5


class TestBrokenSenders:
    def test_the_inbox_is_bounded(self, network: Network, metrics: Metrics) -> None:
        for packet in packets_of(tone(HZ, 4)):
            network.voice.push(packet)
        assert drops(metrics)["overflow"] == 200 - 64

    def test_garbage_among_good_packets_is_counted_and_concealed(
        self, network: Network, metrics: Metrics
    ) -> None:
        packets = packets_of(tone(HZ, 5))
        for i in range(20, 240, 20):
            bad = b"" if i % 40 else b"\x7f\xff\xff\xff\xff"
            packets[i] = AudioPacket(i, packets[i].timestamp_48k, bad, 20, 0)
        network.send(packets, every_20_ms)
        network.play(0.1)
        heard = network.play(4.7)
        assert drops(metrics) == {"garbage": 11}
        assert loudest_gap(heard) > 0.5
        assert largest_bend(heard) < SMOOTH

    @settings(max_examples=80, deadline=None)
    @given(data=st.data())
    def test_nothing_that_arrives_can_raise_or_pile_up(self, data: st.DataObject) -> None:
        good = Microphone().encode(tone(HZ, 0.02))
        payloads = st.one_of(st.binary(max_size=40), st.just(good), st.just(good[:1]))
        near = st.integers(0, 40).map(lambda n: n * 480)
        packets = st.builds(
            AudioPacket,
            sequence=st.integers(0, 65_535),
            timestamp_48k=st.one_of(near, near, st.integers(0, 2**32 - 1)),
            data=payloads,
            level=st.one_of(st.none(), st.integers(0, 127)),
            arrived_ns=st.integers(0, 10**9),
        )
        voice, now_ns = Voice(Metrics()), 0
        for arrived in data.draw(st.lists(st.lists(packets, max_size=6), max_size=25)):
            now_ns += TICK_NS
            for packet in arrived:
                voice.push(packet)
            assert SILENCE_DBOV <= voice.peek(now_ns) <= 0
            if data.draw(st.booleans()):
                voice.skip_block(now_ns)
            else:
                block = voice.pull_block(now_ns)
                assert block is None or (block.shape == (BLOCK,) and block.dtype == np.int16)
            assert voice.buffered_ms <= 160 + 120 + 120
