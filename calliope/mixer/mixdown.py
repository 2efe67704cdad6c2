"""Sums voices into mixes and limits each: the arithmetic of the audio mixer, in one call a tick.

One call and not a dozen small NumPy ones, because each gives the GIL away (NumPy does so from 500
elements on) and may wait up to the switch interval to get it back.

The limiter looks 2.5 ms ahead. Sound is held back by one grain (120 samples); between two grains
stands a node, the gain that both can bear; within a grain the gain runs straight from node to
node. Both ends suit the grain, so nothing in it can pass the ceiling, and no gain ever jumps. Up
again it goes slowly (full scale in 250 ms).
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from calliope.jit import kernel
from calliope.media import AUDIO_BLOCK_SAMPLES
from calliope.mixer.opus import GRAIN_SAMPLES, Pcm, Samples

CEILING = 0.891
"""What no mixed sample exceeds: -1 dBFS; the rest is for the codec's own overshoot."""
_RELEASE_PER_GRAIN = 0.01


class Mixdown:
    """A bank of ``rows`` mixes over ``slots`` voices; a mix has a gain for every voice.

    Who calls fills ``blocks`` and ``targets`` and calls :meth:`run`; every array is owned here and
    overwritten by the next run. Gains go from ``gains`` to ``targets`` in a straight line over
    the block, so setting a target is enough to fade a voice in or out without a click.
    """

    def __init__(self, slots: int, rows: int) -> None:
        self.blocks: Pcm = np.zeros((slots, AUDIO_BLOCK_SAMPLES), np.int16)
        """(slots, 960): one block of each voice."""
        self.gains: Samples = np.zeros((rows, slots), np.float32)
        """(rows, slots): each mix's gains as the last run left them."""
        self.targets: Samples = np.zeros((rows, slots), np.float32)
        """(rows, slots): the gains to reach at the end of the next block."""
        self.mixes: Samples = np.zeros((rows, AUDIO_BLOCK_SAMPLES), np.float32)
        """(rows, 960): the results, 2.5 ms late."""
        self.peaks: Samples = np.zeros(rows, np.float32)
        """(rows,): the largest magnitude in each result; 0 is digital silence."""
        self.powers: Samples = np.zeros(slots, np.float32)
        """(slots,): mean square of each block before any gain, full scale 1.0."""
        self._held_back: Samples = np.zeros((rows, GRAIN_SAMPLES), np.float32)
        self._limits: Samples = np.ones((rows, 2), np.float32)

    def run(self, rows: npt.NDArray[np.int64]) -> None:
        """Mix the given rows (unique row numbers); the others keep what they had."""
        mix_blocks(
            self.blocks,
            self.gains,
            self.targets,
            rows,
            self._held_back,
            self._limits,
            self.mixes,
            self.peaks,
            self.powers,
        )

    def copy_row(self, source: int, target: int) -> None:
        """Let mix ``target`` go on exactly where ``source`` is."""
        self.gains[target] = self.gains[source]
        self._held_back[target] = self._held_back[source]
        self._limits[target] = self._limits[source]

    def clear_slot(self, slot: int) -> None:
        """Make a slot ready for another voice: silent, and at gain 0 in every mix."""
        self.blocks[slot] = 0
        self.gains[:, slot] = 0.0
        self.targets[:, slot] = 0.0


_F1, _F2 = numba.float32[::1], numba.float32[:, ::1]


@kernel(
    signature=numba.void(numba.int16[:, ::1], _F2, _F2, numba.int64[::1], _F2, _F2, _F2, _F1, _F1),
    fastmath=True,  # sums and maxima in lanes; the blocks are integers, so there is no NaN
)
def mix_blocks(
    blocks: Pcm,
    gains: Samples,
    targets: Samples,
    rows: npt.NDArray[np.int64],
    held_back: Samples,
    limits: Samples,
    mixes: Samples,
    peaks: Samples,
    powers: Samples,
) -> None:
    """One block of every mix in ``rows``; shapes as in :class:`Mixdown`.

    ``held_back`` (rows, 120) is the grain not yet given out, ``limits`` (rows, 2) the gain it
    begins with and the most it can bear.
    """
    slots, samples = blocks.shape
    voices = np.empty((slots, samples), np.float32)
    for slot in range(slots):
        power = np.float32(0.0)
        for i in range(samples):
            value = np.float32(blocks[slot, i]) * np.float32(1.0 / 32_768.0)
            voices[slot, i] = value
            power += value * value
        powers[slot] = power / np.float32(samples)
    late = np.empty(samples + GRAIN_SAMPLES, np.float32)  # the grain held back, then the block
    for row in rows:
        late[:GRAIN_SAMPLES] = held_back[row]
        late[GRAIN_SAMPLES:] = np.float32(0.0)
        for slot in range(slots):
            gain = gains[row, slot]
            step = (targets[row, slot] - gain) / np.float32(samples)
            gains[row, slot] = targets[row, slot]
            if gain != 0.0 or step != 0.0:
                for i in range(samples):
                    late[GRAIN_SAMPLES + i] += voices[slot, i] * (gain + step * np.float32(i))
        held_back[row] = late[samples:]
        gain, bearable = limits[row, 0], limits[row, 1]
        peak = np.float32(0.0)
        for first in range(0, samples, GRAIN_SAMPLES):
            loudest = np.float32(0.0)
            for i in range(first + GRAIN_SAMPLES, first + 2 * GRAIN_SAMPLES):
                loudest = max(loudest, abs(late[i]))
            bearable_next = np.float32(1.0)
            if loudest > CEILING:
                bearable_next = np.float32(CEILING) / loudest
            node = min(bearable, bearable_next, gain + np.float32(_RELEASE_PER_GRAIN))
            slope = (node - gain) / np.float32(GRAIN_SAMPLES)
            for i in range(GRAIN_SAMPLES):
                value = late[first + i] * (gain + slope * np.float32(i))
                mixes[row, first + i] = value
                peak = max(peak, abs(value))
            gain, bearable = node, bearable_next
        limits[row, 0], limits[row, 1] = gain, bearable
        peaks[row] = peak
