"""What the server counts: Prometheus metrics in one registry, handed to whoever counts.

Aggregates only: no room, name or id is ever a label.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_TICK_BUCKETS_S = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.033, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip
_SHARE_BUCKETS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
_DELAY_BUCKETS_S = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.08, 0.12, 0.2, 0.4, 0.8)


class Metrics:
    """Every metric of one server; build one per server, share it with all its parts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.rooms = Gauge("calliope_rooms", "Rooms open now", registry=r)
        self.sessions = Gauge("calliope_sessions", "Sessions by role", ["role"], registry=r)
        self.viewers = Gauge(
            "calliope_viewers", "Sessions that are sent a picture, by rendition", ["rendition"],
            registry=r,
        )  # fmt: skip
        self.moves = Counter(
            "calliope_rendition_moves", "Viewers moved to another rendition", ["direction"],
            registry=r,
        )  # fmt: skip
        self.joins = Counter("calliope_joins", "Sessions that connected", registry=r)
        self.refusals = Counter(
            "calliope_refusals", "Requests refused, by problem code", ["code"], registry=r
        )
        self.drops = Counter(
            "calliope_drops",
            "What a bounded queue or a check dropped",
            ["queue", "why"],
            registry=r,
        )
        self.compose_s = Histogram(
            "calliope_compose_seconds",
            "Composition of one canvas",
            buckets=_TICK_BUCKETS_S,
            registry=r,
        )
        self.encode_s = Histogram(
            "calliope_encode_seconds", "Encoding of one frame of one rendition",
            buckets=_TICK_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.frame_age_s = Histogram(
            "calliope_frame_age_seconds", "Age of a camera's frame when it is composed",
            buckets=_TICK_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.ticks = Counter("calliope_ticks", "Mixer ticks run", ["kind"], registry=r)
        self.late_ticks = Counter(
            "calliope_late_ticks", "Ticks that began over 5 ms late", ["kind"], registry=r
        )
        self.skipped_ticks = Counter(
            "calliope_skipped_ticks", "Ticks passed over to catch up", ["kind"], registry=r
        )
        self.loop_lag_s = Histogram(
            "calliope_loop_lag_seconds", "How late the event loop calls a timer",
            buckets=_TICK_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.keyframes = Counter("calliope_keyframes", "Keyframes encoded", registry=r)
        self.encoded_bytes = Counter("calliope_encoded_bytes", "Video bytes encoded", registry=r)
        self.first_frame_s = Histogram(
            "calliope_first_frame_seconds", "From the offer to the first video frame sent",
            buckets=(0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0, 5.0), registry=r,
        )  # fmt: skip
        self.loss_share = Histogram(
            "calliope_loss_share",
            "Share of a stream's packets lost between two receiver reports: in from senders, out"
            " to viewers",
            ["direction"], buckets=_SHARE_BUCKETS, registry=r,
        )  # fmt: skip
        self.round_trip_s = Histogram(
            "calliope_round_trip_seconds", "Round trip to a viewer and back, by its reports",
            buckets=_DELAY_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.probes = Counter(
            "calliope_probes", "Calls of the server with itself, by how they ended", ["result"],
            registry=r,
        )  # fmt: skip
        self.glass_to_glass_s = Histogram(
            "calliope_glass_to_glass_seconds",
            "Probes: from a picture's leaving its sender to its arrival, composed, at another",
            buckets=_DELAY_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.sound_delay_s = Histogram(
            "calliope_sound_delay_seconds", "Probes: likewise for sound, mixed",
            buckets=_DELAY_BUCKETS_S, registry=r,
        )  # fmt: skip
        self.lip_sync_s = Histogram(
            "calliope_lip_sync_seconds",
            "Probes: how far picture and sound are apart at playout, by the sender reports",
            buckets=_DELAY_BUCKETS_S, registry=r,
        )  # fmt: skip

    def render(self) -> bytes:
        """The Prometheus text of everything above."""
        return generate_latest(self.registry)
