"""One participant's voice: Opus packets in as the network brings them, 20 ms blocks out.

Everything is measured on the sender's own timeline, unwrapped timestamps at 48 kHz::

      played            made, waiting        waiting, still encoded
    ---------- head ================== made [ packet ][ packet ]    [ packet ]
                                                                ^ a hole

*head* is the next sample to play, *made* the end of what was decoded or made up. Every tick moves
head on by 20 ms, so the timeline of a sender who pauses (DTX) runs on in silence and his next
packet falls into its place. Three rules make the buffer adapt, without a model of the network:

* **A hole moves on, hunger waits.** A missing packet with a newer one behind it is concealed (FEC
  from the newer one, else PLC) and when it comes after all it is late. With nothing newer nobody
  knows whether it is lost, late or not sent: something is made up that fades within 60 ms, and if
  the packet then comes, head goes back to it. So delay grows exactly when it must.
* **What is always left over is too much.** The least that stayed buffered in 2 s of sound, less a
  margin, is delay without use. It is cut out in a quiet moment, or else where the waveform repeats
  (one pitch period, cross-faded). The margin starts at 20 ms, grows with every packet that came
  too late and shrinks while none does.
* **A bound.** Over about 160 ms the oldest packets go at once, counted.

A voice that is not in the mix is not decoded: :meth:`Voice.skip_block` moves the timeline on and
keeps the last two packets, with which the decoder is warmed up when the voice is wanted.

Threads: :meth:`Voice.push` belongs to the event loop, everything else to the audio mixer; between
them is one bounded deque.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from typing import NamedTuple

import numpy as np

from calliope.media import AUDIO_BLOCK_SAMPLES, AudioPacket
from calliope.metrics import Metrics
from calliope.mixer.opus import (
    DTX_PACKET_BYTES,
    GRAIN_SAMPLES,
    PACKET_SAMPLES_MAX,
    OpusDecoder,
    OpusError,
    Pcm,
    packet_samples,
)

SILENCE_DBOV = -127.0
"""The quietest loudness there is (RFC 6464)."""

_BLOCK = AUDIO_BLOCK_SAMPLES
_INBOX_PACKETS = 64
_SAMPLES_PER_MS = 48
_MARGIN_MIN, _MARGIN_START, _MARGIN_MAX = (ms * _SAMPLES_PER_MS for ms in (10, 20, 80))
_MARGIN_GROWS, _MARGIN_SHRINKS = 10 * _SAMPLES_PER_MS, 120
_DEEP = 160 * _SAMPLES_PER_MS
_FADE_BEGINS, _FADE_ENDS = _BLOCK, 3 * _BLOCK
_RISE = 240
_WINDOW_BLOCKS = 100
_CUT_MIN, _CUT_MAX, _CUT_OVERLAP = 240, 720, 240
_CUT_LIKENESS = 0.7
_CUT_PATIENCE_WINDOWS = 3
_QUIET_PEAK = 100
_RESTART_AFTER_LATE = 5


class _Chunk(NamedTuple):
    """One packet on the unwrapped timeline; sorts by where it starts."""

    start: int
    end: int
    data: bytes
    dbov: float | None


class Voice:
    """A participant's microphone on its way into the mix (a :class:`~calliope.media.AudioSink`)."""

    must_decode: bool
    """Whether only decoding tells how loud this voice is (no levels, or untrue ones)."""

    # All counted in samples of the sender's timeline.
    _head: int  # the next sample to play
    _made: int  # the end of what was decoded or made up
    _filled: int  # how much of that waits in _pcm; when decoding, _made - _head
    _made_up: int  # how much was made up in a row
    _hungry: int  # how much of that because nothing newer had come: head may go back so far
    _margin: int  # what should always stay buffered
    _surplus: int  # what always did, beyond the margin: to be cut out
    _stretch: int  # what to make up in addition in the next hole, to let reordered packets in
    _least_spare: int

    def __init__(self, metrics: Metrics) -> None:
        self._dropped = {
            why: metrics.drops.labels(queue="audio_in", why=why)
            for why in ("overflow", "garbage", "duplicate", "late", "deep")
        }
        self._decoder = OpusDecoder()
        self._inbox: deque[AudioPacket] = deque()
        self._waiting: list[_Chunk] = []
        self._recent: deque[_Chunk] = deque(maxlen=2)
        self._pcm: Pcm = np.zeros(2 * PACKET_SAMPLES_MAX + 2 * _BLOCK, np.int16)
        self._block: Pcm = np.zeros(_BLOCK, np.int16)
        self._trust_levels = True
        self._deaf = False
        self.concealed_samples = 0
        """How much was made up for lost or late packets (not for a sender's pauses)."""
        self._begin(0)
        self._begun = False

    def push(self, packet: AudioPacket) -> None:
        """Take a packet in; never blocks. Called on the event loop."""
        if len(self._inbox) >= _INBOX_PACKETS:
            self._dropped["overflow"].inc()
        else:
            self._inbox.append(packet)

    def peek(self, now_ns: int) -> float:
        """Take in what arrived; the loudness in dBov of what plays in this block and the next.

        From the packets' own RFC 6464 levels; where they have none, of the last block decoded.
        """
        if self._inbox:
            self._take_in(now_ns)
        if not self._begun:
            return SILENCE_DBOV
        loudest = self.loudness_dbov
        soon = self._head + 2 * _BLOCK
        for chunk in self._waiting:
            if chunk.start >= soon:
                break
            if chunk.dbov is not None and chunk.dbov > loudest:
                loudest = chunk.dbov
        return loudest

    @property
    def loudness_dbov(self) -> float:
        """The loudness of the block given out last, as said by the sender or else measured."""
        return self._dbov if self._hungry < _BLOCK else SILENCE_DBOV

    @property
    def buffered_ms(self) -> float:
        """How much sound waits here: the delay this voice has from us, besides its next block."""
        end = self._waiting[-1].end if self._waiting else self._made
        return max(0, end - self._head) / _SAMPLES_PER_MS

    def distrust_levels(self) -> None:
        """From now on measure: the sender's levels were found to be untrue."""
        self._trust_levels = False

    def pull_block(self, now_ns: int) -> Pcm | None:
        """The next 20 ms, (960,) int16, valid until the next call; None for silence."""
        if self._inbox:
            self._take_in(now_ns)
        if not self._begun:
            return None
        if self._cold:
            self._warm_up()
        if self._surplus >= _CUT_MIN:
            self._shorten()
        self._fill(_BLOCK)
        silent = self._made_up >= _FADE_ENDS + _BLOCK
        self._block[:] = self._pcm[:_BLOCK]
        self._consume(_BLOCK)
        if self.must_decode:
            self._dbov = SILENCE_DBOV if silent else _measure(self._block)
        self._learn()
        return None if silent else self._block

    def skip_block(self, now_ns: int) -> None:
        """Let 20 ms go by unheard and undecoded."""
        if self._inbox:
            self._take_in(now_ns)
        if not self._begun:
            return
        self._cold, self._filled = True, 0
        head = self._head + _BLOCK + self._surplus
        self._head, self._surplus = head, 0
        waiting = self._waiting
        while waiting and waiting[0].start < head:
            self._play(waiting.pop(0))
        if self._made < head:
            self._hungry = 0 if waiting else self._hungry + head - self._made
            self._made = head
        self._learn()

    def deafen(self) -> None:
        """Forget every packet not decoded yet, and all that come until :meth:`restart`."""
        self._deaf = True
        self._inbox.clear()
        self._waiting.clear()
        self._recent.clear()

    def restart(self) -> None:
        """Forget everything; the next packet begins a new timeline."""
        self.deafen()
        self._deaf = self._begun = False

    # --- the timeline

    def _begin(self, head: int) -> None:
        """A new timeline; in silence until its first packet's turn."""
        self._begun = True
        self._head = self._made = head
        self._filled = 0
        self._cold = True
        self._made_up = _FADE_ENDS + _BLOCK
        self._gain = 0.0
        self._hungry = 0
        self._late_in_a_row = 0
        self.must_decode = False
        self._pausing = False
        self._dbov = SILENCE_DBOV
        self._margin = _MARGIN_START
        self._surplus = 0
        self._windows_in_want = 0
        self._open_window()
        self._waiting.clear()
        self._recent.clear()

    def _take_in(self, now_ns: int) -> None:
        inbox, waiting = self._inbox, self._waiting
        while inbox:
            packet = inbox.popleft()
            if self._deaf:
                continue
            samples = packet_samples(packet.data)
            if not samples:
                self._dropped["garbage"].inc()
                continue
            if not self._begun:
                waited = (now_ns - packet.arrived_ns) * _SAMPLES_PER_MS // 1_000_000
                grains = max(0, _MARGIN_START - max(0, waited)) // GRAIN_SAMPLES
                self._begin(packet.timestamp_48k - grains * GRAIN_SAMPLES)
            # The timestamp nearest to what was made last, without its wrap at 2^32.
            made = self._made
            start = made + ((packet.timestamp_48k - made + (1 << 31)) & 0xFFFF_FFFF) - (1 << 31)
            known = packet.level is not None and self._trust_levels
            dbov = -float(packet.level or 0) if known else None
            chunk = _Chunk(start, start + samples, packet.data, dbov)
            if start >= made and (not waiting or start > waiting[-1].start):
                waiting.append(chunk)  # as nearly always
                self._late_in_a_row = 0
            elif not self._place(chunk):
                continue
            if chunk.end - self._head > _DEEP + samples:
                self._bound(samples)

    def _place(self, chunk: _Chunk) -> bool:
        """Put a chunk where it belongs, or count why not; whether it was taken."""
        if chunk.start < self._made:
            lateness = self._made - chunk.start
            if any(played.start == chunk.start for played in self._recent):
                self._dropped["duplicate"].inc()
                return False
            if self._waiting or lateness > self._hungry:
                return self._refuse_late(chunk, lateness)
            self._go_back(lateness)
        self._late_in_a_row = 0
        if any(other.start == chunk.start for other in self._waiting):
            self._dropped["duplicate"].inc()
            return False
        insort(self._waiting, chunk)
        return True

    def _refuse_late(self, chunk: _Chunk, lateness: int) -> bool:
        self._dropped["late"].inc()
        self._late_in_a_row += 1
        if self._late_in_a_row >= _RESTART_AFTER_LATE:
            # Not late but of another time: the sender began anew (a new SSRC, a reset clock).
            self._begin(chunk.start - _MARGIN_START)
            self._waiting.append(chunk)
            return True
        if self._waiting and lateness <= _MARGIN_MAX:
            self._grow_margin()
            self._stretch = min(self._margin, lateness)
        return False

    def _go_back(self, lateness: int) -> None:
        """Hunger was only lateness: play on from where it began, that much later than before."""
        if self._hungry < _WINDOW_BLOCKS * _BLOCK // 2:  # a pause of 1 s says nothing of jitter
            self._grow_margin()
        self._head -= lateness
        self._made -= lateness
        self._hungry = 0
        self._open_window()

    def _grow_margin(self) -> None:
        self._margin = min(_MARGIN_MAX, self._margin + _MARGIN_GROWS)
        self._surplus = 0

    def _bound(self, samples: int) -> None:
        """Keep the depth bounded: drop the oldest packets down to the margin."""
        waiting = self._waiting
        if waiting[-1].end - self._head <= _DEEP + samples:
            return
        while len(waiting) > 1 and waiting[-1].end - waiting[0].start > _BLOCK + self._margin:
            waiting.pop(0)
            self._dropped["deep"].inc()
        self._made = waiting[0].start
        self._head = self._made - self._filled
        self._hungry = 0
        self._open_window()

    def _play(self, chunk: _Chunk) -> None:
        """What decoding and skipping have in common."""
        self._recent.append(chunk)
        self._made = chunk.end
        self._hungry = 0
        self._pausing = len(chunk.data) <= DTX_PACKET_BYTES
        self.must_decode = chunk.dbov is None
        if chunk.dbov is not None:
            self._dbov = chunk.dbov

    # --- samples

    def _fill(self, wanted: int) -> None:
        """Decode, or make up, until ``wanted`` samples are there."""
        while self._filled < wanted:
            missing = wanted - self._filled
            missing += -missing % GRAIN_SAMPLES
            if not self._waiting:
                self._make_up(missing, None)
                self._made += missing
                self._hungry += missing
                continue
            chunk = self._waiting[0]
            hole = chunk.start - self._made
            if hole > 0 and self._stretch:
                self._made -= self._stretch
                self._head -= self._stretch
                hole += self._stretch
                self._stretch = 0
            if hole >= GRAIN_SAMPLES:
                last = hole <= missing
                missing = hole - hole % GRAIN_SAMPLES if last else missing
                self._make_up(missing, chunk.data if last else None)
                self._made += missing
                self._hungry = 0
            else:
                self._decode(self._waiting.pop(0))

    def _decode(self, chunk: _Chunk) -> None:
        self._play(chunk)
        into = self._pcm[self._filled :]
        try:
            # A DTX packet decodes to an echo of what was before it: that fades out instead.
            samples = 0 if self._pausing else self._decoder.decode(chunk.data, into)
        except OpusError:
            self._dropped["garbage"].inc()
            samples = 0
        if samples:
            if self._gain < 1.0:
                _ramp(into[: min(_RISE, samples)], self._gain, 1.0)
                self._gain = 1.0
            self._filled += samples
            self._made_up = 0
        else:
            self._make_up(chunk.end - chunk.start, None)
        self._head = self._made - self._filled

    def _make_up(self, samples: int, following: bytes | None) -> None:
        """Append concealment; what goes on long without news fades to silence."""
        into = self._pcm[self._filled : self._filled + samples]
        begun = self._made_up
        if begun >= _FADE_ENDS:
            into[:] = 0
        else:
            self._decoder.conceal(samples, into, following)
            self.concealed_samples += 0 if self._pausing else samples
            end = self._gain
            if following is None:
                fade = (_FADE_ENDS - begun - samples) / (_FADE_ENDS - _FADE_BEGINS)
                end = min(self._gain, max(0.0, fade))
            if self._gain < 1.0 or end < 1.0:
                _ramp(into, self._gain, end)
            self._gain = end
        self._made_up += samples
        self._filled += samples

    def _consume(self, samples: int) -> None:
        """Move head on over samples that were given out."""
        rest = self._filled - samples
        if rest:
            self._pcm[:rest] = self._pcm[samples : self._filled]
        self._filled = rest
        self._head += samples

    def _warm_up(self) -> None:
        """After skipping: let the decoder hear the last packets, keep what is still to play."""
        self._decoder.reset()
        self._cold, self._filled = False, 0
        self._made_up, self._gain = _FADE_ENDS + _BLOCK, 0.0
        if not self._recent or self._recent[-1].end < self._head - 2 * _BLOCK:
            return
        samples = 0
        for chunk in self._recent:
            try:
                samples = self._decoder.decode(chunk.data, self._pcm)
            except OpusError:
                samples = 0
        self._made_up, self._gain = 0, 1.0
        rest = self._made - self._head
        if 0 < rest <= samples:
            self._pcm[:rest] = self._pcm[samples - rest : samples]
        else:
            rest = max(0, rest)
            self._pcm[:rest] = 0
        self._filled = rest

    # --- the depth

    def _open_window(self) -> None:
        self._window_left = _WINDOW_BLOCKS
        self._least_spare = 1 << 31
        self._stretch = 0

    def _learn(self) -> None:
        """After each block: note what is left, and at a window's end what of it is surplus."""
        if self._hungry:
            return
        spare = (self._waiting[-1].end if self._waiting else self._made) - self._head
        if spare < self._least_spare:
            self._least_spare = spare
        self._window_left -= 1
        if self._window_left:
            return
        surplus = self._least_spare - self._margin
        self._surplus = surplus if surplus >= _CUT_MIN else 0
        self._windows_in_want = self._windows_in_want + 1 if self._surplus else 0
        self._margin = max(_MARGIN_MIN, self._margin - _MARGIN_SHRINKS)
        self._open_window()

    def _shorten(self) -> None:
        """Take surplus delay out of the sound, where it is not heard."""
        span = _BLOCK + _CUT_OVERLAP + min(self._surplus, _CUT_MAX)
        if not self._waiting and self._filled < span:
            return
        while self._filled < span and self._waiting and self._waiting[0].start <= self._made:
            self._decode(self._waiting.pop(0))
        longest = min(self._surplus, _CUT_MAX, self._filled - _BLOCK)
        if longest < _CUT_MIN:
            return
        patient = self._windows_in_want < _CUT_PATIENCE_WINDOWS
        lag = find_cut(self._pcm[: self._filled], longest, _CUT_LIKENESS if patient else -1.0)
        if not lag:
            return
        pcm, rest = self._pcm, self._filled - lag
        into = pcm[lag : lag + _CUT_OVERLAP].copy()
        _ramp(into, 0.0, 1.0)
        _ramp(pcm[:_CUT_OVERLAP], 1.0, 0.0)
        pcm[:_CUT_OVERLAP] += into
        pcm[_CUT_OVERLAP:rest] = pcm[_CUT_OVERLAP + lag : self._filled].copy()
        self._filled = rest
        self._head += lag
        self._surplus -= lag
        if self._surplus < _CUT_MIN:
            self._surplus = 0
            self._windows_in_want = 0
            self._open_window()


def find_cut(pcm: Pcm, longest: int, likeness: float) -> int:
    """How many samples to take out of the start of ``pcm``; 0 if it would be heard.

    ``longest`` when the sound is quiet; else the lag of 5 to 15 ms (up to ``longest``) at which the
    waveform is most like itself, if its correlation there reaches ``likeness``.
    """
    overlap, last = _CUT_OVERLAP, longest + _CUT_OVERLAP
    sound = pcm[:last].astype(np.float32)
    if np.abs(sound).max() < _QUIET_PEAK:
        return longest
    here = sound[:overlap]
    products = np.correlate(sound[_CUT_MIN:last], here, "valid")
    squares = np.concatenate(([0.0], np.cumsum(np.square(sound, dtype=np.float64))))
    energies = squares[_CUT_MIN + overlap :] - squares[_CUT_MIN : last - overlap + 1]
    scale = np.sqrt(np.maximum(energies[: len(products)] * squares[overlap], 1e-12))
    alike = products / scale
    best = int(alike.argmax())
    return _CUT_MIN + best if alike[best] >= likeness else 0


def _ramp(pcm: Pcm, begin: float, end: float) -> None:
    """Scale ``pcm`` in place by a gain that runs straight from ``begin`` to ``end``."""
    ramp = np.linspace(begin, end, len(pcm), dtype=np.float32)
    np.multiply(pcm, ramp, out=pcm, casting="unsafe")


def _measure(block: Pcm) -> float:
    """RMS in dBov, 0 for a full-scale square wave (RFC 6464)."""
    sound = block.astype(np.float32)
    return to_dbov(float(np.dot(sound, sound)) / len(block) / 32_768.0**2)


def to_dbov(power: float) -> float:
    """The loudness of a mean square, 1.0 being a full-scale square wave (RFC 6464)."""
    return max(SILENCE_DBOV, 10.0 * math.log10(power)) if power > 0.0 else SILENCE_DBOV
