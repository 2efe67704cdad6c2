"""Offers as browsers and other WHIP clients write them, for tests."""

from __future__ import annotations

FINGERPRINT = ":".join(["AB"] * 32)
UFRAG = "Wx4q"
PASSWORD = "p4ssw0rdOf22Characters"
CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.77 50000 typ host generation 0"

_OPUS = (
    "a=rtpmap:111 opus/48000/2",
    "a=rtcp-fb:111 transport-cc",
    "a=fmtp:111 minptime=10;useinbandfec=1",
)
_AUDIO_EXTENSIONS = (
    "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
)
_VIDEO_EXTENSIONS = (
    "a=extmap:2 http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
)


def video_format(payload_type: int, codec: str, fmtp: str = "") -> list[str]:
    """One video format with the feedback that browsers offer, and its retransmission."""
    lines = [f"a=rtpmap:{payload_type} {codec}/90000"]
    lines += [
        f"a=rtcp-fb:{payload_type} {feedback}"
        for feedback in ("goog-remb", "ccm fir", "nack", "nack pli")
    ]
    if fmtp:
        lines.append(f"a=fmtp:{payload_type} {fmtp}")
    retransmission = payload_type + 1
    return [
        *lines,
        f"a=rtpmap:{retransmission} rtx/90000",
        f"a=fmtp:{retransmission} apt={payload_type}",
    ]


def h264(payload_type: int, profile: str, mode: int = 1) -> list[str]:
    """One H264 format."""
    parameters = f"level-asymmetry-allowed=1;packetization-mode={mode};profile-level-id={profile}"
    return video_format(payload_type, "H264", parameters)


VP8 = video_format(96, "VP8")
BROWSER_VIDEO = [*VP8, *h264(98, "42e01f"), *h264(100, "640c1f", 0)]


def offer(
    *,
    audio: str | None = "sendrecv",
    video: str | None = "sendrecv",
    channel: bool = True,
    formats: list[str] | None = None,
    candidates: tuple[str, ...] = (),
    end_of_candidates: bool = False,
) -> str:
    """An offer in the manner of Chromium's. ``audio`` and ``video`` are directions or None."""
    formats = BROWSER_VIDEO if formats is None else formats
    sections: list[list[str]] = []
    if audio is not None:
        sections.append(
            ["m=audio 9 UDP/TLS/RTP/SAVPF 111", f"a={audio}", *_AUDIO_EXTENSIONS, *_OPUS]
        )
    if video is not None:
        numbers = [line.split()[0][9:] for line in formats if line.startswith("a=rtpmap:")]
        sections.append(
            [
                f"m=video 9 UDP/TLS/RTP/SAVPF {' '.join(numbers)}",
                f"a={video}",
                *_VIDEO_EXTENSIONS,
                *formats,
            ]
        )
    for section in sections:
        section += ["a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp-mux", "a=rtcp-rsize"]
    if channel:
        sections.append(
            [
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
                "a=sctp-port:5000",
                "a=max-message-size:262144",
            ]
        )
    mids = [str(index) for index in range(len(sections))]
    lines = [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        f"a=group:BUNDLE {' '.join(mids)}",
        "a=extmap-allow-mixed",
        "a=msid-semantic: WMS",
    ]
    for mid, section in zip(mids, sections, strict=True):
        lines += [section[0], "c=IN IP4 0.0.0.0", *section[1:]]
        lines += [f"a={candidate}" for candidate in candidates]
        if end_of_candidates:
            lines.append("a=end-of-candidates")
        lines += [
            f"a=ice-ufrag:{UFRAG}",
            f"a=ice-pwd:{PASSWORD}",
            "a=ice-options:trickle",
            f"a=fingerprint:sha-256 {FINGERPRINT}",
            "a=setup:actpass",
            f"a=mid:{mid}",
        ]
    return "\r\n".join(lines) + "\r\n"


def whip_ffmpeg(profile: str = "640028") -> str:
    """What an ffmpeg or GStreamer publisher sends: Opus and one H264 profile, no data channel."""
    return offer(
        audio="sendonly",
        video="sendonly",
        channel=False,
        formats=[
            "a=rtpmap:106 H264/90000",
            "a=rtcp-fb:106 nack",
            "a=rtcp-fb:106 nack pli",
            f"a=fmtp:106 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}",
        ],
    )
