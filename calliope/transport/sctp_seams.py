"""A bound on what a data channel's peer can make us hold: the one seam into aiortc's SCTP.

Symptom: a peer that sends the beginnings of messages and never their ends fills the memory, and
every further fragment takes longer. Cause: aiortc announces a receive window and does not keep to
it, and reassembly has no bound. It goes when aiortc drops what is beyond its window.
"""

from __future__ import annotations

from aiortc import RTCSctpTransport
from aiortc.rtcsctptransport import DataChunk, InboundStream

from calliope.transport.aioice_seams import Drop, require_names, require_use

CHUNKS_MAX = 1024
"""Fragments held: four messages of the size that aiortc announces as the largest, 256 KiB."""
STREAMS_MAX = 16
"""Streams a client may use: one for the control channel, a few that are closed at once."""


def bound_reassembly(sctp: RTCSctpTransport, drop: Drop) -> None:
    """Drop data that is beyond the window or one of the bounds above.

    A peer that keeps to SCTP's window (RFC 9260 section 6.2) never gets there; to others a dropped
    chunk is one that got lost.
    """
    receive = sctp._receive_data_chunk
    streams: dict[int, InboundStream] = sctp._inbound_streams

    def is_too_much(chunk: DataChunk) -> bool:
        if chunk.stream_id not in streams and len(streams) >= STREAMS_MAX:
            return True
        held = sum(len(stream.reassembly) for stream in streams.values())
        return held >= CHUNKS_MAX or len(chunk.user_data) > sctp._advertised_rwnd

    async def receive_bounded(chunk: DataChunk) -> None:
        if is_too_much(chunk):
            sctp._sack_needed = True  # tell the peer what did arrive
            drop("sctp")
        else:
            await receive(chunk)

    sctp._receive_data_chunk = receive_bounded  # type: ignore[method-assign]


def check() -> None:
    """SeamError naming what the installed aiortc no longer has."""
    require_names(RTCSctpTransport, "_receive_data_chunk")
    require_use(RTCSctpTransport.__init__, "_inbound_streams", "_advertised_rwnd", "_sack_needed")
    require_use(RTCSctpTransport._receive_chunk, "_receive_data_chunk")
    require_use(InboundStream.__init__, "reassembly")
