"""Padding beside one viewer's picture, to find out what its link carries."""

from __future__ import annotations

import asyncio

from calliope.clock import NS_PER_S
from calliope.transport.aiortc_seams import MediaSender
from calliope.transport.history import History
from calliope.transport.resend import Resender
from calliope.transport.rtp_stream import RtpStream

PAD_S = 0.02
"""How often padding is sent, while there is any."""
PAD_RECENT = 16
"""Padding repeats the largest of so many packets sent last; older ones confuse receivers."""
PAD_PACKETS = 16
"""Packets of padding sent in one go, at most."""
PAD_REPORT_S = 0.1
"""Sender reports while padding: each lets the round trip be measured again."""


class Padding:
    """Repeats packets just sent, which receivers throw away, at the rate it is told."""

    def __init__(self, stream: RtpStream, history: History, resender: Resender) -> None:
        self._stream = stream
        self._history = history
        self._resender = resender
        self._sender: MediaSender | None = None
        self._bps = 0
        self._credit = 0.0  # bytes that are due
        self._credited_ns = 0
        self._reported_ns = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def possible(self) -> bool:
        """Whether the viewer takes padding: as packets sent again (RFC 4588)."""
        return self._sender is not None and self._sender.rtx_payload_type is not None

    def start(self, sender: MediaSender) -> None:
        """The sender can send."""
        self._sender = sender

    def stop(self) -> None:
        """Send nothing any more; harmless when repeated."""
        self._sender = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def set_rate(self, bps: int) -> None:
        """Send so much from now on; nothing where it is not possible."""
        self._bps = bps if self.possible else 0
        if self._bps and self._timer is None and self._sender is not None:
            self._credited_ns = self._sender.timeline.now_ns()
            self._credit = 0.0
            self._schedule()

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PAD_S, self._send)

    def _send(self) -> None:
        """Send the padding that is due, spread evenly, and come again."""
        self._timer = None
        if self._sender is None or not self._bps:
            return
        now_ns = self._sender.timeline.now_ns()
        self._credit += self._bps * (now_ns - self._credited_ns) / (8 * NS_PER_S)
        self._credited_ns = now_ns
        if now_ns - self._reported_ns >= PAD_REPORT_S * NS_PER_S:
            self._reported_ns = now_ns
            self._stream.report_now()
        number = self._history.largest(PAD_RECENT)
        if number is not None:
            for _ in range(PAD_PACKETS):
                if self._credit <= 0:
                    break
                self._credit -= self._resender.send_again(number)
            else:
                self._credit = 0.0  # small packets only: what is due would never be sent
        self._schedule()
