"""Who is the main speaker: a pure function of who speaks and since when, free of flicker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calliope.clock import NS_PER_S

HOLD_NS = 2 * NS_PER_S
"""Whoever became the main speaker stays it at least so long."""
CLAIM_NS = NS_PER_S
"""A cough or a "yes" is shorter: only whoever has spoken on for so long takes the lead."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The main speaker (None before the first word) and since when, in clock nanoseconds."""

    id: str | None = None
    since_ns: int = 0


def follow(lead: Lead, speaking_since: Mapping[str, int], now_ns: int) -> Lead:
    """The main speaker now. ``speaking_since`` holds who speaks, and when each began.

    The first to speak leads at once. From then on the lead passes only from somebody who is silent
    to somebody who has spoken on for CLAIM_NS, the longest first, and not within HOLD_NS of the
    last change. The same ``lead`` comes back while nothing changes.
    """
    if lead.id in speaking_since or not speaking_since:
        return lead
    id, began_ns = min(speaking_since.items(), key=lambda item: (item[1], item[0]))
    too_soon = now_ns - lead.since_ns < HOLD_NS or now_ns - began_ns < CLAIM_NS
    if lead.id is not None and too_soon:
        return lead
    return Lead(id, now_ns)
