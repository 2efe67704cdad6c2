"""An audience member's eyes and ears: decodes what it gets, reads the timecodes, hears the pips.

The picture goes the way of a camera into the server: jitter buffer, retransmissions, decoder
thread, ring. Delays count from a frame's leaving its bot to the arrival of the composed frame that
shows it first; no decoder and no player is in them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import av
import numpy as np

from calliope.bots.lip_sync import LipSync
from calliope.bots.loops import PIP_HZ
from calliope.bots.tally import FREEZE_NS
from calliope.bots.timecode import Place, Reader
from calliope.clock import NS_PER_S, Clock
from calliope.media import (
    AUDIO_BLOCK_SAMPLES,
    AUDIO_CLOCK_HZ,
    AudioPacket,
    Frame,
    FrameSource,
    VideoFeed,
)
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaReceiver
from calliope.transport.jitter import AssembledFrame
from calliope.transport.receiver import AudioIn, VideoIn

_POLL_S = 0.004
_MAX_PIXELS = 2560 * 1600
_DELAYS_MAX = 200_000
_FRAMES_KEPT = 32
"""Frames on their way through the decoder, and some to spare."""
_PIP_SHARE = 0.02
"""A block holds the pip if its tone is at least so large, of full scale."""
_PIP_QUIET_NS = 400_000_000


class Sender(Protocol):
    """What the observer asks of a bot that it sees and hears."""

    def sent_ns(self, number: int) -> int | None:
        """When the frame of this number of its loop left last; None: never."""

    @property
    def pip_ns(self) -> int | None:
        """When its last pip left."""


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen and heard since the last mark; delays in milliseconds, one for each new code.

    ``unread`` counts tiles in which no code could be read, ``read`` the others. ``lip_sync_ms`` is
    how much later than the sound the picture of the same moment is played by who heeds the sender
    reports, one for each pip.
    """

    seconds: float
    frames: int
    freezes: int
    frozen_s: float
    longest_gap_s: float
    read: int
    unread: int
    picture_ms: tuple[float, ...]
    sound_ms: tuple[float, ...]
    lip_sync_ms: tuple[float, ...]


class Observer:
    """Attach both receivers, tell it the layouts, run :meth:`watch` as a task, close it.

    ``find`` gives the bot of a participant id, None for somebody else. ``source`` is the shape of
    the bots' pictures (width, height).
    """

    def __init__(self, clock: Clock, metrics: Metrics, source: tuple[int, int]) -> None:
        self._clock = clock
        self._source = source
        self._picture: FrameSource | None = None
        self._places: tuple[Place, ...] = ()
        self._canvas_width = 1
        self._senders: Mapping[str, Sender] = {}
        self._reader: Reader | None = None
        self._reader_width = 0
        self._serial = 0
        self._shown: dict[str, int] = {}
        self._frame_ns: int | None = None
        decoder = av.CodecContext.create("libopus", "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.sample_rate, decoder.layout, decoder.format = AUDIO_CLOCK_HZ, "mono", "s16"
        self._decoder = decoder
        turns = 2 * np.pi * PIP_HZ / AUDIO_CLOCK_HZ * np.arange(AUDIO_BLOCK_SAMPLES)
        self._tone = np.stack([np.cos(turns), np.sin(turns)]).astype(np.float32)
        self._pip_heard_ns = 0
        self._timestamps: deque[tuple[int, int]] = deque(maxlen=_FRAMES_KEPT)
        self._lip_sync = LipSync()
        self.video = VideoIn(clock, metrics, _MAX_PIXELS, self._take_feed, self._note_frame)
        self.audio = AudioIn(clock, metrics, self)
        self.mark()

    def attach(self, video: MediaReceiver, audio: MediaReceiver | None) -> None:
        """Watch and hear what these receive from now on."""
        self.video.attach(video)
        if audio is not None:
            self.audio.attach(audio)

    def meet(self, senders: Mapping[str, Sender]) -> None:
        """Whose codes and pips are looked for, by participant id; kept, not copied."""
        self._senders = senders

    def take_layout(self, layout: Mapping[str, object]) -> None:
        """Follow a ``layout`` of the protocol."""
        canvas = cast(Sequence[int], layout["canvas"])
        self._canvas_width = canvas[0]
        self._places = tuple(
            _place(tile)
            for tile in cast(Sequence[Mapping[str, object]], layout["tiles"])
            if tile["source"] == "camera"
        )
        self._reader = None

    def mark(self) -> None:
        """Count anew from here on."""
        self._since_ns = self._clock.now_ns()
        self._frames = self._freezes = self._read = self._unread = 0
        self._frozen_ns = self._longest_ns = 0
        self._picture_ms: deque[float] = deque(maxlen=_DELAYS_MAX)
        self._sound_ms: deque[float] = deque(maxlen=_DELAYS_MAX)
        self._lip_sync.mark()

    def sight(self) -> Sight:
        """What was seen and heard since the last mark, an open freeze included."""
        now_ns = self._clock.now_ns()
        begun_ns = self._since_ns if self._frame_ns is None else self._frame_ns
        open_ns = now_ns - max(begun_ns, self._since_ns)
        frozen_ns = open_ns if open_ns > FREEZE_NS else 0
        return Sight(
            seconds=(now_ns - self._since_ns) / NS_PER_S,
            frames=self._frames,
            freezes=self._freezes + (frozen_ns > 0),
            frozen_s=(self._frozen_ns + frozen_ns) / NS_PER_S,
            longest_gap_s=max(self._longest_ns, open_ns) / NS_PER_S,
            read=self._read,
            unread=self._unread,
            picture_ms=tuple(self._picture_ms),
            sound_ms=tuple(self._sound_ms),
            lip_sync_ms=self._lip_sync.distances_ms,
        )

    async def watch(self) -> None:
        """Look at every new picture, until cancelled."""
        while True:
            await asyncio.sleep(_POLL_S)
            frame = self._picture.latest() if self._picture is not None else None
            if frame is not None and frame.serial != self._serial:
                self._serial = frame.serial
                self._look(frame)

    async def close(self) -> None:
        """Take nothing any more and end the decoder's thread."""
        self.audio.close()
        await self.video.close()

    def _take_feed(self, feed: VideoFeed) -> None:
        self._picture = feed.source

    def _note_frame(self, frame: AssembledFrame) -> None:
        """Keep when it came and its RTP time: pictures come out of the decoder without."""
        self._timestamps.append((frame.arrived_ns, frame.timestamp))

    def _dated_ns(self, frame: Frame) -> int | None:
        """When the sender reports date a picture."""
        for arrived_ns, timestamp in reversed(self._timestamps):
            if arrived_ns == frame.arrived_ns:
                return self.video.ntp_ns(timestamp)
        return None

    def _look(self, frame: Frame) -> None:
        now_ns = self._clock.now_ns()
        self._frames += 1
        if self._frame_ns is not None:
            gap_ns = now_ns - max(self._frame_ns, self._since_ns)
            self._longest_ns = max(self._longest_ns, gap_ns)
            if gap_ns > FREEZE_NS:
                self._freezes += 1
                self._frozen_ns += gap_ns
        self._frame_ns = now_ns
        if not self._places:
            return
        if self._reader is None or self._reader_width != frame.width:
            scale = frame.width / self._canvas_width
            self._reader = Reader(self._places, scale, self._source)
            self._reader_width = frame.width
        for place, number in zip(self._places, self._reader.read(frame.y), strict=True):
            sender = self._senders.get(place.id)
            if sender is None:
                continue
            if number is None:
                self._unread += 1
                continue
            self._read += 1
            if self._shown.get(place.id) == number:
                continue
            self._shown[place.id] = number
            sent_ns = sender.sent_ns(number)
            if sent_ns is not None and sent_ns < frame.arrived_ns:
                self._picture_ms.append((frame.arrived_ns - sent_ns) / 1e6)
                if sender.pip_ns is not None:
                    self._lip_sync.see(sent_ns, self._dated_ns(frame))

    # AudioSink

    def push(self, packet: AudioPacket) -> None:
        """Hear one packet of the mix: does a pip begin in it?"""
        try:
            frames = self._decoder.decode(av.Packet(packet.data))
        except av.FFmpegError:
            return
        if not frames:
            return
        block = frames[0].to_ndarray().ravel()[:AUDIO_BLOCK_SAMPLES].astype(np.float32) / 32768
        parts = self._tone[:, : len(block)] @ block
        if 2 * math.hypot(*parts.tolist()) / AUDIO_BLOCK_SAMPLES < _PIP_SHARE:
            return
        quiet_ns = packet.arrived_ns - self._pip_heard_ns
        self._pip_heard_ns = packet.arrived_ns
        if quiet_ns < _PIP_QUIET_NS:
            return
        left = [pip for sender in self._senders.values() if (pip := sender.pip_ns) is not None]
        if left and max(left) < packet.arrived_ns:
            self._sound_ms.append((packet.arrived_ns - max(left)) / 1e6)
            self._lip_sync.hear(max(left), self.audio.ntp_ns(packet.timestamp_48k))


def _place(tile: Mapping[str, object]) -> Place:
    x, y, w, h = (int(cast(int, tile[key])) for key in "xywh")
    return Place(str(tile["id"]), x, y, w, h, crop=tile["fit"] == "crop")
