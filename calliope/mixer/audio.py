"""The audio mixer: one thread a room that gives everybody the others' voices, 50 times a second.

The loudest few voices (floor.py) are decoded (voice.py) and summed (mixdown.py). Who is not among
them hears the *shared* mix, encoded once for all. Who is hears an *own* mix without himself; so
does who set a volume of his own for one of them.

A listener's browser has one Opus decoder, so moving between the shared and an own mix must not
show. Towards the own mix its encoder starts as a copy of the shared one's state. Back again, the
own encoder first goes on for 100 ms with the same input as the shared one, after which the two
states have all but met; if nobody used the shared one, it becomes the copy.

Silence costs next to nothing: once the encoder itself says silence, a mix is no longer encoded.
Every 400 ms two small packets go out. The first is silence: without it browsers fill the pause with
the noise they heard before (Chromium played a tone on at -28 dBFS). The second is a DTX packet,
which tells them that nothing is missing.

A late tick is made up for, up to 60 ms: unlike a missed picture, missed sound would be heard.

Threads: ``add``, ``remove``, ``set_muted``, ``set_gain``, ``listen`` and ``unlisten`` belong to the
event loop; they replace immutable tables which the mixer reads once a tick: nobody ever waits.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from calliope.clock import Clock, Ticker
from calliope.config import AudioConfig
from calliope.media import AUDIO_BLOCK_SAMPLES, AudioSink, EncodedAudio
from calliope.metrics import Metrics
from calliope.mixer.floor import Floor
from calliope.mixer.mixdown import Mixdown
from calliope.mixer.opus import DTX_PACKET, SILENCE_PACKET, OpusEncoder
from calliope.mixer.voice import Voice, to_dbov
from calliope.priority import go_first

_log = logging.getLogger(__name__)

BLOCKS_PER_S = 50

_LATE_NS = 5_000_000
_CATCH_UP_BLOCKS = 3
_OWN_MIXES_FOR_VOLUMES = 24
_CONVERGE_BLOCKS = 5
_SILENCE_PACKETS = 2
_PAUSE_BLOCKS = 20
_VOLUMES_KEPT = 4_096
_HOLLOW_DB = 25.0
_HOLLOW_BLOCKS = 50
_SHARED = 0

Deliver: TypeAlias = Callable[
    [EncodedAudio | None, Mapping[str, EncodedAudio | None], frozenset[str]], None
]
"""Takes (shared, own, speaking), once a block, on the mixer's thread.

``own`` has an entry for every listener with a mix of its own: it gets that and never ``shared``,
None being nothing to send now. Everybody else gets ``shared``, if that is not None.
"""


class _Seat:
    """One voice of the room; ``muted`` is written by the event loop, ``was_muted`` by the mixer."""

    __slots__ = ("muted", "voice", "was_muted")

    def __init__(self, voice: Voice) -> None:
        self.voice = voice
        self.muted = False
        self.was_muted = False


class _Slot:
    """One voice's place in the mixdown; ``leaving`` for the one block in which it fades out."""

    __slots__ = ("hollow_blocks", "id", "leaving", "number", "voice")

    def __init__(self, number: int, id: str, voice: Voice) -> None:
        self.number = number
        self.id = id
        self.voice = voice
        self.leaving = False
        self.hollow_blocks = 0


class _Output:
    """One mix and its encoder."""

    __slots__ = ("converging", "encoder", "paused_blocks", "row", "silence_packets")

    def __init__(self, row: int, kbps: int) -> None:
        self.row = row
        self.encoder = OpusEncoder(kbps)
        self.converging = 0
        self.silence_packets = _SILENCE_PACKETS
        self.paused_blocks = 0

    def follow(self, other: _Output) -> None:
        """Send on as if this had been ``other`` so far."""
        self.encoder.copy_state(other.encoder)
        self.silence_packets = other.silence_packets
        self.paused_blocks = other.paused_blocks

    def begin(self) -> None:
        """Send as to somebody who has heard nothing yet."""
        self.encoder.reset()
        self.silence_packets = _SILENCE_PACKETS
        self.paused_blocks = 0


class AudioMixer:
    """Mixes one room. Built and told on the event loop; ``start`` starts its thread."""

    def __init__(
        self, config: AudioConfig, clock: Clock, metrics: Metrics, deliver: Deliver
    ) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._deliver = deliver
        self._seats: Mapping[str, _Seat] = {}
        self._listeners: frozenset[str] = frozenset()
        self._volumes: Mapping[str, Mapping[str, float]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audio-mixer", daemon=True)
        # From here on the mixer's own.
        self._floor = Floor(config.voices)
        self._slots: list[_Slot] = []
        self._free_slots = list(range(2 * config.voices))
        rows = 1 + len(self._free_slots) + _OWN_MIXES_FOR_VOLUMES
        self._mixdown = Mixdown(len(self._free_slots), rows)
        self._shared = _Output(_SHARED, config.kbps)
        self._shared_in_use = False
        self._own: dict[str, _Output] = {}
        self._without: list[str] = []
        """Who should have an own mix but found no row: silence is better than one's own voice."""
        self._free_outputs: list[_Output] = []
        self._free_rows = list(range(1, rows))
        self._served: frozenset[str] = frozenset()
        self._pts_48k = 0
        self._too_many = metrics.drops.labels(queue="audio_mix", why="too_many")

    # --- for the event loop

    def new_voice(self) -> Voice:
        """A voice to push a participant's packets into; ``add`` brings it into the mix."""
        return Voice(self._metrics)

    def add(self, id: str, voice: AudioSink) -> None:
        """Mix a voice of :meth:`new_voice` as ``id``, not muted, instead of any ``id`` had."""
        if not isinstance(voice, Voice):
            raise TypeError(f"a Voice is mixed, not a {type(voice).__name__}")
        self._seats = {**self._seats, id: _Seat(voice)}

    def remove(self, id: str) -> None:
        """Fade a voice out; harmless when repeated. Volumes set for ``id`` are kept."""
        self._seats = {other: seat for other, seat in self._seats.items() if other != id}

    def set_muted(self, id: str, muted: bool) -> None:
        """No packet that comes while muted is ever mixed, whatever the client sends."""
        if id in self._seats:
            self._seats[id].muted = muted

    def set_gain(self, listener_id: str, speaker_id: str, gain: float) -> None:
        """How loud (0 to 2) one listener hears one speaker; 1 ends the exception."""
        volumes = dict(self._volumes)
        if sum(map(len, volumes.values())) >= _VOLUMES_KEPT:  # forget those who have gone
            volumes = {
                listener: {id: value for id, value in own.items() if id in self._seats}
                for listener, own in volumes.items()
                if listener in self._listeners
            }
        own = {**volumes.get(listener_id, {}), speaker_id: min(2.0, max(0.0, gain))}
        if gain == 1.0:
            del own[speaker_id]
        volumes[listener_id] = own
        self._volumes = {listener: own for listener, own in volumes.items() if own}

    def listen(self, id: str) -> None:
        """Begin to make a mix for ``id``, participant or audience."""
        self._listeners |= {id}

    def unlisten(self, id: str) -> None:
        """No longer make a mix for ``id``; harmless when repeated."""
        self._listeners -= {id}

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end; returns at once, it ends within a tick."""
        self._stopping.set()

    def join(self) -> None:
        """Wait until the thread has ended; at once if it never started."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    # --- the mixer's thread

    def _run(self) -> None:
        go_first()
        metrics = self._metrics
        ticks = metrics.ticks.labels(kind="audio")
        late = metrics.late_ticks.labels(kind="audio")
        skipped = metrics.skipped_ticks.labels(kind="audio")
        failed = metrics.drops.labels(queue="audio_mix", why="error")
        failures = 0
        ticker = Ticker(self._clock, BLOCKS_PER_S)
        while (tick := ticker.wait(self._stopping)) is not None:
            ticks.inc()
            if tick.late_ns > _LATE_NS or tick.skipped:
                late.inc()
            missed = min(tick.skipped, _CATCH_UP_BLOCKS)
            skipped.inc(tick.skipped - missed)
            self._pts_48k += (tick.skipped - missed) * AUDIO_BLOCK_SAMPLES
            for _ in range(1 + missed):
                try:
                    self.tick(self._clock.now_ns())
                except Exception:
                    # A fault in one block must not end the room's sound; said once, then counted.
                    if not failures:
                        _log.exception("A block of sound could not be mixed; going on")
                    failures += 1
                    failed.inc()

    def tick(self, now_ns: int) -> None:
        """Make and deliver one block. The thread calls it; tests may, without a thread."""
        seats, listeners, volumes = self._seats, self._listeners, self._volumes
        self._hear(seats, now_ns)
        self._give_slots(seats)
        self._pull(seats, now_ns)
        self._give_outputs(listeners, volumes)
        self._set_targets(volumes)
        rows = [_SHARED, *(output.row for output in self._own.values())]
        self._mixdown.run(np.array(rows, np.int64))
        self._check_levels()
        self._slots = [slot for slot in self._slots if not self._release_left(slot)]
        self._send(listeners)
        self._pts_48k += AUDIO_BLOCK_SAMPLES

    def _hear(self, seats: Mapping[str, _Seat], now_ns: int) -> None:
        """Take in what arrived and settle who is heard."""
        loudness = {}
        for id, seat in seats.items():
            if seat.muted:
                seat.was_muted = True
                seat.voice.deafen()
            else:
                if seat.was_muted:
                    seat.was_muted = False
                    seat.voice.restart()
                loudness[id] = seat.voice.peek(now_ns)
        self._floor.hear(loudness)

    def _give_slots(self, seats: Mapping[str, _Seat]) -> None:
        heard = self._floor.heard
        for slot in self._slots:
            seat = seats.get(slot.id)
            slot.leaving = slot.id not in heard or seat is None or seat.voice is not slot.voice
        present = {slot.id for slot in self._slots if not slot.leaving}
        for id in heard - present:
            if self._free_slots:
                number = self._free_slots.pop()
                self._mixdown.clear_slot(number)
                self._slots.append(_Slot(number, id, seats[id].voice))

    def _pull(self, seats: Mapping[str, _Seat], now_ns: int) -> None:
        """Decode who is heard (and who must be, to know how loud he is); let the others go by."""
        pulled = set()
        for slot in self._slots:
            block = slot.voice.pull_block(now_ns)
            self._mixdown.blocks[slot.number] = 0 if block is None else block
            pulled.add(slot.voice)
        for seat in seats.values():
            if seat.muted or seat.voice in pulled:
                continue
            if seat.voice.must_decode:
                seat.voice.pull_block(now_ns)
            else:
                seat.voice.skip_block(now_ns)

    def _give_outputs(
        self, listeners: frozenset[str], volumes: Mapping[str, Mapping[str, float]]
    ) -> None:
        """See to it that exactly those whose mix differs from the shared one have their own."""
        heard = {slot.id for slot in self._slots}
        needed = [id for id in heard if id in listeners]
        if heard:
            needed += [
                listener
                for listener, own in volumes.items()
                if listener in listeners and listener not in heard and not heard.isdisjoint(own)
            ]
        for listener, output in list(self._own.items()):
            if listener in needed:
                output.converging = 0
            elif listener not in listeners:
                self._release_output(listener)
            elif not self._shared_in_use:
                self._shared.follow(output)
                self._mixdown.copy_row(output.row, _SHARED)
                self._shared_in_use = True
                self._release_output(listener)
            else:
                output.converging += 1
                if output.converging > _CONVERGE_BLOCKS:
                    self._release_output(listener)
        self._without = []
        # Who only set a volume leaves the places of those who are heard free.
        for_volumes = sum(listener not in heard for listener in self._own)
        for listener in needed:
            if listener in self._own:
                continue
            free = listener in heard or for_volumes < _OWN_MIXES_FOR_VOLUMES
            if free and self._take_output(listener):
                for_volumes += listener not in heard
                continue
            self._too_many.inc()
            if listener in heard:
                self._without.append(listener)
        self._shared_in_use = len(listeners) > len(self._own)

    def _take_output(self, listener: str) -> bool:
        """Go on for one listener where the shared mix is, without his own voice; False if full."""
        if self._free_outputs:
            output = self._free_outputs.pop()
        elif self._free_rows:
            output = _Output(self._free_rows.pop(), self._config.kbps)
        else:
            return False
        self._mixdown.copy_row(_SHARED, output.row)
        for slot in self._slots:
            if slot.id == listener:
                self._mixdown.gains[output.row, slot.number] = 0.0
        if listener in self._served and self._shared_in_use:
            output.follow(self._shared)
        else:
            output.begin()
        output.converging = 0
        self._own[listener] = output
        return True

    def _release_output(self, listener: str) -> None:
        self._free_outputs.append(self._own.pop(listener))

    def _set_targets(self, volumes: Mapping[str, Mapping[str, float]]) -> None:
        targets = self._mixdown.targets
        for slot in self._slots:
            targets[:, slot.number] = 0.0 if slot.leaving else 1.0
        for listener, output in self._own.items():
            own = volumes.get(listener, {})
            for slot in self._slots:
                if slot.id == listener:
                    targets[output.row, slot.number] = 0.0
                elif slot.id in own and not slot.leaving:
                    targets[output.row, slot.number] = own[slot.id]

    def _check_levels(self) -> None:
        """Find out who claims to be loud without being so, and measure him from then on."""
        for slot in self._slots:
            if slot.voice.must_decode:
                continue
            heard_dbov = to_dbov(float(self._mixdown.powers[slot.number]))
            hollow = slot.voice.loudness_dbov - heard_dbov > _HOLLOW_DB
            slot.hollow_blocks = slot.hollow_blocks + 1 if hollow else 0
            if slot.hollow_blocks >= _HOLLOW_BLOCKS:
                slot.voice.distrust_levels()

    def _release_left(self, slot: _Slot) -> bool:
        """Free the slot of a voice that has faded out."""
        if slot.leaving:
            self._mixdown.clear_slot(slot.number)
            self._free_slots.append(slot.number)
        return slot.leaving

    def _send(self, listeners: frozenset[str]) -> None:
        fresh = listeners - self._served if listeners is not self._served else frozenset()
        self._served = listeners
        shared = self._encode(self._shared, bool(fresh)) if self._shared_in_use else None
        own: dict[str, EncodedAudio | None] = dict.fromkeys(self._without)
        for id, output in self._own.items():
            own[id] = self._encode(output, id in fresh)
        self._deliver(shared, own, self._floor.speaking)

    def _encode(self, output: _Output, fresh: bool) -> EncodedAudio | None:
        """The packet of one mix, or None in a pause; at once one for who is fresh."""
        pts_48k, voiced = self._pts_48k, bool(self._mixdown.peaks[output.row] > 0.0)
        if voiced or output.silence_packets < _SILENCE_PACKETS:
            packet = output.encoder.encode(self._mixdown.mixes[output.row])
            silence = not voiced and len(packet) <= len(SILENCE_PACKET)
            output.silence_packets = output.silence_packets + 1 if silence else 0
            output.paused_blocks = 0
            return EncodedAudio(packet, pts_48k, voiced)
        if fresh:
            output.paused_blocks = 0
        step = output.paused_blocks % _PAUSE_BLOCKS
        output.paused_blocks += 1
        if step > 1:
            return None
        return EncodedAudio(DTX_PACKET if step else SILENCE_PACKET, pts_48k, voiced=False)
