"""Opus: libopus itself, for what PyAV's wrapper cannot do.

PyAV decodes and encodes Opus, but neither conceals a lost packet (PLC), nor reads the forward error
correction (FEC) of the next one, nor copies an encoder's state. So libopus is called directly. It
is no new dependency: PyAV's wheels carry it, and a PyAV built against the system's libopus has
loaded that one. Should neither be found, :class:`~calliope.errors.SeamError` says so when the first
voice or mixer is built; there is no second, poorer code path to keep alive.

The calls keep the GIL (``PyDLL``). One takes 40 to 90 us; giving the GIL away nine times a tick
means queueing nine times behind a busy event loop, each time for up to the switch interval (5 ms),
to gain a tenth of a millisecond for the others. Beside a thread of Python busy two thirds of the
time the median tick took 1.9 ms so and 2.8 ms with ``CDLL``.

States live in memory owned by Python, set up with ``opus_*_init``: nothing is ever destroyed by
hand, and a state is copied with ``memmove``, which libopus documents as sufficient.

Sources: RFC 6716 (Opus), https://opus-codec.org/docs/opus_api-1.5/.
"""

from __future__ import annotations

import ctypes
import functools
from pathlib import Path
from typing import TypeAlias

import av
import numpy as np
import numpy.typing as npt

from calliope.errors import MediaError, SeamError
from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ

Pcm: TypeAlias = npt.NDArray[np.int16]
"""Decoded mono sound at 48 kHz, C-contiguous. Integers: no packet can decode to a NaN."""
Samples: TypeAlias = npt.NDArray[np.float32]
"""Mixed mono sound at 48 kHz, C-contiguous, full scale at +-1.0."""

PACKET_SAMPLES_MAX = 5_760
"""The longest packet, 120 ms (RFC 6716, 3.2.5)."""
GRAIN_SAMPLES = 120
"""2.5 ms: every Opus duration, and every concealed one, is a multiple of it."""
SILENCE_PACKET = b"\xf8\xff\xfe"
"""20 ms of digital silence as CELT codes it: a decoder forgets the background noise it knew."""
DTX_PACKET = b"\xf8"
"""A frame without bytes (RFC 6716, 3.1 and 3.2.1): nothing more comes for a while."""
DTX_PACKET_BYTES = 2
"""A packet of at most so many bytes says: silence from here on, nothing follows for a while."""

_FRAME_SAMPLES = (
    *(480, 960, 1_920, 2_880) * 3,  # SILK in three bandwidths: 10, 20, 40, 60 ms
    *(480, 960) * 2,  # hybrid: 10, 20 ms
    *(120, 240, 480, 960) * 4,  # CELT: 2.5, 5, 10, 20 ms
)
"""What a frame of each of the 32 configurations holds (RFC 6716, 3.1)."""
_PACKET_BYTES_MAX = 1_275
_RESTRICTED_LOWDELAY = 2_051
_SET_BITRATE, _SET_COMPLEXITY, _SET_PACKET_LOSS_PERC = 4_002, 4_010, 4_014
_SET_LSB_DEPTH, _RESET_STATE = 4_036, 4_028
_COMPLEXITY = 4
_EXPECTED_LOSS_PERC = 5
_LSB_DEPTH = 12


class OpusError(MediaError):
    """A packet that libopus refuses."""


@functools.cache
def load_library() -> ctypes.PyDLL:
    """The libopus that PyAV uses, else the system's; SeamError when there is neither."""
    package = Path(av.__file__).parent
    folders = (package.parent / "av.libs", package / ".dylibs")  # auditwheel, delocate
    names = [str(path) for folder in folders for path in sorted(folder.glob("*opus*"))]
    for name in (*names, "libopus.so.0", "libopus.0.dylib", "opus.dll"):
        try:
            return _declare(ctypes.PyDLL(name))
        except (OSError, AttributeError):
            continue
    raise SeamError(
        "libopus was not found: neither in PyAV's wheel nor on the system. "
        "Install PyAV from its wheel, or the package libopus0."
    )


def _declare(library: ctypes.PyDLL) -> ctypes.PyDLL:
    address, integer, i32 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int32
    library.opus_encoder_init.argtypes = [address, i32, integer, integer]
    library.opus_decoder_init.argtypes = [address, i32, integer]
    # Variadic: only the fixed arguments are declared, as ctypes asks for (Apple's ARM64).
    library.opus_encoder_ctl.argtypes = [address, integer]
    library.opus_decoder_ctl.argtypes = [address, integer]
    library.opus_encode_float.argtypes = [address, address, integer, address, i32]
    library.opus_decode.argtypes = [
        address, ctypes.c_char_p, i32, address, integer, integer,
    ]  # fmt: skip
    library.opus_strerror.restype = ctypes.c_char_p
    return library


def packet_samples(packet: bytes) -> int:
    """How many samples at 48 kHz a packet holds (RFC 6716, 3.1); 0 if it is no Opus packet."""
    if not packet:
        return 0
    frame, code = _FRAME_SAMPLES[packet[0] >> 3], packet[0] & 3
    if code == 0:
        return frame
    if code < 3:
        return 2 * frame
    samples = frame * (packet[1] & 0x3F) if len(packet) > 1 else 0
    return samples if samples <= PACKET_SAMPLES_MAX else 0


class OpusDecoder:
    """Packets to samples, mono. Not for two threads at once."""

    def __init__(self) -> None:
        self._library = load_library()
        self._state = ctypes.create_string_buffer(self._library.opus_decoder_get_size(1))
        _check(self._library, self._library.opus_decoder_init(self._state, AUDIO_CLOCK_HZ, 1))

    def decode(self, packet: bytes, out: Pcm) -> int:
        """Fill the start of ``out`` and return the samples made; OpusError for a bad packet."""
        return self._run(packet, out.ctypes.data, len(out), fec=0)

    def conceal(self, samples: int, out: Pcm, following: bytes | None = None) -> None:
        """Make up ``samples`` (a multiple of 120) that never came into the start of ``out``.

        ``following``, the packet just after the gap, is searched for forward error correction;
        without any libopus extrapolates what it played last.
        """
        try:
            self._run(following, out.ctypes.data, samples, fec=0 if following is None else 1)
        except OpusError:
            out[:samples] = 0

    def reset(self) -> None:
        """Forget everything heard so far."""
        self._library.opus_decoder_ctl(self._state, _RESET_STATE)

    def _run(self, packet: bytes | None, address: int, room: int, *, fec: int) -> int:
        size = 0 if packet is None else len(packet)
        made = self._library.opus_decode(self._state, packet, size, address, room, fec)
        return _check(self._library, made)


class OpusEncoder:
    """20 ms blocks to packets, mono, at one bitrate. Not for two threads at once.

    Restricted low delay (CELT only), complexity 4: 72 us a block of speech at 32 kbit/s, where
    ``voip`` takes 270, and 400 to 500 with in-band FEC (SILK encodes every block twice). A mix of
    voices is what CELT was made for and SILK was not: two talkers come out within 1.98 dB of
    log-spectral distance against 2.45; complexity 5, 6 and 8 change that by 0.02 dB for 93 to
    131 us. It also looks ahead 2.5 ms, not 6.5. What gets lost on the way to a browser is
    concealed there; the expected loss of 5% makes each packet lean less on the one before.

    A depth of 12 bits makes a block below -72 dBFS a :data:`SILENCE_PACKET`. With the default of 24
    the tail of libopus's own high-pass filter kept it from ever saying so after a sound.
    """

    def __init__(self, kbps: int) -> None:
        self._library = load_library()
        self._size = self._library.opus_encoder_get_size(1)
        self._state = ctypes.create_string_buffer(self._size)
        self._packet = ctypes.create_string_buffer(_PACKET_BYTES_MAX)
        _check(
            self._library,
            self._library.opus_encoder_init(self._state, AUDIO_CLOCK_HZ, 1, _RESTRICTED_LOWDELAY),
        )
        for request, value in (
            (_SET_BITRATE, kbps * 1_000),
            (_SET_COMPLEXITY, _COMPLEXITY),
            (_SET_PACKET_LOSS_PERC, _EXPECTED_LOSS_PERC),
            (_SET_LSB_DEPTH, _LSB_DEPTH),
        ):
            _check(
                self._library,
                self._library.opus_encoder_ctl(self._state, request, ctypes.c_int32(value)),
            )

    def encode(self, block: Samples) -> bytes:
        """One packet from one block of 960 samples."""
        size = self._library.opus_encode_float(
            self._state, block.ctypes.data, AUDIO_BLOCK_SAMPLES, self._packet, _PACKET_BYTES_MAX
        )
        return ctypes.string_at(self._packet, _check(self._library, size))

    def copy_state(self, other: OpusEncoder) -> None:
        """Go on exactly where ``other`` is, so that its listener's decoder notices no change."""
        ctypes.memmove(self._state, other._state, self._size)

    def reset(self) -> None:
        """Forget everything encoded so far; the settings stay."""
        self._library.opus_encoder_ctl(self._state, _RESET_STATE)


def _check(library: ctypes.PyDLL, result: int) -> int:
    if result < 0:
        raise OpusError(library.opus_strerror(result).decode())
    return result
