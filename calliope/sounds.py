"""What each listener of a room hears, and who is shown as speaking."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeAlias

from calliope.clock import Clock
from calliope.mailbox import Mailbox
from calliope.media import EncodedAudio, Post
from calliope.member import Member
from calliope.metrics import Metrics
from calliope.mixer.lead import Lead, follow
from calliope.mixing import TICKS_WAITING, Mixers
from calliope.seat import Seat
from calliope.turns import Turns

AudioOutput: TypeAlias = tuple[
    EncodedAudio | None, Mapping[str, EncodedAudio | None], frozenset[str]
]


class Sounds:
    """Takes the audio mixer's blocks to the listeners among ``members``.

    ``on_speaking`` is called when others among ``seats`` speak than before. Lives on the event
    loop.
    """

    def __init__(
        self,
        members: Collection[Member],
        seats: Mapping[str, Seat],
        turns: Turns,
        clock: Clock,
        metrics: Metrics,
        mixers: Mixers,
        post: Post,
        *,
        on_speaking: Callable[[], None],
    ) -> None:
        self._members = members
        self._seats = seats
        self._turns = turns
        self._clock = clock
        self._skipped = metrics.drops.labels(queue="room_audio", why="loop")
        self._on_speaking = on_speaking
        self.speaking: frozenset[str] = frozenset()
        self._speaking_since: dict[str, int] = {}
        self._lead = Lead()
        box = Mailbox[AudioOutput](
            post,
            lambda output: self._deliver(*output),
            merge=lambda _, newer: newer,
            merged=self._skipped.inc,
            limit=TICKS_WAITING,
        )
        self.mixer = mixers.audio(lambda *output: box.put(output))

    def _deliver(
        self,
        shared: EncodedAudio | None,
        own: Mapping[str, EncodedAudio | None],
        speaking: Iterable[str],
    ) -> None:
        if not self._turns.full:
            self._turns.do(self._send(shared, own))
        else:
            self._skipped.inc()
        ids = frozenset(id for id in speaking if id in self._seats and self._seats[id].listed)
        if ids != self.speaking:
            self._set_speaking(ids)

    def _send(
        self, shared: EncodedAudio | None, own: Mapping[str, EncodedAudio | None]
    ) -> Iterator[None]:
        for member in tuple(self._members):
            if member.is_connected and member.receives_audio and not member.left:
                packet = own.get(member.seat.id, shared)
                if packet is not None:
                    member.outlet.send_audio(packet)
            yield

    def _set_speaking(self, ids: frozenset[str]) -> None:
        now_ns = self._clock.now_ns()
        for id in ids ^ self.speaking:
            if (seat := self._seats.get(id)) is not None:
                seat.speaking = id in ids
                seat.spoke_ns = now_ns
        self.speaking = ids
        self._speaking_since = {id: self._speaking_since.get(id, now_ns) for id in ids}
        self.follow_lead()
        self._on_speaking()

    def follow_lead(self) -> None:
        """Let the main speaker follow who speaks; the next scene shows it."""
        before = self._lead if self._lead.id in self._seats else Lead()
        # who left in the midst of a word speaks on until the mixer has fallen silent
        present = {id: at for id, at in self._speaking_since.items() if id in self._seats}
        self._lead = follow(before, present, self._clock.now_ns())
        if self._lead is not before and self._lead.id is not None:
            self._seats[self._lead.id].led_ns = self._lead.since_ns
