"""How far apart picture and sound come out where a viewer plays them."""

from __future__ import annotations

from collections import deque

_KEPT = 10_000


class LipSync:
    """Told what was seen and heard, it says how much later pictures are played than sounds.

    A browser plays together what the sender reports date alike (RFC 3550 section 6.4.1). Each
    ``sent_ns`` is by the clock of who sent it, each ``dated_ns`` by the wall clock that the reports
    carry, None before there was one. How the two clocks are apart is nobody's matter: it is the
    same for picture and sound.
    """

    def __init__(self) -> None:
        self._picture_ns: int | None = None
        self._distances_ms: deque[float] = deque(maxlen=_KEPT)

    @property
    def distances_ms(self) -> tuple[float, ...]:
        """One for each sound since the last mark; above 0 the picture is the later one."""
        return tuple(self._distances_ms)

    def mark(self) -> None:
        """Begin anew from here on."""
        self._distances_ms.clear()

    def see(self, sent_ns: int, dated_ns: int | None) -> None:
        """A picture that left its sender then is dated so."""
        if dated_ns is not None:
            self._picture_ns = dated_ns - sent_ns

    def hear(self, sent_ns: int, dated_ns: int | None) -> None:
        """A sound that left its sender then is dated so: held against the picture seen last."""
        if dated_ns is not None and self._picture_ns is not None:
            self._distances_ms.append((self._picture_ns - (dated_ns - sent_ns)) / 1e6)
