"""The audio mixer in stories: who hears whom, without clicks, at what cost in packets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from calliope.clock import FakeClock
from calliope.config import AudioConfig
from calliope.media import AudioPacket, EncodedAudio
from calliope.metrics import Metrics
from calliope.mixer.audio import AudioMixer
from calliope.mixer.opus import (
    DTX_PACKET,
    SILENCE_PACKET,
    OpusDecoder,
    OpusEncoder,
    Pcm,
    Samples,
)
from calliope.mixer.voice import Voice
from tests.mixer.sound import BLOCK, Ears, Microphone, largest_bend, power_db
from tests.waiting import wait_until

HERE, GONE = -26.0, -55.0
"""In dB: a tone sent at -20 is heard above the one and, when it should not be, below the other."""


@dataclass
class Person:
    """Sends a tone (or silence) and listens."""

    hz: float
    voice: Voice
    microphone: Microphone
    amplitude: float = 0.1
    ears: Ears = field(default_factory=Ears)
    received: list[EncodedAudio | None] = field(default_factory=list)
    sends: bool = True
    _phase: int = 0

    def next_packet(self, now_ns: int) -> AudioPacket:
        time = (self._phase + np.arange(BLOCK)) / 48_000
        self._phase += BLOCK
        sound = self.amplitude * np.sin(2 * np.pi * self.hz * time)
        return self.microphone.packet(sound.astype(np.float32), now_ns)

    def hears(self, other: Person, seconds: float = 0.5) -> float:
        """How loud the other's tone is in what was heard last, in dB."""
        return power_db(self.ears.last(seconds), other.hz)


class Hall:
    """A room of people around one mixer, driven block by block."""

    def __init__(self, config: AudioConfig | None = None) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.mixer = AudioMixer(config or AudioConfig(), self.clock, self.metrics, self._deliver)
        self.people: dict[str, Person] = {}
        self.speaking: frozenset[str] = frozenset()
        self.shared: EncodedAudio | None = None
        self.own: Mapping[str, EncodedAudio | None] = {}

    def enter(self, name: str, hz: float, *, listens: bool = True, level: int = 20) -> Person:
        """Somebody joins in the middle of his tone: what clicks then is our doing."""
        person = Person(hz, self.mixer.new_voice(), Microphone(level=level))
        for _ in range(3):
            person.next_packet(0)
        self.people[name] = person
        self.mixer.add(name, person.voice)
        if listens:
            self.mixer.listen(name)
        return person

    def watch(self, name: str) -> Person:
        """An audience member: hears, and is not heard."""
        person = Person(0, self.mixer.new_voice(), Microphone(), sends=False)
        self.people[name] = person
        self.mixer.listen(name)
        return person

    def leave(self, name: str) -> None:
        self.mixer.remove(name)
        self.mixer.unlisten(name)
        del self.people[name]

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 50)):
            self.clock.advance(ms=20)
            for person in self.people.values():
                if person.sends:
                    person.voice.push(person.next_packet(self.clock.now_ns()))
            self.mixer.tick(self.clock.now_ns())

    def _deliver(
        self,
        shared: EncodedAudio | None,
        own: Mapping[str, EncodedAudio | None],
        speaking: frozenset[str],
    ) -> None:
        self.speaking, self.shared, self.own = speaking, shared, own
        for name, person in self.people.items():
            packet = own.get(name, shared)
            person.received.append(packet)
            person.ears.hear(None if packet is None else packet.data)


@pytest.fixture
def hall() -> Hall:
    return Hall()


def smooth(sound: Pcm, hz: float, amplitude: float = 0.1) -> bool:
    """Whether nothing bends the wave more than three tones of ``hz`` at once would."""
    return largest_bend(sound) < 3 * amplitude * (2 * np.pi * hz / 48_000) ** 2


class TestWhoHearsWhom:
    def test_everybody_hears_the_others_and_not_himself(self, hall: Hall) -> None:
        people = [hall.enter(f"p{i}", hz) for i, hz in enumerate((440, 700, 1_100))]
        hall.run(1.5)
        for listener in people:
            for speaker in people:
                heard = listener.hears(speaker)
                assert heard < GONE if listener is speaker else heard > HERE

    def test_audience_hears_all_and_shares_one_packet(self, hall: Hall) -> None:
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        watchers = [hall.watch(f"a{i}") for i in range(5)]
        hall.run(1)
        assert watchers[0].hears(ada) > HERE
        assert watchers[0].hears(bob) > HERE
        last = [watcher.received[-1] for watcher in watchers]
        assert all(packet is hall.shared for packet in last)
        assert set(hall.own) == {"ada", "bob"}

    def test_a_late_joiner_hears_and_is_heard(self, hall: Hall) -> None:
        ada = hall.enter("ada", 440)
        hall.run(1)
        bob = hall.enter("bob", 700)
        hall.run(1)
        assert ada.hears(bob) > HERE
        assert bob.hears(ada) > HERE

    def test_the_last_one_hears_silence_and_so_does_who_is_alone(self, hall: Hall) -> None:
        ada = hall.enter("ada", 440)
        hall.enter("bob", 700)
        hall.run(1)
        hall.leave("bob")
        hall.run(1)
        assert not np.abs(ada.ears.last(0.5)).max() > 20

    def test_only_the_loudest_few_are_mixed(self) -> None:
        hall = Hall(AudioConfig(voices=2))
        loud = [hall.enter(f"loud{i}", 400 + 300 * i, level=20) for i in range(2)]
        hall.run(0.5)
        quiet = hall.enter("quiet", 1_700, level=40)
        quiet.amplitude = 0.01
        ear = hall.watch("a")
        hall.run(1.5)
        assert all(ear.hears(speaker) > HERE for speaker in loud)
        assert ear.hears(quiet) < GONE

    def test_two_rooms_share_nothing(self) -> None:
        one, other = Hall(), Hall()
        speaker = one.enter("ada", 440)
        listener = other.watch("ada")
        one.run(1)
        other.run(1)
        assert listener.hears(speaker) < GONE

    def test_a_second_session_takes_over_a_voice(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        bob = hall.enter("bob", 700)
        hall.run(1)
        again = hall.enter("ada", 900)
        hall.run(1)
        assert bob.hears(again) > HERE
        assert power_db(bob.ears.last(0.5), 440) < GONE
        assert again.hears(again) < GONE


class TestMuting:
    def test_a_muted_participants_packets_are_not_mixed_whatever_he_sends(self, hall: Hall) -> None:
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        hall.run(1)
        hall.mixer.set_muted("ada", True)
        hall.run(0.5)
        assert "ada" not in hall.speaking
        hall.run(0.5)
        assert bob.hears(ada) < GONE
        hall.mixer.set_muted("ada", False)
        hall.run(1)
        assert bob.hears(ada) > HERE

    def test_nothing_said_while_muted_is_heard_afterwards(self, hall: Hall) -> None:
        """Not even the few packets that waited when he unmuted."""
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        hall.mixer.set_muted("ada", True)
        hall.run(1)
        ada.sends = False
        hall.mixer.set_muted("ada", False)
        bob.sends = False
        hall.run(0.3)
        assert power_db(bob.ears.last(0.3), 440) < GONE

    def test_what_comes_in_the_fading_block_is_not_heard(self, hall: Hall) -> None:
        """Muted and then shouting at another pitch: that pitch must never come through."""
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        bob.sends = False
        hall.run(1)
        hall.mixer.set_muted("ada", True)
        ada.hz, ada.amplitude = 3_000, 0.9
        hall.run(0.2)
        assert power_db(bob.ears.last(0.2), 3_000) < GONE

    def test_muting_and_unmuting_makes_no_click(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        bob = hall.enter("bob", 700)
        bob.sends = False
        hall.run(1)
        for muted in (True, False) * 5:
            hall.mixer.set_muted("ada", muted)
            hall.run(0.25)
        assert smooth(bob.ears.last(2.5), 440)

    def test_muting_nobody_is_harmless(self, hall: Hall) -> None:
        hall.mixer.set_muted("nobody", True)
        hall.run(0.1)


class TestVolumes:
    def test_a_volume_holds_for_one_listener_and_one_speaker(self, hall: Hall) -> None:
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        eve, kim = hall.watch("eve"), hall.watch("kim")
        hall.mixer.set_gain("eve", "ada", 0.5)
        hall.run(1.5)
        assert eve.hears(ada) == pytest.approx(kim.hears(ada) - 6, abs=1)
        assert eve.hears(bob) == pytest.approx(kim.hears(bob), abs=1)

    def test_zero_silences_and_one_ends_the_exception(self, hall: Hall) -> None:
        ada, eve = hall.enter("ada", 440), hall.watch("eve")
        hall.mixer.set_gain("eve", "ada", 0)
        hall.run(1)
        assert eve.hears(ada) < GONE
        assert "eve" in hall.own
        hall.mixer.set_gain("eve", "ada", 1)
        hall.run(1)
        assert eve.hears(ada) > HERE
        assert "eve" not in hall.own

    def test_a_changed_volume_makes_no_click(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        eve = hall.watch("eve")
        hall.run(1)
        for gain in (0.2, 2.0, 0.0, 1.0, 0.5):
            hall.mixer.set_gain("eve", "ada", gain)
            hall.run(0.3)
        assert smooth(eve.ears.last(1.5), 440, 0.2)

    def test_volumes_of_a_whole_audience_cannot_choke_the_room(self, hall: Hall) -> None:
        """Beyond what is mixed for, they hear the shared mix; who talks never hears himself."""
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        for i in range(100):
            hall.mixer.listen(f"a{i}")
            hall.mixer.set_gain(f"a{i}", "ada", 0.5)
        hall.run(1)
        assert len(hall.own) <= 1 + 2 * 4 + 24
        assert ada.hears(ada) < GONE
        assert bob.hears(bob) < GONE

    def test_who_begins_to_talk_has_a_mix_however_many_set_volumes(self, hall: Hall) -> None:
        ada = hall.enter("ada", 440)
        bob = hall.enter("bob", 700)
        bob.sends = False
        for i in range(60):
            hall.watch(f"a{i}")
            hall.mixer.set_gain(f"a{i}", "ada", 0.5)
        hall.run(0.5)
        bob.sends = True
        hall.run(1)
        assert bob.hears(ada) > HERE
        assert ada.hears(bob) > HERE

    def test_volumes_of_listeners_long_gone_are_forgotten(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        hall.watch("eve")
        hall.mixer.set_gain("eve", "ada", 0)
        for i in range(5_000):
            hall.mixer.listen(f"a{i}")
            hall.mixer.set_gain(f"a{i}", "ada", 0.5)
            hall.mixer.unlisten(f"a{i}")
        assert len(hall.mixer._volumes) <= 4_096
        assert hall.mixer._volumes["eve"] == {"ada": 0.0}

    def test_volumes_for_people_long_gone_are_forgotten(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        eve = hall.watch("eve")
        hall.mixer.set_gain("eve", "ada", 0)
        for i in range(5_000):
            hall.mixer.set_gain(f"a{i % 7}", f"gone{i}", 0.5)
        hall.run(1)
        assert power_db(eve.ears.last(0.5), 440) < GONE


class TestWithoutClicks:
    def test_joining_talking_and_leaving_click_for_nobody(self, hall: Hall) -> None:
        ada, eve = hall.enter("ada", 440), hall.watch("eve")
        hall.run(1)
        for i in range(4):
            hall.enter(f"p{i}", 500 + 20 * i)
            hall.run(0.3)
        for i in range(4):
            hall.leave(f"p{i}")
            hall.run(0.3)
        for listener in (ada, eve):
            assert smooth(listener.ears.last(2.4), 500, 0.2)  # four tones at once

    def test_a_listener_moves_between_shared_and_own_mix_unnoticed(self, hall: Hall) -> None:
        """Bob speaks now and then and hears Ada all the while, without a seam."""
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700)
        hall.watch("eve")
        bob.amplitude, bob.microphone.level = 0.0, 127
        hall.run(1)
        moves = 0
        for _ in range(4):
            for amplitude, level in ((0.1, 20), (0.0, 127)):
                bob.amplitude, bob.microphone.level = amplitude, level
                before = "bob" in hall.own
                hall.run(1.5)
                moves += ("bob" in hall.own) != before
        assert moves == 8
        heard = bob.ears.last(12)
        assert smooth(heard, 440)
        loudness = np.sqrt(np.square(heard.astype(np.float64)).reshape(-1, BLOCK).mean(axis=1))
        assert loudness.min() > 0.8 * loudness.mean()
        assert bob.hears(ada, 12) > HERE

    def test_two_who_talk_alone_move_back_to_a_shared_mix_nobody_used(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        bob = hall.enter("bob", 700)
        hall.run(2)
        assert hall.shared is None
        bob.amplitude, bob.microphone.level = 0.0, 127
        hall.run(2)
        assert "bob" not in hall.own
        assert smooth(bob.ears.last(2), 440)

    def test_many_at_full_volume_are_limited_not_clipped(self, hall: Hall) -> None:
        people = [hall.enter(f"p{i}", 300 + 170 * i, level=3) for i in range(4)]
        for person in people:
            person.amplitude = 0.9
        ear = hall.watch("a")
        hall.run(2)
        heard = ear.ears.last(1)
        assert np.abs(heard.astype(int)).max() < 32_767
        levels = [ear.hears(person, 1) for person in people]
        assert max(levels) - min(levels) < 2
        assert power_db(heard, 3 * 300) < max(levels) - 25  # clipping would make harmonics


class TestSpeaking:
    def test_who_speaks_is_told_and_who_is_silent_is_not(self, hall: Hall) -> None:
        hall.enter("ada", 440)
        bob = hall.enter("bob", 700, level=127)
        bob.amplitude = 0.0
        hall.run(0.5)
        assert hall.speaking == {"ada"}

    def test_the_first_syllable_is_heard(self, hall: Hall) -> None:
        """From silence to speech: what is sent arrives whole, from its first 30 ms on."""
        ada, bob = hall.enter("ada", 440), hall.enter("bob", 700, level=127)
        bob.amplitude = 0.0
        hall.run(1)
        bob.amplitude, bob.microphone.level = 0.1, 20
        hall.run(0.2)
        heard = [power_db(part, 700) for part in np.split(ada.ears.last(0.2), 10)]
        begun = next(i for i, db in enumerate(heard) if db > -30)
        assert begun <= 3  # 20 ms of margin, 20 ms of block, 5 ms of limiter and codec

    def test_a_liar_who_claims_to_shout_loses_his_place(self) -> None:
        hall = Hall(AudioConfig(voices=1))
        liar = hall.enter("liar", 440, level=0)
        liar.amplitude = 0.0
        hall.run(0.5)
        ada, ear = hall.enter("ada", 700, level=30), hall.watch("a")
        hall.run(3)
        assert ear.hears(ada) > HERE
        assert hall.speaking == {"ada"}

    def test_a_sender_without_levels_is_heard_by_his_sound(self, hall: Hall) -> None:
        ada, ear = hall.enter("ada", 440), hall.watch("a")
        ada.microphone.level = None
        hall.run(1)
        assert ear.hears(ada) > HERE
        assert hall.speaking == {"ada"}
        ada.amplitude = 0.0
        hall.run(2)
        assert not hall.speaking
        assert ear.received[-1] is None or not ear.received[-1].voiced


class TestSilence:
    def test_silence_is_two_small_packets_every_400_ms(self, hall: Hall) -> None:
        ada, eve = hall.enter("ada", 440), hall.watch("eve")
        hall.run(1)
        ada.sends = False
        hall.run(3)
        before = len(eve.received)
        hall.run(4)
        packets = [packet for packet in eve.received[before:] if packet is not None]
        assert [packet.data for packet in packets] == [SILENCE_PACKET, DTX_PACKET] * 10
        assert not any(packet.voiced for packet in packets)
        assert not eve.ears.last(2).any()

    def test_time_runs_on_evenly_through_silence(self, hall: Hall) -> None:
        ada, eve = hall.enter("ada", 440), hall.watch("eve")
        for sends in (True, False, True):
            ada.sends = sends
            hall.run(2)
        stamps = [(i, p.pts_48k) for i, p in enumerate(eve.received) if p is not None]
        assert {pts - i * BLOCK for i, pts in stamps} == {stamps[0][1] - stamps[0][0] * BLOCK}
        assert eve.hears(ada) > HERE

    def test_after_silence_the_first_word_has_its_full_loudness(self, hall: Hall) -> None:
        """Encoder and decoder agree on where they were before the pause."""
        ada, eve = hall.enter("ada", 440), hall.watch("eve")
        hall.run(2)
        ada.sends = False
        hall.run(2.1)
        ada.sends = True
        hall.run(0.5)
        heard = eve.ears.last(0.4)
        assert not eve.ears.last(2)[:48_000].any()
        parts = np.sqrt(np.square(heard.astype(np.float64)).reshape(-1, BLOCK).mean(axis=1))
        assert parts.max() < 1.05 * 2_317
        assert parts.min() > 0.9 * 2_317

    def test_who_comes_in_the_middle_of_silence_gets_a_packet_at_once(self, hall: Hall) -> None:
        hall.watch("eve")
        hall.run(0.1)
        late = hall.watch("late")
        hall.run(0.02)
        assert late.received[0] is not None

    def test_who_talks_alone_is_sent_next_to_nothing(self, hall: Hall) -> None:
        ada = hall.enter("ada", 440)
        hall.watch("eve")
        hall.run(1)
        before = len(ada.received)
        hall.run(2)
        assert sum(packet is not None for packet in ada.received[before:]) == 10

    def test_nothing_is_encoded_when_nobody_listens(
        self, hall: Hall, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        encoded = []

        def encode(self: OpusEncoder, block: Samples) -> bytes:
            encoded.append(block)
            return b"\xf8"

        hall.enter("ada", 440, listens=False)
        monkeypatch.setattr(OpusEncoder, "encode", encode)
        hall.run(1)
        assert not encoded
        assert hall.shared is None
        assert hall.speaking == {"ada"}

    def test_only_the_heard_are_decoded(self, hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
        decoded = []
        decode = OpusDecoder.decode

        def count(self: OpusDecoder, packet: bytes, out: Pcm) -> int:
            decoded.append(packet)
            return decode(self, packet, out)

        for i in range(10):
            hall.enter(f"p{i}", 440, listens=False, level=20 if i < 2 else 90)
        hall.run(1)
        monkeypatch.setattr(OpusDecoder, "decode", count)
        hall.run(1)
        assert len(decoded) == pytest.approx(2 * 50, abs=4)


class TestTheThread:
    def test_it_ticks_by_the_clock_and_ends_when_told(self) -> None:
        clock, metrics = FakeClock(), Metrics()
        blocks: list[int] = []
        mixer = AudioMixer(AudioConfig(), clock, metrics, lambda *_: blocks.append(1))
        mixer.start()
        for _ in range(10):
            made = len(blocks)
            clock.advance(ms=20)
            wait_until(lambda made=made: len(blocks) > made)  # type: ignore[misc]
        mixer.stop()
        mixer.join()
        assert not mixer.alive

    def test_short_lateness_is_made_up_for_and_long_lateness_is_skipped(self) -> None:
        clock, metrics = FakeClock(), Metrics()
        stamps: list[int] = []

        def deliver(shared: EncodedAudio | None, *_: object) -> None:
            stamps.append(0 if shared is None else shared.pts_48k)

        mixer = AudioMixer(AudioConfig(), clock, metrics, deliver)
        mixer.start()
        wait_until(lambda: len(stamps) == 1)
        clock.advance(ms=60)
        wait_until(lambda: len(stamps) == 4)
        mixer.listen("eve")
        clock.advance(ms=2_000)
        wait_until(lambda: len(stamps) == 8)
        mixer.stop()
        mixer.join()
        assert stamps[4] == (3 + 96 + 1) * BLOCK
        text = metrics.render().decode()
        assert 'calliope_skipped_ticks_total{kind="audio"} 96.0' in text

    def test_a_fault_in_one_block_does_not_end_the_sound(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, metrics = FakeClock(), Metrics()
        calls: list[int] = []

        def deliver(*_: object) -> None:
            calls.append(1)
            if len(calls) < 3:
                raise RuntimeError("a fault")

        mixer = AudioMixer(AudioConfig(), clock, metrics, deliver)
        with caplog.at_level(logging.ERROR):
            mixer.start()
            for _ in range(5):
                made = len(calls)
                clock.advance(ms=20)
                wait_until(lambda made=made: len(calls) > made)  # type: ignore[misc]
            mixer.stop()
            mixer.join()
        assert len(caplog.records) == 1
        assert 'calliope_drops_total{queue="audio_mix",why="error"} 2.0' in (
            metrics.render().decode()
        )

    def test_a_mixer_that_never_started_can_be_stopped(self, hall: Hall) -> None:
        hall.mixer.stop()
        hall.mixer.join()
        assert not hall.mixer.alive

    def test_only_voices_can_be_added(self, hall: Hall) -> None:
        class Sink:
            def push(self, packet: AudioPacket) -> None: ...

        with pytest.raises(TypeError, match="Voice"):
            hall.mixer.add("ada", Sink())
