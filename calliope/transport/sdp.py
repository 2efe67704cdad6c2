"""Session descriptions: offers and trickled candidates read and checked, answers finished.

Pure: text in, values or :class:`~calliope.errors.ClientError` out. Offers come from strangers, so
everything the WebRTC library would later trip over is refused here, with a sentence that says what.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiortc import RTCIceCandidate
from aiortc.sdp import MediaDescription, SessionDescription, candidate_from_sdp

from calliope.errors import BadOffer, BadRequest

SessionRole: TypeAlias = Literal["participant", "publisher", "audience"]

CANDIDATES_MAX = 32
"""Remote candidates taken from one client: each makes the server send checks to that address."""

_BREAKS = re.compile(r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f\x85\u2028\u2029]")
_MID = re.compile(r"[A-Za-z0-9_.+-]{1,32}")
_UFRAG = re.compile(r"[A-Za-z0-9+/=_-]{4,256}")
_PASSWORD = re.compile(r"[A-Za-z0-9+/=_-]{22,256}")
_DIGESTS = frozenset({"sha-256", "sha-384", "sha-512"})
_H264_PROFILES = ("42", "4d", "64")  # Baseline, Main, High
_SENDS = ("sendrecv", "sendonly")
_RECEIVES = ("sendrecv", "recvonly")


@dataclass(frozen=True, slots=True)
class Flow:
    """Which ways one kind of media may go, as the client sees it."""

    sends: bool = False
    receives: bool = False

    @property
    def answer(self) -> str:
        """The direction that the answer gives it."""
        if self.sends:
            return "sendrecv" if self.receives else "recvonly"
        return "sendonly" if self.receives else "inactive"


@dataclass(frozen=True, slots=True)
class Offer:
    """A client's offer, checked and cleaned.

    ``sdp`` is what the peer connection is given. ``audio`` and ``video`` are None without such a
    section; video that the client can only receive as something else than VP8 is not sent.
    ``mid``, ``ufrag`` and ``password`` belong to the one transport into which everything is
    bundled; ``candidates`` counts those in the offer.
    """

    sdp: str
    role: SessionRole
    audio: Flow | None
    video: Flow | None
    mid: str
    ufrag: str
    password: str
    candidates: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """Trickled candidates (RFC 8840). ``ufrag`` and ``password`` are None where not given."""

    ufrag: str | None
    password: str | None
    candidates: tuple[RTCIceCandidate, ...]


def parse_offer(text: str) -> Offer:
    """Read a client's SDP offer; BadOffer with a sentence for its author if it is not usable."""
    if not text.startswith("v=0"):
        raise BadOffer("The body is not an SDP offer: it must start with 'v=0'.")
    if _BREAKS.search(text):
        raise BadOffer("The offer holds control characters.")
    try:
        description = SessionDescription.parse(text)
    except Exception:  # the parser asserts, unpacks and looks up: strangers' text raises anything
        raise BadOffer("The offer is not well-formed SDP.") from None
    _check_sections(description.media)
    first = _check_bundle(description)
    audio = _section(description, "audio")
    video = _section(description, "video")
    _check_codecs(audio, video)
    _clean(description, first)
    ufrag, password = _credentials(first)
    return Offer(
        sdp=str(description),
        role=_role(audio, video),
        audio=Flow(_is(audio, _SENDS), _is(audio, _RECEIVES)) if audio else None,
        video=Flow(_is(video, _SENDS), _receives_vp8(video)) if video else None,
        mid=first.rtp.muxId,
        ufrag=ufrag,
        password=password,
        candidates=len(first.ice_candidates),
    )


def parse_fragment(text: str, mid: str) -> Fragment:
    """Read a trickle fragment (RFC 8840; RFC 9725 section 4.3.1); BadRequest if it is none.

    The candidates are all given ``mid``, that of the one transport. Those of no use are left out,
    and so is end-of-candidates (see :func:`_clean`).
    """
    ufrag = password = None
    candidates = []
    for line in text.splitlines():
        if not re.match(r"[a-z]=", line):
            raise BadRequest("The fragment is not well-formed SDP.")
        name, _, value = line.removeprefix("a=").partition(":")
        if name == "ice-ufrag":
            ufrag = value.strip()
        elif name == "ice-pwd":
            password = value.strip()
        elif name == "candidate":
            try:
                candidate = candidate_from_sdp(value)
            except (AssertionError, ValueError):
                raise BadRequest("The fragment holds a malformed candidate.") from None
            if _is_usable(candidate):
                candidate.sdpMid = mid
                candidates.append(candidate)
    return Fragment(ufrag, password, tuple(candidates))


def finish_answer(answer: str, offer: str, public_address: str = "") -> str:
    """The library's answer as the client gets it.

    * With a ``public_address``, the host candidates of its IP version and their ``c=`` lines say
      that instead of the local address; ports stay.
    * Formats stand in the order of the offer, for that is in which the client will send: a phone
      that lists H264 first has hardware for it. (What is sent to it is VP8 in any case.)
    * Opus: in-band error correction is asked for, and no packets in silence (RFC 7587 section 6.1):
      a quiet browser then sends 6 packets a second instead of 50.
    * ``ccm fir`` (RFC 5104) is accepted for each codec it was offered for: the library acts on it
      and only forgets to say so.
    """
    fir = set(re.findall(r"^a=rtcp-fb:(\d+) ccm fir\s*$", offer, re.MULTILINE))
    orders = {line.split()[0]: line.split()[3:] for line in offer.splitlines() if line[:2] == "m="}
    lines: list[str] = []
    for line in answer.splitlines():
        if line.startswith("m="):
            line = _reorder(line, orders)
        lines.append(_announce(line, public_address) if public_address else line)
        if match := re.match(r"a=rtpmap:(\d+) (\S+)", line):
            payload_type, codec = match.group(1), match.group(2).lower()
            if codec.startswith("opus/"):
                lines.append(f"a=fmtp:{payload_type} minptime=10;useinbandfec=1;usedtx=1")
            elif payload_type in fir:
                lines.append(f"a=rtcp-fb:{payload_type} ccm fir")
    return "\r\n".join(lines) + "\r\n"


def _reorder(line: str, orders: dict[str, list[str]]) -> str:
    """An answer's ``m=`` line with its formats in the offer's order."""
    media, port, profile, *formats = line.split()
    order = orders.get(media, [])
    formats.sort(key=lambda f: order.index(f) if f in order else len(order))
    return " ".join((media, port, profile, *formats))


def _announce(line: str, address: str) -> str:
    """One line of the answer, with a local host address replaced by the public one."""
    version = ipaddress.ip_address(address).version
    if match := re.fullmatch(r"(a=candidate:(?:\S+ ){4})(\S+)( \d+ typ host.*)", line):
        if ipaddress.ip_address(match.group(2)).version == version:
            return f"{match.group(1)}{address}{match.group(3)}"
    elif line.startswith(f"c=IN IP{version} "):
        return f"c=IN IP{version} {address}"
    return line


def _check_sections(sections: list[MediaDescription]) -> None:
    if not sections:
        raise BadOffer("The offer has no media section.")
    kinds = [media.kind for media in sections]
    for media in sections:
        if media.kind not in ("audio", "video", "application"):
            raise BadOffer("Only audio, video and application (data channel) sections are taken.")
        if kinds.count(media.kind) > 1:
            raise BadOffer(f"At most one {media.kind} section is taken.")
        _check_transport(media)
        if media.kind != "application":
            if not media.rtcp_mux:
                raise BadOffer(f"The {media.kind} section must offer 'a=rtcp-mux'.")
        elif media.profile != "UDP/DTLS/SCTP" or media.fmt != ["webrtc-datachannel"]:
            raise BadOffer("The data channel must be 'UDP/DTLS/SCTP webrtc-datachannel'.")
        elif not 0 < (media.sctp_port or 0) < 65_536:
            raise BadOffer("The data channel's section needs 'a=sctp-port'.")


def _check_transport(media: MediaDescription) -> None:
    if not _MID.fullmatch(media.rtp.muxId or ""):
        raise BadOffer("Every section needs an 'a=mid' of 1 to 32 letters or digits.")
    ufrag, password = _credentials(media)
    if not _UFRAG.fullmatch(ufrag):
        raise BadOffer("Every section needs an 'a=ice-ufrag' of 4 to 256 characters.")
    if not _PASSWORD.fullmatch(password):
        raise BadOffer("Every section needs an 'a=ice-pwd' of 22 to 256 characters.")
    if media.dtls is None:
        raise BadOffer("Every section needs 'a=setup:actpass'.")
    if not any(print_.algorithm.lower() in _DIGESTS for print_ in media.dtls.fingerprints):
        raise BadOffer("Every section needs an 'a=fingerprint' by sha-256, sha-384 or sha-512.")


def _credentials(media: MediaDescription) -> tuple[str, str]:
    if media.ice is None:
        return "", ""
    return media.ice.usernameFragment or "", media.ice.password or ""


def _check_bundle(description: SessionDescription) -> MediaDescription:
    """The section whose transport carries everything (RFC 9143)."""
    by_mid = {media.rtp.muxId: media for media in description.media}
    if len(by_mid) != len(description.media):
        raise BadOffer("Two sections have the same 'a=mid'.")
    bundles = [group.items for group in description.group if group.semantic == "BUNDLE"]
    if not bundles and len(by_mid) == 1:
        return description.media[0]
    if [sorted(mids) for mids in bundles] != [sorted(by_mid)]:
        raise BadOffer("All sections must be in one 'a=group:BUNDLE'.")
    return by_mid[str(bundles[0][0])]


def _check_codecs(audio: MediaDescription | None, video: MediaDescription | None) -> None:
    if audio is not None and not _has_codec(audio, "opus", 48_000):
        raise BadOffer("The audio section must offer Opus.")
    if video is None or _has_codec(video, "VP8", 90_000):
        return
    if not _has_codec(video, "H264", 90_000):
        raise BadOffer("The video section must offer VP8 or H264.")
    if not _is(video, _SENDS):
        raise BadOffer("The video section must offer VP8: that is what is sent here.")


def _clean(description: SessionDescription, first: MediaDescription) -> None:
    """Leave in the offer what the peer connection can use, and make it plain.

    Dropped: candidates of no use and those beyond :data:`CANDIDATES_MAX`; ``end-of-candidates``,
    since aioice gives up at once when it comes without a candidate that answers, although the
    client's own checks would still have told its address (may go when aioice waits for those);
    header extensions with ids beyond the one-byte form of RFC 8285.

    Bundled sections get the credentials of the first one: aiortc starts the common transport with
    those of whichever it meets first (may go when it looks at the bundle).
    """
    usable = [candidate for candidate in first.ice_candidates if _is_usable(candidate)]
    for media in description.media:
        media.ice, media.dtls = first.ice, first.dtls
        media.ice_candidates = usable[:CANDIDATES_MAX] if media is first else []
        media.ice_candidates_complete = False
        media.host = None
        media.rtcp_host = None
        if media.kind != "application":
            media.direction = media.direction or "sendrecv"  # RFC 8866 section 6.7
            media.rtcp_port = media.port  # aiortc writes rtcp-mux only beside it
            media.rtp.headerExtensions = [
                extension for extension in media.rtp.headerExtensions if 1 <= extension.id <= 14
            ]


def _is_usable(candidate: RTCIceCandidate) -> bool:
    """Whether the server can send a check to this candidate.

    It can over UDP, to a plain address. A ``.local`` name (mDNS) costs a second to look up, and
    the browser behind it is found by its own checks anyway.
    """
    try:
        address = ipaddress.ip_address(candidate.ip)
    except ValueError:
        return False
    return (
        candidate.component == 1
        and candidate.protocol.lower() == "udp"
        and candidate.type in ("host", "srflx", "relay")
        and 0 < candidate.port < 65_536
        and 0 <= candidate.priority < 2**32
        and not (address.is_multicast or address.is_unspecified)
    )


def _section(description: SessionDescription, kind: str) -> MediaDescription | None:
    return next((media for media in description.media if media.kind == kind), None)


def _has_codec(media: MediaDescription | None, name: str, clock_hz: int) -> bool:
    return media is not None and any(
        codec.name.lower() == name.lower()
        and codec.clockRate == clock_hz
        and (name != "H264" or _is_common_h264(codec.parameters))
        for codec in media.rtp.codecs
    )


def _is_common_h264(parameters: dict[str, int | str | None]) -> bool:
    profile = str(parameters.get("profile-level-id", "42e01f"))[:2].lower()
    mode = str(parameters.get("packetization-mode", "0"))
    return mode == "1" and profile in _H264_PROFILES


def _is(media: MediaDescription | None, directions: tuple[str, ...]) -> bool:
    return media is not None and (media.direction or "sendrecv") in directions


def _receives_vp8(video: MediaDescription) -> bool:
    return _is(video, _RECEIVES) and _has_codec(video, "VP8", 90_000)


def _role(audio: MediaDescription | None, video: MediaDescription | None) -> SessionRole:
    """What is sent and received says what a session is (docs/protocol.md)."""
    sends = _is(audio, _SENDS) or _is(video, _SENDS)
    receives = _is(audio, _RECEIVES) or _is(video, _RECEIVES)
    if sends:
        return "participant" if receives else "publisher"
    return "audience"
