"""Offers are read and checked, candidates sifted, answers finished."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.errors import BadOffer, BadRequest
from calliope.transport import sdp
from calliope.transport.sdp import Flow
from tests.transport.offers import (
    CANDIDATE,
    PASSWORD,
    UFRAG,
    VP8,
    h264,
    offer,
    video_format,
    whip_ffmpeg,
)

MDNS = "candidate:2 1 udp 2122260223 3d2a1c5e-9f0b-4c55-8b1e-2f6d1f0e7a11.local 50001 typ host"
TCP = "candidate:3 1 tcp 1518280447 192.0.2.77 9 typ host tcptype active"


# -- roles --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("audio", "video", "role"),
    [
        ("sendrecv", "sendrecv", "participant"),
        ("sendonly", "recvonly", "participant"),
        ("sendrecv", "inactive", "participant"),
        ("sendonly", "sendonly", "publisher"),
        (None, "sendonly", "publisher"),
        ("recvonly", "recvonly", "audience"),
        ("recvonly", None, "audience"),
        ("inactive", "inactive", "audience"),
    ],
)
def test_what_an_offer_sends_and_receives_says_what_the_session_is(
    audio: str | None, video: str | None, role: str
) -> None:
    assert sdp.parse_offer(offer(audio=audio, video=video)).role == role


def test_a_section_without_a_direction_goes_both_ways() -> None:
    read = sdp.parse_offer(offer().replace("a=sendrecv\r\n", ""))
    assert read.role == "participant"
    assert read.sdp.count("a=sendrecv") == 2


def test_a_data_channel_alone_is_audience() -> None:
    read = sdp.parse_offer(offer(audio=None, video=None))
    assert (read.role, read.audio, read.video) == ("audience", None, None)


def test_who_can_only_receive_h264_sends_pictures_and_gets_none() -> None:
    read = sdp.parse_offer(offer(formats=h264(98, "42e01f")))
    assert read.role == "participant"
    assert read.video == Flow(sends=True, receives=False)
    assert read.video.answer == "recvonly"


# -- codecs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["42001f", "42e01f", "42c01e", "4d401f", "640028", "64001f"])
def test_a_publisher_may_send_h264_in_any_common_profile(profile: str) -> None:
    assert sdp.parse_offer(whip_ffmpeg(profile)).role == "publisher"


@pytest.mark.parametrize(
    "formats",
    [video_format(45, "AV1"), h264(98, "42e01f", mode=0), h264(98, "f4001f"), []],
    ids=["av1", "h264-mode-0", "h264-444", "none"],
)
def test_video_that_nobody_here_understands_is_refused(formats: list[str]) -> None:
    text = offer(formats=formats or ["a=rtpmap:97 rtx/90000"])
    with pytest.raises(BadOffer, match="VP8 or H264"):
        sdp.parse_offer(text)


def test_a_viewer_that_cannot_take_vp8_is_refused() -> None:
    with pytest.raises(BadOffer, match="VP8: that is what is sent"):
        sdp.parse_offer(offer(video="recvonly", formats=h264(98, "42e01f")))


def test_audio_without_opus_is_refused() -> None:
    with pytest.raises(BadOffer, match="Opus"):
        sdp.parse_offer(offer().replace("opus/48000/2", "PCMU/8000"))


def test_obs_names_its_credentials_once_for_the_session() -> None:
    common = ("a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:")
    lines = whip_ffmpeg("42e01f").splitlines()
    said = [line for line in dict.fromkeys(lines) if line.startswith(common)]
    rest = [line for line in lines if not line.startswith(common)]
    read = sdp.parse_offer("\r\n".join([*rest[:4], *said, *rest[4:]]) + "\r\n")
    assert (read.role, read.ufrag, read.password) == ("publisher", UFRAG, PASSWORD)
    assert read.sdp.count(f"a=ice-ufrag:{UFRAG}") == 2


# -- what is refused ----------------------------------------------------------------------------


def _without(start: str) -> str:
    return "".join(f"{line}\r\n" for line in offer().splitlines() if not line.startswith(start))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "v=0"),
        ("hello", "v=0"),
        ("v=0\r\n", "no media section"),
        (offer(audio=None, video=None, channel=False), "no media section"),
        (offer() + "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "At most one audio"),
        (offer() + "m=text 9 RTP/AVP 98\r\n", "Only audio, video"),
        (_without("a=mid"), "a=mid"),
        (_without("a=ice-ufrag"), "ice-ufrag"),
        (_without("a=ice-pwd"), "ice-pwd"),
        (_without("a=setup"), "setup"),
        (_without("a=fingerprint"), "fingerprint"),
        (_without("a=rtcp-mux"), "rtcp-mux"),
        (_without("a=sctp-port"), "sctp-port"),
        (_without("a=group"), "BUNDLE"),
        (_without("a=rtpmap"), "not well-formed"),
        (offer().replace("sha-256", "sha-1"), "fingerprint"),
        (offer().replace("a=mid:1", "a=mid:0"), "same 'a=mid'"),
        (offer().replace("BUNDLE 0 1 2", "BUNDLE 0 1"), "BUNDLE"),
        (offer().replace("BUNDLE 0 1 2", "BUNDLE 0 1 1 2"), "BUNDLE"),
        (offer().replace(UFRAG, "x y z\u2028a=evil"), "control characters"),
        (offer().replace(UFRAG, "\x0ba=evil"), "control characters"),
        (offer().replace(UFRAG, "x" * 257), "ice-ufrag"),
        (offer().replace("UDP/DTLS/SCTP", "DTLS/SCTP"), "data channel"),
    ],
)
def test_an_unusable_offer_is_refused_with_a_reason(text: str, hint: str) -> None:
    with pytest.raises(BadOffer, match=hint) as refusal:
        sdp.parse_offer(text)
    assert refusal.value.code == "bad_offer"


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_an_offer_or_a_bad_offer(text: str) -> None:
    for attempt in (text, "v=0\r\n" + text):
        try:
            sdp.parse_offer(attempt)
        except BadOffer:
            continue


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_damaged_offer_is_read_or_refused(seed: int) -> None:
    damaged = damage(offer(candidates=(CANDIDATE, MDNS, TCP)), seed)
    try:
        read = sdp.parse_offer(damaged)
    except BadOffer:
        return
    again = sdp.parse_offer(read.sdp)
    assert (again.role, again.audio, again.video) == (read.role, read.audio, read.video)


def damage(text: str, seed: int) -> str:
    """An offer with a few lines lost, doubled, swapped or mangled."""
    chance = random.Random(seed)
    lines = text.split("\r\n")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        match chance.randrange(5):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[at])
            case 2:
                lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
            case 3:
                other = chance.randrange(len(lines))
                lines[at], lines[other] = lines[other], lines[at]
            case 4:
                words = lines[at].split(" ")
                words[chance.randrange(len(words))] = chance.choice(
                    ["", "0", "-1", "99999999999", "x", "a=b:c", "∞", "%s", ":"]
                )
                lines[at] = " ".join(words)
    return "\r\n".join(lines)


# -- candidates ---------------------------------------------------------------------------------


def test_only_candidates_that_can_be_reached_are_kept() -> None:
    others = (
        "candidate:4 2 udp 2122260222 192.0.2.77 50001 typ host",  # RTCP's own component
        "candidate:5 1 udp 1 224.0.0.1 5000 typ host",
        "candidate:6 1 udp 1 0.0.0.0 5000 typ host",
        "candidate:7 1 udp 1 192.0.2.77 0 typ host",
        "candidate:8 1 udp 1 example.org 5000 typ host",
    )
    read = sdp.parse_offer(offer(candidates=(CANDIDATE, MDNS, TCP, *others)))
    assert read.candidates == 1
    assert read.sdp.count("a=candidate:") == 1
    assert "192.0.2.77 50000" in read.sdp


def test_a_lone_end_of_candidates_is_ignored() -> None:
    assert "end-of-candidates" not in sdp.parse_offer(offer(end_of_candidates=True)).sdp


def test_the_number_of_candidates_is_bounded() -> None:
    many = tuple(CANDIDATE.replace("50000", str(port)) for port in range(50000, 50100))
    assert sdp.parse_offer(offer(candidates=many)).candidates == sdp.CANDIDATES_MAX


def test_bundled_sections_get_the_first_ones_credentials() -> None:
    text = offer()
    at = text.index("m=video")
    text = text[:at] + text[at:].replace(UFRAG, "otherUfrag").replace(PASSWORD, "o" * 22)
    read = sdp.parse_offer(text)
    assert (read.ufrag, read.password) == (UFRAG, PASSWORD)
    assert read.sdp.count(f"a=ice-ufrag:{UFRAG}") == 3


def test_a_trickled_fragment_gives_its_candidates() -> None:
    fragment = sdp.parse_fragment(
        f"a=ice-ufrag:{UFRAG}\r\na=ice-pwd:{PASSWORD}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
        f"a={CANDIDATE}\r\na={MDNS}\r\na={TCP}\r\na=end-of-candidates\r\n",
        mid="0",
    )
    assert (fragment.ufrag, fragment.password) == (UFRAG, PASSWORD)
    assert [(c.ip, c.port, c.sdpMid) for c in fragment.candidates] == [("192.0.2.77", 50000, "0")]


@pytest.mark.parametrize("text", ["hello", "a=candidate:1 1 udp", "a=candidate:1 x udp y z 1 2 3"])
def test_a_malformed_fragment_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        sdp.parse_fragment(text, mid="0")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_a_fragment_or_a_bad_request(text: str) -> None:
    for attempt in (text, "a=candidate:" + text):
        try:
            sdp.parse_fragment(attempt, mid="0")
        except BadRequest:
            continue


# -- answers ------------------------------------------------------------------------------------

ANSWER = "\r\n".join(
    (
        "v=0",
        "o=- 1 1 IN IP4 0.0.0.0",
        "s=-",
        "m=audio 40000 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 10.0.0.5",
        "a=rtpmap:111 opus/48000/2",
        "a=candidate:1 1 udp 2130706431 10.0.0.5 40000 typ host",
        "a=candidate:2 1 udp 2130706430 fd00::5 40001 typ host",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99",
        "c=IN IP4 0.0.0.0",
        "a=rtpmap:96 VP8/90000",
        "a=rtpmap:97 rtx/90000",
        "a=rtpmap:98 H264/90000",
        "",
    )
)


def test_the_public_address_stands_in_for_the_local_one() -> None:
    lines = sdp.finish_answer(ANSWER, offer(), "203.0.113.9").splitlines()
    assert "a=candidate:1 1 udp 2130706431 203.0.113.9 40000 typ host" in lines
    assert "a=candidate:2 1 udp 2130706430 fd00::5 40001 typ host" in lines
    assert "c=IN IP4 203.0.113.9" in lines
    assert not any("10.0.0.5" in line for line in lines)


def test_a_public_ipv6_address_leaves_ipv4_alone() -> None:
    lines = sdp.finish_answer(ANSWER, offer(), "2001:db8::9").splitlines()
    assert "a=candidate:1 1 udp 2130706431 10.0.0.5 40000 typ host" in lines
    assert "a=candidate:2 1 udp 2130706430 2001:db8::9 40001 typ host" in lines


def test_formats_are_answered_in_the_order_of_the_offer() -> None:
    phone = offer(formats=[*h264(98, "42e01f"), *VP8])
    assert "m=video 9 UDP/TLS/RTP/SAVPF 98 99 96 97" in sdp.finish_answer(ANSWER, phone)


def test_the_answer_asks_for_error_correction_and_takes_full_intra_requests() -> None:
    answer = sdp.finish_answer(ANSWER, offer())
    assert (
        "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1;usedtx=1\r\n" in answer
    )
    assert "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 ccm fir\r\n" in answer
    assert "a=rtcp-fb:97" not in answer


def test_nothing_is_accepted_that_was_not_offered() -> None:
    assert "ccm fir" not in sdp.finish_answer(ANSWER, offer().replace("ccm fir", "nack rpsi"))
