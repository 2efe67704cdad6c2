"""What a room needs of its mixers, and how it gets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from calliope.media import AudioSink, EncodedAudio
from calliope.mixer.scene import Scene, TickOutput, ViewName

TICKS_WAITING = 16
"""Mixer ticks that may wait for an event loop that stands still: half a second of pictures."""


class Mixing(Protocol):
    """A mixer's thread. ``stop`` returns at once, the thread ends within a tick."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def join(self) -> None: ...
    @property
    def alive(self) -> bool: ...


class VideoMixing(Mixing, Protocol):
    """What a room needs of a video mixer."""

    def show(self, scene: Scene) -> None: ...
    def request_keyframe(self, view: ViewName, rendition: str) -> None: ...


class AudioMixing(Mixing, Protocol):
    """What a room needs of an audio mixer."""

    def new_voice(self) -> AudioSink: ...
    def add(self, id: str, voice: AudioSink) -> None: ...
    def remove(self, id: str) -> None: ...
    def set_muted(self, id: str, muted: bool) -> None: ...
    def set_gain(self, listener_id: str, speaker_id: str, gain: float) -> None: ...
    def listen(self, id: str) -> None: ...
    def unlisten(self, id: str) -> None: ...


AudioDeliver: TypeAlias = Callable[
    [EncodedAudio | None, Mapping[str, EncodedAudio | None], frozenset[str]], None
]


class Mixers(Protocol):
    """Builds a room's mixers; they are not started yet."""

    def video(self, deliver: Callable[[TickOutput], None]) -> VideoMixing: ...
    def audio(self, deliver: AudioDeliver) -> AudioMixing: ...
