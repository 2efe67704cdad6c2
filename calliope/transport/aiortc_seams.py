"""Everything that leans on private names of aiortc 1.16: one module, checked (aioice's beside it).

:func:`check` runs at start-up and raises SeamError naming what is gone. Our classes replace the
library's between the wire and the codecs; signalling, ICE checks, DTLS and SCTP stay theirs.
Each seam with its symptom, its cause and when it may go:

* :class:`PeerConnection` builds our senders, receivers and transports. Cause: aiortc has no
  factory for them. Goes when it has one.
* :class:`MediaTransport`: media goes from the socket to its stream and back without a queue, a
  task or an await between. Symptom: 45 us a packet sent. Goes when aiortc sends synchronously.
* :class:`MediaReceiver` and :class:`MediaSender` hand packets to ``receiver.py`` and
  ``fanout.py``. Symptoms: a decoder thread joined on the event loop, one NACK per gap, BYE ends a
  stream for good, 128 packets of history. Go when aiortc lets one send and receive RTP itself.
* H264 profiles beyond Baseline are shown to aiortc as Baseline and answered as offered. Symptom:
  OBS and ffmpeg are refused. Goes when aiortc lists Main and High.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from aiortc import (
    RTCConfiguration,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.rtcdtlstransport import State
from aiortc.rtcrtpparameters import (
    RTCRtpParameters,
    RTCRtpReceiveParameters,
    RTCRtpSendParameters,
)
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.rtp import AnyRtcpPacket, RtcpPacket, is_rtcp
from pylibsrtp import Error, Session

from calliope.clock import Clock, SystemClock
from calliope.config import IceConfig
from calliope.errors import MediaError, SeamError
from calliope.metrics import Metrics
from calliope.transport import aioice_seams, sctp_seams
from calliope.transport.aioice_seams import (
    Drop,
    IceConnection,
    IceSettings,
    media_addresses,
    port_range,
    require_names,
    require_use,
)
from calliope.transport.burst import Burst
from calliope.transport.rtp import RtpPacket, read_packet
from calliope.transport.timeline import Timeline
from calliope.transport.udp_port import UdpPort

try:
    from pylibsrtp._binding import ffi, lib  # type: ignore[import-not-found]
except ImportError as error:
    raise SeamError("pylibsrtp has no _binding any more") from error

_PC = "_RTCPeerConnection__"
_EARLY_PACKETS = 64
_SENT = {"audio": "OPUS", "video": "VP8"}
_ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
_AUDIO_LEVEL = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
_MID = "urn:ietf:params:rtp-hdrext:sdes:mid"

# -- what receiver.py and fanout.py are given ------------------------------------------------


class RtpSink(Protocol):
    """Takes what one receiver gets; called on the event loop."""

    def started(self) -> None:
        """The receiver knows its codecs and can send RTCP."""

    def receive_rtp(self, packet: RtpPacket) -> None: ...

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None: ...

    def stopped(self) -> None: ...


class FeedbackSink(Protocol):
    """Uses one sender and takes the feedback about it; called on the event loop."""

    def started(self) -> None:
        """The sender can send from now on."""

    def receive_rtcp(self, packet: AnyRtcpPacket) -> None: ...

    def stopped(self) -> None:
        """Last call: nothing can be sent after it."""


@dataclass(frozen=True, slots=True)
class Format:
    """One negotiated payload type; ``repairs`` is the one it retransmits (RFC 4588)."""

    name: str
    clock_hz: int
    repairs: int | None = None


@dataclass(frozen=True, slots=True)
class ExtensionIds:
    """The negotiated ids of the header extensions we use; 0: not negotiated."""

    abs_send_time: int = 0
    audio_level: int = 0
    mid: int = 0


class MediaReceiver(RTCRtpReceiver):
    """A receiver without jitter buffer and decoder: packets go to its ``sink``."""

    def __init__(self, kind: str, transport: RTCDtlsTransport) -> None:
        super().__init__(kind, transport)
        self.sink: RtpSink | None = None
        self.formats: dict[int, Format] = {}
        self.extension_ids = ExtensionIds()
        self.signalled_ssrc: int | None = None
        self.own_ssrc = 0
        self.running = False

    @property
    def media_transport(self) -> MediaTransport:
        return cast(MediaTransport, self.transport)

    @property
    def rtt_ms(self) -> float | None:
        """The round trip of the last ICE consent check, or None before the first."""
        return self.media_transport.connection.rtt_ms

    def attach(self, sink: RtpSink) -> None:
        """Give packets to ``sink`` from now on."""
        self.sink = sink
        if self.running:
            sink.started()

    def send_rtcp(self, packets: Iterable[AnyRtcpPacket | bytes]) -> None:
        """Send one compound RTCP packet; nothing happens while not connected."""
        self.media_transport.send_rtcp(b"".join(bytes(packet) for packet in packets))

    async def receive(self, parameters: RTCRtpReceiveParameters) -> None:
        if self.running:
            return
        self.formats = _formats(parameters)
        self.extension_ids = _extension_ids(parameters)
        if parameters.encodings:
            self.signalled_ssrc = parameters.encodings[0].ssrc
        self.media_transport.add_receiver(self)
        self.running = True
        if self.sink is not None:
            self.sink.started()

    async def stop(self) -> None:
        if self.running:
            self.running = False
            self.media_transport.remove_receiver(self)
        if self.sink is not None:
            sink, self.sink = self.sink, None
            sink.stopped()

    def _handle_disconnect(self) -> None:
        pass

    def _set_rtcp_ssrc(self, ssrc: int) -> None:
        super()._set_rtcp_ssrc(ssrc)
        self.own_ssrc = ssrc


class MediaSender(RTCRtpSender):
    """A sender without track and encoder: its ``sink`` sends ready packets through it."""

    def __init__(self, kind: str, transport: RTCDtlsTransport, timeline: Timeline) -> None:
        super().__init__(kind, transport)
        self.timeline = timeline
        self.sink: FeedbackSink | None = None
        self.payload_type = 0
        self.rtx_payload_type: int | None = None
        self.extension_ids = ExtensionIds()
        self.mid = ""
        self.cname = ""
        self.running = False

    @property
    def media_transport(self) -> MediaTransport:
        return cast(MediaTransport, self.transport)

    @property
    def ssrc(self) -> int:
        return self._ssrc

    @property
    def rtx_ssrc(self) -> int:
        return self._rtx_ssrc

    def attach(self, sink: FeedbackSink) -> None:
        """Let ``sink`` send through this sender from now on."""
        self.sink = sink
        if self.running:
            sink.started()

    def send_rtcp(self, packets: Iterable[AnyRtcpPacket | bytes]) -> None:
        """Send one compound RTCP packet; nothing happens while not connected."""
        self.media_transport.send_rtcp(b"".join(bytes(packet) for packet in packets))

    async def send(self, parameters: RTCRtpSendParameters) -> None:
        if self.running:
            return
        formats = _formats(parameters)
        ours = [t for t, codec in formats.items() if codec.name == _SENT[self.kind]]
        if not ours:
            return  # the client takes nothing that we send
        self.payload_type = ours[0]
        for payload_type, codec in formats.items():
            if codec.repairs == self.payload_type:
                self.rtx_payload_type = payload_type
        self.extension_ids = _extension_ids(parameters)
        self.mid = parameters.muxId
        self.cname = parameters.rtcp.cname or ""
        self.media_transport.add_sender(self)
        self.running = True
        if self.sink is not None:
            self.sink.started()

    async def stop(self) -> None:
        if self.sink is not None:
            sink, self.sink = self.sink, None
            sink.stopped()
        if self.running:
            self.running = False
            self.media_transport.remove_sender(self)


def _formats(parameters: RTCRtpParameters) -> dict[int, Format]:
    formats = {}
    for codec in parameters.codecs:
        repairs = codec.parameters.get("apt") if codec.name.lower() == "rtx" else None
        formats[cast(int, codec.payloadType)] = Format(
            codec.name.upper(), codec.clockRate, repairs if isinstance(repairs, int) else None
        )
    return formats


def _extension_ids(parameters: RTCRtpParameters) -> ExtensionIds:
    ids = {extension.uri: extension.id for extension in parameters.headerExtensions}
    return ExtensionIds(ids.get(_ABS_SEND_TIME, 0), ids.get(_AUDIO_LEVEL, 0), ids.get(_MID, 0))


# -- DTLS and SRTP ---------------------------------------------------------------------------


class MediaTransport(RTCDtlsTransport):
    """DTLS as aiortc does it; SRTP and SRTCP straight between socket and stream."""

    def __init__(self, transport: RTCIceTransport, certificates: Any, drop: Drop) -> None:
        super().__init__(transport, certificates)
        self.connection = cast(IceConnection, transport._connection)
        self.connection.on_media = self._receive_media
        self._drop = drop
        self._receivers: dict[int, MediaReceiver] = {}  # by payload type
        self._senders: set[MediaSender] = set()
        self._early: deque[bytes] = deque(maxlen=_EARLY_PACKETS)
        self._burst: Burst | None = None
        self._aimed_at: object = None
        self._plain = False

    def add_receiver(self, receiver: MediaReceiver) -> None:
        for payload_type in receiver.formats:
            self._receivers[payload_type] = receiver

    def remove_receiver(self, receiver: MediaReceiver) -> None:
        self._receivers = {t: r for t, r in self._receivers.items() if r is not receiver}

    def add_sender(self, sender: MediaSender) -> None:
        self._senders.add(sender)

    def remove_sender(self, sender: MediaSender) -> None:
        self._senders.discard(sender)

    def send_rtp(
        self,
        header: bytes,
        sequence: int,
        payloads: tuple[bytes, ...],
        *,
        ends_frame: bool = False,
    ) -> int:
        """Encrypt and send one packet for each payload; returns how many went.

        ``header`` is the RTP header with its extensions: the sequence number in it is counted on
        from ``sequence``, and ``ends_frame`` sets the marker on the last packet. At most 1,500
        bytes each. Never waits: what the socket does not take is dropped and counted.
        """
        burst = self.burst()
        if burst is not None:
            sent = burst.send(header, sequence, payloads, ends_frame)
        elif self._plain and self._state is State.CONNECTED:
            sent = self._send_plainly(header, sequence, payloads, ends_frame)
        else:
            return 0
        self.note_unsent(len(payloads) - sent)
        return sent

    def note_unsent(self, packets: int) -> None:
        """Count packets that the socket did not take: it is full, or the network just went."""
        for _ in range(packets):
            self._drop("socket")

    def burst(self) -> Burst | None:
        """What sends many packets at once, aimed at where they go now; None where nothing does."""
        connection = self.connection
        if self._tx_srtp is None or self._state is not State.CONNECTED or self._plain:
            return None
        if self._burst is None:
            self._burst = self._build_burst()
        burst, pair = self._burst, connection.pair
        if burst is None or pair is None:
            return None
        if pair is not self._aimed_at or not burst.is_open:
            route = connection.route
            assert route is not None
            burst.aim(*route)
            self._aimed_at = pair
        return burst

    def _build_burst(self) -> Burst | None:
        session = self._tx_srtp
        protect = int(ffi.cast("intptr_t", ffi.addressof(lib, "srtp_protect")))
        try:
            return Burst(protect, int(ffi.cast("intptr_t", session._srtp[0])), session)
        except OSError:
            self._plain = True
            return None

    def _send_plainly(
        self, header: bytes, sequence: int, payloads: tuple[bytes, ...], ends_frame: bool
    ) -> int:
        """The same packet by packet, where there are no bursts."""
        route, session = self.connection.route, self._tx_srtp
        if route is None:
            return 0
        sent = 0
        for index, payload in enumerate(payloads):
            packet = bytearray(header + payload)
            if ends_frame and index == len(payloads) - 1:
                packet[1] |= 0x80
            packet[2:4] = ((sequence + index) & 0xFFFF).to_bytes(2, "big")
            try:
                route[0].sendto(session.protect(bytes(packet)), route[1])
            except (OSError, Error):
                continue
            sent += 1
        return sent

    def send_rtcp(self, data: bytes) -> None:
        """Encrypt and send one compound RTCP packet; nothing happens while not connected."""
        route = self.connection.route
        if route is None or self._tx_srtp is None or self._state is not State.CONNECTED:
            return
        try:
            route[0].sendto(self._tx_srtp.protect_rtcp(data), route[1])
        except (OSError, Error, ValueError):
            self._drop("socket")

    def _setup_srtp(self) -> None:
        """Have keys; then take what came while there were none.

        The peer may send from the moment it has sent its last handshake message, which for us still
        waits in a queue: its first keyframe must not be lost for that.
        """
        super()._setup_srtp()
        asyncio.get_running_loop().call_soon(self._receive_early)

    def _receive_early(self) -> None:
        while self._early and self._rx_srtp is not None:
            self._receive_media(self._early.popleft())

    def _receive_media(self, data: bytes) -> None:
        """One SRTP or SRTCP datagram (RFC 5764 section 5.1.2), from anybody."""
        session = self._rx_srtp
        if session is None:
            self._early.append(data)
            return
        control = is_rtcp(data)
        try:
            plain = session.unprotect_rtcp(data) if control else session.unprotect(data)
        except (Error, ValueError):
            self._drop("srtp_in")
            return
        self.connection.heard()
        try:
            if control:
                self._receive_rtcp(plain)
                return
            packet = read_packet(plain)
        except MediaError:
            self._drop("malformed")
            return
        receiver = self._receivers.get(packet.payload_type)
        if receiver is None or receiver.sink is None:
            self._drop("unexpected")
        else:
            receiver.sink.receive_rtp(packet)

    def _receive_rtcp(self, data: bytes) -> None:
        try:
            packets = RtcpPacket.parse(data)
        except Exception as error:  # the parser unpacks what lengths it is told
            raise MediaError("malformed RTCP") from error
        for packet in packets:
            for receiver in set(self._receivers.values()):
                if receiver.sink is not None:
                    receiver.sink.receive_rtcp(packet)
            for sender in tuple(self._senders):
                if sender.sink is not None:
                    sender.sink.receive_rtcp(packet)


class _Gatherer(RTCIceGatherer):
    def __init__(self, settings: IceSettings, username: str | None, password: str | None) -> None:
        # longer than the library's four letters: on a shared port no two may be alike
        username = username or secrets.token_hex(8)
        super().__init__(iceServers=[], local_username=username, local_password=password)
        self._connection = IceConnection(
            settings, self._connection.local_username, self._connection.local_password
        )


# -- the peer connection ---------------------------------------------------------------------


class PeerConnection(RTCPeerConnection):
    """A peer connection whose media is ours. Answers offers; ``getTransceivers`` gives what to
    attach to: each ``sender`` is a :class:`MediaSender`, each ``receiver`` a
    :class:`MediaReceiver`."""

    def __init__(self, settings: IceSettings, clock: Clock) -> None:
        super().__init__(RTCConfiguration(iceServers=[]))
        self.timeline = Timeline(clock)
        self._settings = settings
        self._profiles: dict[str, str] = {}

    @property
    def peer_vanished(self) -> bool:
        """Whether it ended because the peer fell silent, rather than said goodbye.

        ``connectionState`` cannot tell: whether it turns "failed" or at once "closed" then hangs
        on which of aiortc's tasks wakes first.
        """
        transports = getattr(cast(Any, self), _PC + "iceTransports")
        return any(cast(IceConnection, ice._connection).expired for ice in transports)

    async def setRemoteDescription(self, sessionDescription: RTCSessionDescription) -> None:
        text, self._profiles = _hide_h264_profiles(sessionDescription.sdp)
        await super().setRemoteDescription(RTCSessionDescription(text, sessionDescription.type))
        if self.sctp is not None:
            sctp_seams.bound_reassembly(self.sctp, self._settings.drop)

    @property
    def localDescription(self) -> RTCSessionDescription:
        description = super().localDescription
        if description is not None and self._profiles:
            description.sdp = _show_h264_profiles(description.sdp, self._profiles)
        return description

    def _RTCPeerConnection__createDtlsTransport(self) -> RTCDtlsTransport:
        private = cast(Any, self)
        username = password = None
        for transport in getattr(private, _PC + "iceTransports"):
            parameters = transport.iceGatherer.getLocalParameters()
            username, password = parameters.usernameFragment, parameters.password
        gatherer = _Gatherer(self._settings, username, password)
        gatherer.on("statechange", getattr(private, _PC + "updateIceGatheringState"))
        ice = RTCIceTransport(gatherer)
        ice.on("statechange", getattr(private, _PC + "updateIceConnectionState"))
        ice.on("statechange", getattr(private, _PC + "updateConnectionState"))
        getattr(private, _PC + "iceTransports").add(ice)
        dtls = MediaTransport(ice, getattr(private, _PC + "certificates"), self._settings.drop)
        dtls.on("statechange", getattr(private, _PC + "updateConnectionState"))
        getattr(private, _PC + "dtlsTransports").add(dtls)
        for name in ("IceGatheringState", "IceConnectionState", "ConnectionState"):
            getattr(private, _PC + "update" + name)()
        return dtls

    def _RTCPeerConnection__createTransceiver(
        self,
        direction: str,
        kind: str,
        sender_track: object = None,  # noqa: ARG002
    ) -> RTCRtpTransceiver:
        private = cast(Any, self)
        dtls = self._RTCPeerConnection__createDtlsTransport()
        transceiver = RTCRtpTransceiver(
            direction=direction,
            kind=kind,
            sender=MediaSender(kind, dtls, self.timeline),
            receiver=MediaReceiver(kind, dtls),
        )
        transceiver.receiver._set_rtcp_ssrc(transceiver.sender._ssrc)
        transceiver.sender._stream_id = getattr(private, _PC + "stream_id")
        getattr(private, _PC + "transceivers").append(transceiver)
        return transceiver


_FMTP = re.compile(r"^(a=fmtp:(\d+) .*profile-level-id=)([0-9a-fA-F]{6})(.*)$", re.MULTILINE)
_DECODED_PROFILES = ("42", "4d", "58", "64")  # Baseline, Main, Extended, High


def _hide_h264_profiles(sdp: str) -> tuple[str, dict[str, str]]:
    """Show every H264 profile that we decode as Baseline; returns what each really was."""
    profiles: dict[str, str] = {}

    def hide(match: re.Match[str]) -> str:
        before, payload_type, profile, after = match.groups()
        if profile[:2].lower() not in _DECODED_PROFILES:
            return match.group(0)
        profiles[payload_type] = profile
        return f"{before}42e01f{after}"

    return _FMTP.sub(hide, sdp), profiles


def _show_h264_profiles(sdp: str, profiles: dict[str, str]) -> str:
    def show(match: re.Match[str]) -> str:
        before, payload_type, profile, after = match.groups()
        return f"{before}{profiles.get(payload_type, profile)}{after}"

    return _FMTP.sub(show, sdp)


def new_peer_connection(
    ice: IceConfig,
    *,
    host: str,
    loss_s: float,
    metrics: Metrics,
    clock: Clock | None = None,
    shared: tuple[UdpPort, ...] = (),
) -> PeerConnection:
    """A peer connection for one session, to be made on the event loop; on ``shared`` ports if any.

    ``host`` is where HTTP listens, ``loss_s`` after how long a silent peer counts as gone: then
    the connection ends and ``peer_vanished`` is True.
    """

    def drop(why: str) -> None:
        metrics.drops.labels(queue="network", why=why).inc()

    settings = IceSettings(media_addresses(host), port_range(ice.udp_ports), loss_s, drop, shared)
    return PeerConnection(settings, clock or SystemClock())


# -- the check at start-up -------------------------------------------------------------------


def check() -> None:
    """SeamError naming what the installed aiortc, aioice or pylibsrtp no longer has."""
    aioice_seams.check()
    sctp_seams.check()
    attributes = ("certificates", "dtlsTransports", "iceTransports", "stream_id", "transceivers")
    updates = ("updateConnectionState", "updateIceConnectionState", "updateIceGatheringState")
    require_use(RTCPeerConnection.__init__, *(_PC + name for name in attributes))
    require_names(RTCPeerConnection, *(_PC + name for name in updates))
    require_names(RTCPeerConnection, _PC + "createTransceiver", _PC + "createDtlsTransport")
    require_use(RTCPeerConnection.setRemoteDescription, _PC + "createTransceiver")
    require_use(getattr(RTCPeerConnection, _PC + "connect"), "send", "receive")
    require_use(RTCDtlsTransport.__init__, "_rx_srtp", "_tx_srtp", "_state")
    require_use(RTCDtlsTransport.start, "_setup_srtp")
    require_use(RTCIceTransport.__init__, "_connection")
    require_use(RTCIceGatherer.__init__, "_connection")
    require_use(RTCRtpSender.__init__, "_ssrc", "_rtx_ssrc", "_stream_id")
    require_names(RTCRtpSender, "send", "stop")
    require_names(RTCRtpReceiver, "receive", "stop", "_handle_disconnect", "_set_rtcp_ssrc")
    require_use(Session.__init__, "_srtp")
    require_names(lib, "srtp_protect")
