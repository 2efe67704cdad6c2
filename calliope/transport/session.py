"""Sessions: one peer connection each, from its offer to its end, and its seat in a room."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from errno import EACCES, EADDRINUSE
from typing import Literal, cast

from aiortc import (
    RTCDataChannel,
    RTCRtpCodecCapability,
    RTCRtpReceiver,
    RTCSessionDescription,
)

from calliope import control
from calliope.clock import NS_PER_S, Clock
from calliope.config import Config
from calliope.errors import (
    BadOffer,
    ClientError,
    ConfigError,
    NotFound,
    TooMany,
    Unavailable,
    Unprocessable,
)
from calliope.ladder import Link
from calliope.media import EncodedAudio, EncodedFrame
from calliope.member import JoinRequest, Member
from calliope.metrics import Metrics
from calliope.rooms import Rooms
from calliope.transport import sdp
from calliope.transport.aioice_seams import media_addresses
from calliope.transport.aiortc_seams import (
    MediaReceiver,
    MediaSender,
    PeerConnection,
    new_peer_connection,
)
from calliope.transport.audio_out import AudioOut
from calliope.transport.fanout import VideoOut
from calliope.transport.receiver import AudioIn, VideoIn
from calliope.transport.udp_port import SHARED_BYTES, UdpPort
from calliope.transport.volley import Volley

logger = logging.getLogger(__name__)

CHANNEL_LABEL = "calliope"
CHANNEL_BUFFER_MAX_BYTES = 1 << 20
CLOSE_TIMEOUT_S = 5.0
RETRY_AFTER_S = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """What every session is made of."""

    config: Config
    clock: Clock
    metrics: Metrics
    volley: Volley
    udp_ports: list[UdpPort]


@dataclass(frozen=True, slots=True)
class Request:
    """What a POST asks for besides its offer; see docs/protocol.md."""

    room: str
    name: str | None = None
    previous: str | None = None
    screen: bool = False
    address: str = ""
    """The client's, as far as HTTP shows it."""


class Session:
    """One client's connection: the room's :class:`~calliope.room.Outlet`.

    It is *pending* until ICE and DTLS are up, then *connected*, then *ended*, once and for good.
    Made, kept and closed by :class:`Sessions`; everything here runs on the event loop.
    """

    def __init__(self, owner: Sessions, parts: Parts, offer: sdp.Offer, secret: str) -> None:
        self.secret = secret
        self.room = ""
        self.state: Literal["pending", "connected", "ended"] = "pending"
        self.address = ""
        self._owner = owner
        self._parts = parts
        self._offer = offer
        self._offered_ns = parts.clock.now_ns()
        self._first_frame_sent = False
        self._candidates = offer.candidates
        self._member: Member | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._channel: RTCDataChannel | None = None
        self._pc: PeerConnection | None = None
        self._video_in: VideoIn | None = None
        self._audio_in: AudioIn | None = None
        self._video_out = VideoOut(parts.metrics, self._request_keyframe, parts.volley)
        self._audio_out = AudioOut(parts.metrics)

    @property
    def mid(self) -> str:
        """The section that trickled candidates belong to."""
        return self._offer.mid

    # -- the way in -----------------------------------------------------------------------------

    def join(self, rooms: Rooms, request: Request) -> None:
        """Take a seat; ClientError if there is none."""
        audio, video = self._offer.audio, self._offer.video
        self.room = request.room.lower()
        self.address = _network_of(request.address)
        self._member = rooms.join(
            JoinRequest(
                room=request.room,
                name=request.name,
                role=self._offer.role,
                secret=self.secret,
                previous=request.previous,
                screen=request.screen,
                receives_video=video is not None and video.receives,
                receives_audio=audio is not None and audio.receives,
            ),
            self,
        )

    async def answer(self) -> str:
        """Build the peer connection and answer the offer; ``connect_s`` later it must be up.

        BadOffer where the library finds no way to answer, Unavailable without a UDP port.
        """
        config = self._parts.config
        self._pc = pc = new_peer_connection(
            config.ice,
            host=config.server.host,
            loss_s=config.limits.loss_s,
            metrics=self._parts.metrics,
            clock=self._parts.clock,
            shared=tuple(self._parts.udp_ports),
        )
        pc.on("connectionstatechange", self._follow_connection)
        pc.on("datachannel", self._take_channel)
        self._add_transceivers(pc)
        try:
            await pc.setRemoteDescription(RTCSessionDescription(self._offer.sdp, "offer"))
            await pc.setLocalDescription(await pc.createAnswer())
        except ClientError:
            raise
        except Exception as error:  # the library raises what it likes about what it cannot do
            logger.info("An offer could not be answered: %s", error)
            raise BadOffer(
                "The offer could not be answered; VP8 or H264 in packetization mode 1, and Opus, "
                "over DTLS-SRTP are spoken here."
            ) from error
        if self.state == "ended":  # the server stops, or the room ended it meanwhile
            raise Unavailable("The session was ended; try again.", retry_after_s=RETRY_AFTER_S)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(config.limits.connect_s, self._give_up)
        return sdp.finish_answer(
            pc.localDescription.sdp, self._offer.sdp, config.ice.public_address
        )

    def _add_transceivers(self, pc: PeerConnection) -> None:
        """One for each media section, taking and giving what the offer allows."""
        audio, video = self._offer.audio, self._offer.video
        assert self._member is not None
        parts = self._parts
        if audio is not None:
            transceiver = pc.addTransceiver("audio", audio.answer)
            transceiver.setCodecPreferences(_codecs("audio", "audio/opus"))
            if audio.receives:
                self._audio_out.attach(cast(MediaSender, transceiver.sender))
            if audio.sends:
                self._audio_in = AudioIn(parts.clock, parts.metrics, self._member.audio)
                self._audio_in.attach(cast(MediaReceiver, transceiver.receiver))
        if video is not None:
            transceiver = pc.addTransceiver("video", video.answer)
            # VP8 first: it is what the library takes for sending
            transceiver.setCodecPreferences(
                _codecs("video", "video/vp8", "video/h264", "video/rtx")
            )
            if video.receives:
                self._video_out.attach(cast(MediaSender, transceiver.sender))
            if video.sends:
                self._video_in = VideoIn(
                    parts.clock,
                    parts.metrics,
                    parts.config.media.max_pixels,
                    self._member.set_video,
                )
                self._video_in.attach(cast(MediaReceiver, transceiver.receiver))

    async def trickle(self, fragment: sdp.Fragment) -> None:
        """Take candidates that the client found after its offer; Unprocessable for a restart."""
        given = fragment.ufrag or self._offer.ufrag, fragment.password or self._offer.password
        if given != (self._offer.ufrag, self._offer.password):
            raise Unprocessable(
                "ICE restarts are not supported: POST a new offer with this session's secret in "
                "Calliope-Session to keep the seat."
            )
        if self.state != "pending" or self._pc is None:
            return
        for candidate in fragment.candidates:
            # Looked at each time: other fragments of this client come while one is awaited.
            if self._candidates >= sdp.CANDIDATES_MAX:
                self._parts.metrics.drops.labels(queue="candidates", why="full").inc()
                continue
            self._candidates += 1
            await self._pc.addIceCandidate(candidate)

    # -- the room's way out (Outlet) --------------------------------------------------------------

    def send_message(self, message: Mapping[str, object]) -> None:
        """Send a control message; a client that lets over 1 MiB pile up is put out."""
        channel = self._channel
        if channel is None or channel.readyState != "open" or self.state == "ended":
            return
        if channel.bufferedAmount > CHANNEL_BUFFER_MAX_BYTES:
            self._parts.metrics.drops.labels(queue="channel", why="unread").inc()
            self._channel = None  # nothing more is written into it
            # Soon, not now: the room is in the midst of telling all its members.
            asyncio.get_running_loop().call_soon(self.leave)
            return
        try:
            channel.send(control.dumps(message))
        except ValueError:  # longer than the client's a=max-message-size
            self._parts.metrics.drops.labels(queue="channel", why="too_large").inc()

    def send_video(self, frame: EncodedFrame) -> None:
        if not self._first_frame_sent and frame.keyframe:
            self._first_frame_sent = True
            waited_ns = self._parts.clock.now_ns() - self._offered_ns
            self._parts.metrics.first_frame_s.observe(waited_ns / NS_PER_S)
        self._video_out.push(frame)

    def send_audio(self, packet: EncodedAudio) -> None:
        self._audio_out.push(packet)

    def rtp_timestamp(self, pts_90k: int) -> int:
        return self._video_out.rtp_timestamp(pts_90k)

    def link(self) -> Link:
        video = self._video_out
        out = video if video.packets_sent else self._audio_out
        return Link(
            loss=out.loss,
            rtt_ms=out.rtt_ms or 0.0,
            report=video.report,
            estimate_bps=video.estimate_bps,
            sent_bytes=video.bytes_sent,
            can_pad=video.can_pad,
        )

    def shape(self, pace_bps: int | None, padding_bps: int) -> None:
        self._video_out.pace(pace_bps)
        self._video_out.pad(padding_bps)

    def clear_video(self) -> None:
        self._video_out.clear()

    def limit_uplink(self, bps: int | None) -> None:
        if self._video_in is not None:
            self._video_in.limit_bps = bps

    def end(self, code: str, reason: str) -> None:  # noqa: ARG002 - the room has said why
        logger.debug("A session ends: %s", code)
        self._finish(lost=False)

    # -- the connection's life --------------------------------------------------------------------

    def _follow_connection(self) -> None:
        assert self._pc is not None
        match self._pc.connectionState:
            case "connected" if self.state == "pending":
                self.state = "connected"
                self._stop_timer()
                assert self._member is not None
                self._member.connected()
            case "failed":  # no way to the client, nothing heard any more, or DTLS refused
                self._finish(lost=True)
            case "closed":  # the other side said goodbye (DTLS close_notify), or nothing any more
                self._finish(lost=self._pc.peer_vanished)

    def _give_up(self) -> None:
        self._parts.metrics.drops.labels(queue="pending", why="timeout").inc()
        self._finish(lost=True)

    def _take_channel(self, channel: RTCDataChannel) -> None:
        if channel.label != CHANNEL_LABEL or self._channel is not None or self.state == "ended":
            channel.close()
            return
        assert self._member is not None
        self._channel = channel
        channel.on("message", self._member.receive)
        channel.on("close", self._lose_channel)
        self._member.channel_opened()

    def _lose_channel(self) -> None:
        self._channel = None
        if self._member is not None and self.state != "ended":
            self._member.channel_closed()

    def _request_keyframe(self) -> None:
        if self._member is not None:
            self._member.request_keyframe()

    def leave(self) -> None:
        """The client said that it goes."""
        self._finish(lost=False)

    def _finish(self, *, lost: bool) -> None:
        if self.state == "ended":
            return
        self.state = "ended"
        self._stop_timer()
        if self._member is not None:
            self._member.leave(lost=lost)
        self._owner.retire(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """Free everything the session holds: sockets, tasks, decoder threads."""
        self._video_out.close()
        self._audio_out.close()
        if self._audio_in is not None:
            self._audio_in.close()
        if self._video_in is not None:
            await self._video_in.close()
        if self._pc is not None:
            await self._pc.close()


def _codecs(kind: str, *mime_types: str) -> list[RTCRtpCodecCapability]:
    """The library's capabilities of these types, in this order."""
    capabilities = RTCRtpReceiver.getCapabilities(kind)
    known = capabilities.codecs if capabilities is not None else []
    return [codec for wanted in mime_types for codec in known if codec.mimeType.lower() == wanted]


def _network_of(address: str) -> str:
    """Whom an address counts for: an IPv6 client has a whole /64 of them (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return str(found if found.version == 4 else ipaddress.ip_network((found, 64), strict=False))


class Sessions:
    """All sessions of a server, by secret. It starts and stops them; ``close`` ends all."""

    def __init__(self, rooms: Rooms, config: Config, clock: Clock, metrics: Metrics) -> None:
        self.rooms = rooms
        self._parts = Parts(config, clock, metrics, Volley(clock, metrics), [])
        self._by_secret: dict[str, Session] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def listen(self) -> None:
        """Open the UDP port that all sessions share, if there is to be one; ConfigError."""
        parts, port = self._parts, self._parts.config.ice.udp_port

        def drop(why: str) -> None:
            parts.metrics.drops.labels(queue="network", why=why).inc()

        if not port:
            return
        skipped = []
        for address in media_addresses(parts.config.server.host):
            try:
                parts.udp_ports.append(await UdpPort.open(address, port, drop))
            except OSError as error:
                if error.errno in (EADDRINUSE, EACCES):  # so it would be on the others
                    raise ConfigError(
                        f"ice.udp_port: cannot listen on {address}, UDP port {port}: "
                        f"{error.strerror}."
                    ) from None
                skipped.append(f"{address} ({error.strerror})")  # not ready yet, or just gone
        if not parts.udp_ports:
            raise ConfigError(
                f"ice.udp_port: cannot listen on UDP port {port} of any address: "
                f"{', '.join(skipped)}."
            )
        if skipped:
            logger.warning(
                "The shared UDP port is not open on %s; a restart tries again.", ", ".join(skipped)
            )
        if limits := parts.udp_ports[0].short_of:
            logger.warning(
                "The shared UDP port's buffers are smaller than its %d bytes: raise %s, or a large "
                "picture for many loses packets.",
                SHARED_BYTES,
                " and ".join(limits),
            )

    @property
    def can_be_reached(self) -> bool:
        """Whether the shared UDP port, if there is one, is still open wherever it was."""
        return not any(udp_port.is_lost for udp_port in self._parts.udp_ports)

    @property
    def count(self) -> int:
        return len(self._by_secret)

    @property
    def pending(self) -> int:
        """How many have been answered and have not connected yet."""
        return sum(session.state == "pending" for session in self._by_secret.values())

    def _pending_from(self, address: str) -> int:
        """How many of those come from one network: it may hold half of all places at most."""
        network = _network_of(address)
        return sum(
            session.state == "pending" and session.address == network
            for session in self._by_secret.values()
        )

    async def open(self, request: Request, offer_text: str) -> tuple[Session, str]:
        """Answer an offer: the new session and the SDP answer. ClientError if it is refused."""
        limit = self._parts.config.limits.pending
        if self.pending >= limit or self._pending_from(request.address) >= -(-limit // 2):
            raise TooMany(
                "Too many callers are connecting right now; try again in a moment.",
                retry_after_s=RETRY_AFTER_S,
            )
        offer = sdp.parse_offer(offer_text)
        session = Session(self, self._parts, offer, secrets.token_urlsafe(24))
        session.join(self.rooms, request)
        self._by_secret[session.secret] = session
        try:
            return session, await session.answer()
        except BaseException:
            session.leave()
            raise

    def find(self, room: str, secret: str) -> Session:
        """The session that a Location names; NotFound."""
        session = self._by_secret.get(secret)
        if session is None or session.room != room.lower():
            raise NotFound("There is no such session (any more).")
        return session

    def retire(self, session: Session) -> None:
        """Forget an ended session and free what it holds, in the background."""
        self._by_secret.pop(session.secret, None)
        task = asyncio.get_running_loop().create_task(self._close(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, session: Session) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await session.close()
        except TimeoutError:
            logger.warning("A session took over %g s to close.", CLOSE_TIMEOUT_S)
        except Exception:
            logger.exception("A session did not close cleanly")

    async def close(self) -> None:
        """End all sessions and wait until everything is freed."""
        for session in list(self._by_secret.values()):
            session.leave()
        while self._closing:
            await asyncio.gather(*self._closing)
        for udp_port in self._parts.udp_ports:
            udp_port.close()
        self._parts.udp_ports.clear()
