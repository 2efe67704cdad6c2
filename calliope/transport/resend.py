"""Packets sent to one viewer once more: those it lacks, and as padding those it has (RFC 4588)."""

from __future__ import annotations

import asyncio
import random
import struct
from collections import Counter

from calliope.clock import NS_PER_S
from calliope.metrics import Metrics
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.header import HEADER, PACKET_OVERHEAD, Extensions
from calliope.transport.history import History

RESEND_BUDGET = 200
"""Packets sent again to one viewer in one second, at most: NACKs cannot make us a flood."""
TWICE_LOSS = 0.02
TWICE_S = 0.01
"""Where more than this gets lost, what is sent again follows once more a moment later: a browser
asks for it a second time only after 100 ms, and what got lost twice stops the picture."""
RESEND_SHARE = 0.5
RESEND_BITS = 9600
"""On a narrow link, what is sent again takes at most this share of its pace, counted in packets of
so many bits."""

_SEQUENCE = struct.Struct("!H")


class Resender:
    """Sends again out of ``history``. Nothing happens before :meth:`start` or after :meth:`stop`.

    ``bytes`` counts all of that, as it is on the network.
    """

    def __init__(self, metrics: Metrics, history: History) -> None:
        self.bytes = 0
        self._drops = metrics.drops
        self._history = history
        self._sender: MediaSender | None = None
        self._extensions: Extensions
        self._rtx_sequence = random.getrandbits(15)
        self._allowance = float(RESEND_BUDGET)
        self._earned_ns = 0
        self._twice: list[int] = []  # sent again, and soon once more
        self._timer: asyncio.TimerHandle | None = None

    def start(self, sender: MediaSender, extensions: Extensions) -> None:
        """Send through this from now on."""
        self._sender, self._extensions = sender, extensions

    def stop(self) -> None:
        """Send nothing any more; harmless when repeated."""
        self._sender = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._twice.clear()

    def answer(self, lost: list[int], loss: float, pace_bps: int | None) -> None:
        """Send again what was asked for and may be.

        ``loss`` is the share that this viewer loses, ``pace_bps`` what its link carries (None: it
        is not narrow).
        """
        sender = self._sender
        if sender is None:
            return
        now_ns = sender.timeline.now_ns()
        budget = float(RESEND_BUDGET)
        if pace_bps is not None:
            budget = min(budget, RESEND_SHARE * pace_bps / RESEND_BITS)
        earned = (now_ns - self._earned_ns) * budget / NS_PER_S
        self._allowance = min(budget, self._allowance + earned)
        self._earned_ns = now_ns
        block = self._extensions.write(sender.timeline.ntp_now())
        # On a link that is lossy, not narrow: there is allowance to spare.
        doubtful = loss > TWICE_LOSS and self._allowance > budget / 2
        refused: Counter[str] = Counter()
        for sequence in lost:  # 6,000 of them fit into one datagram: refusing must be cheap
            number = sequence & 0xFFFF
            if not self._history.holds(number):
                refused["resend_gone"] += 1
                continue
            if self._allowance < 1:
                refused["resend_budget"] += 1
                break
            if not self._history.may_resend(number, now_ns):
                refused["resend_limit"] += 1
                continue
            self._allowance -= 1
            self._send(sender, number, block)
            if doubtful:
                self._twice.append(number)
        if self._twice and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TWICE_S, self._send_twice)
        for why, count in refused.items():
            self._drops.labels(queue="video_out", why=why).inc(count)

    def send_again(self, number: int) -> int:
        """Send once more what was sent under this number; its size in bytes, 0 when stopped."""
        sender = self._sender
        if sender is None:
            return 0
        return self._send(sender, number, self._extensions.write(sender.timeline.ntp_now()))

    def _send_twice(self) -> None:
        """Send once more what was just sent again, without being asked."""
        self._timer = None
        numbers, self._twice = self._twice, []
        sender = self._sender
        if sender is None:
            return
        block = self._extensions.write(sender.timeline.ntp_now())
        for number in numbers:
            if self._history.holds(number) and self._allowance >= 1:
                self._allowance -= 1
                self._send(sender, number, block)

    def _send(self, sender: MediaSender, number: int, block: bytes) -> int:
        timestamp, marker, payload = self._history.find(number)
        kind, ssrc = sender.payload_type, sender.ssrc
        if sender.rtx_payload_type is not None:
            payload = _SEQUENCE.pack(number) + payload
            kind, number, ssrc = sender.rtx_payload_type, self._rtx_sequence, sender.rtx_ssrc
            self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        header = HEADER.pack(self._extensions.first_byte, kind, number, timestamp, ssrc)
        sender.media_transport.send_rtp(header + block, number, (payload,), ends_frame=marker)
        size = len(payload) + PACKET_OVERHEAD
        self.bytes += size
        return size
