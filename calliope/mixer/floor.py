"""Who is heard and who counts as speaking, decided from loudness alone, 50 times a second.

The floor has a few places. Whoever becomes audible takes a free one at once; with none free only
somebody clearly louder than the quietest who has one. Loudness is held and sinks by 1 dB a
block (50 dB a second), so a breath between two words costs nobody the place; a second of quiet
does.
"""

from __future__ import annotations

from collections.abc import Mapping

from calliope.mixer.voice import SILENCE_DBOV

AUDIBLE_DBOV = -60.0
"""Quieter than this is a room's noise, not worth a place in the mix."""
SPEECH_DBOV = -50.0
"""Louder than this is taken for speech in the ``speaking`` message."""

_LEAD_DB = 6.0
_SINK_DB = 1.0
_HANGOVER_BLOCKS = 50
_SPEAKING_AFTER_BLOCKS = 3
_SPEAKING_FOR_BLOCKS = 30


class _Claim:
    """What the floor remembers of one voice."""

    __slots__ = ("asleep", "held_dbov", "loud_blocks", "since_audible", "since_speech")

    def __init__(self) -> None:
        self.held_dbov = SILENCE_DBOV
        self.since_audible = _HANGOVER_BLOCKS
        self.loud_blocks = 0
        self.since_speech = _SPEAKING_FOR_BLOCKS
        self.asleep = True
        """Quiet for so long that nothing changes while it stays so."""

    def hear(self, dbov: float) -> None:
        self.held_dbov = max(dbov, self.held_dbov - _SINK_DB)
        self.since_audible = 0 if dbov >= AUDIBLE_DBOV else self.since_audible + 1
        self.loud_blocks = self.loud_blocks + 1 if dbov >= SPEECH_DBOV else 0
        self.since_speech += 1
        if self.loud_blocks >= _SPEAKING_AFTER_BLOCKS:
            self.since_speech = 0
        self.asleep = self.since_audible > _HANGOVER_BLOCKS and self.held_dbov <= AUDIBLE_DBOV


class Floor:
    """Gives at most ``places`` voices a place in the mix."""

    def __init__(self, places: int) -> None:
        self.heard: set[str] = set()
        """The ids that have a place now."""
        self.speaking: frozenset[str] = frozenset()
        """The ids that speak: on after 60 ms of speech, off after 600 ms without."""
        self._places = places
        self._claims: dict[str, _Claim] = {}

    def hear(self, loudness: Mapping[str, float]) -> None:
        """One block: the loudness in dBov of everybody who may be heard.

        Who is missing (muted, gone) loses place and claim at once.
        """
        claims = self._claims
        if claims.keys() != loudness.keys():
            claims = {id: claims.get(id) or _Claim() for id in loudness}
            self._claims = claims
            self.heard &= claims.keys()
        speaking, candidates, heard = [], [], self.heard
        for id, dbov in loudness.items():
            claim = claims[id]
            if dbov < AUDIBLE_DBOV and claim.asleep:
                continue
            claim.hear(dbov)
            if claim.since_speech < _SPEAKING_FOR_BLOCKS:
                speaking.append(id)
            if id in heard:
                if claim.since_audible >= _HANGOVER_BLOCKS:
                    heard.discard(id)
            elif not claim.since_audible:
                candidates.append(id)
        if candidates:
            self._seat(candidates)
        if len(speaking) != len(self.speaking) or not self.speaking.issuperset(speaking):
            self.speaking = frozenset(speaking)

    def _seat(self, candidates: list[str]) -> None:
        held = {id: claim.held_dbov for id, claim in self._claims.items()}
        for id in sorted(candidates, key=held.__getitem__, reverse=True):
            if len(self.heard) >= self._places:
                quietest = min(self.heard, key=held.__getitem__)
                if held[id] < held[quietest] + _LEAD_DB:
                    return
                self.heard.discard(quietest)
            self.heard.add(id)
