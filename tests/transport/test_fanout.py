"""One viewer: when it gets pictures, what its packets look like, what its feedback does."""

from __future__ import annotations

import asyncio
import struct

import av
import pytest
from aiortc.rtcrtpparameters import RTCRtpHeaderExtensionParameters, RTCRtpParameters
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    HeaderExtensionsMap,
    RtcpByePacket,
    RtcpPacket,
    RtcpPsfbPacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSrPacket,
    RtpPacket,
    pack_remb_fci,
    unwrap_rtx,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope.clock import FakeClock
from calliope.media import EncodedAudio, EncodedFrame
from calliope.metrics import Metrics
from calliope.transport import fanout, resend
from calliope.transport.audio_out import AudioOut
from calliope.transport.fanout import VideoOut
from calliope.transport.history import RESENDS_MAX, History
from calliope.transport.padding import PAD_S
from tests.transport.media_peers import (
    GreyMixer,
    GreyTrack,
    Lossy,
    StandInSender,
    StockCall,
    dropped,
    silence,
    until,
)


def frame(packets: int, keyframe: bool, pts_90k: int = 0) -> EncodedFrame:
    return EncodedFrame(tuple(b"%d/%d" % (pts_90k, n) for n in range(packets)), keyframe, pts_90k)


def extensions() -> HeaderExtensionsMap:
    read = HeaderExtensionsMap()
    uris = {
        1: "urn:ietf:params:rtp-hdrext:sdes:mid",
        3: "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    }
    read.configure(
        RTCRtpParameters(
            headerExtensions=[RTCRtpHeaderExtensionParameters(i, uri) for i, uri in uris.items()]
        )
    )
    return read


class Viewer:
    """A VideoOut on a stand-in sender, and how often it asked for a keyframe."""

    def __init__(self, rtx: bool = True) -> None:
        self.metrics = Metrics()
        self.asked = 0
        self.clock = FakeClock()
        self.sender = StandInSender(rtx, self.clock)
        self.out = VideoOut(self.metrics, self._ask)
        self.out.attach(self.sender.as_sender())

    def _ask(self) -> None:
        self.asked += 1

    def sent(self) -> list[RtpPacket]:
        return [RtpPacket.parse(data, extensions()) for data in self.sender.packets]


@pytest.fixture
def viewer() -> Viewer:
    return Viewer()


async def test_a_viewer_gets_nothing_before_it_is_connected(viewer: Viewer) -> None:
    viewer.out.push(frame(2, keyframe=True))
    assert viewer.sender.packets == []
    assert viewer.asked == 0


async def test_the_late_joiner_begins_at_a_keyframe(viewer: Viewer) -> None:
    viewer.out.started()
    assert viewer.asked == 1
    viewer.out.push(frame(1, keyframe=False, pts_90k=0))
    viewer.out.push(frame(2, keyframe=True, pts_90k=3000))
    viewer.out.push(frame(1, keyframe=False, pts_90k=6000))
    assert [p.payload for p in viewer.sent()] == [b"3000/0", b"3000/1", b"6000/0"]
    assert dropped(viewer.metrics, "video_out", "awaits_keyframe") == 1
    viewer.out.close()


async def test_packets_are_what_any_receiver_reads(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(3, keyframe=True, pts_90k=9000))
    packets = viewer.sent()
    assert [p.marker for p in packets] == [0, 0, 1]
    assert {p.timestamp for p in packets} == {viewer.out.rtp_timestamp(9000)}
    assert {(p.ssrc, p.payload_type) for p in packets} == {(11, 96)}
    first = packets[0].sequence_number
    assert [p.sequence_number for p in packets] == [first, first + 1, first + 2]
    assert {p.extensions.mid for p in packets} == {"0"}
    sent_at = (viewer.sender.timeline.ntp_now() >> 14) & 0xFF_FFFF
    assert all((sent_at - (p.extensions.abs_send_time or 0)) % (1 << 24) < 1 << 20 for p in packets)
    viewer.out.close()


async def test_the_timestamp_of_any_picture_is_known_beforehand(viewer: Viewer) -> None:
    first = viewer.out.rtp_timestamp(0)
    assert viewer.out.rtp_timestamp(3000) == (first + 3000) & 0xFFFF_FFFF
    assert viewer.out.rtp_timestamp(1 << 32) == first


async def test_a_large_keyframe_goes_out_in_slices(viewer: Viewer) -> None:
    viewer.out.started()
    count = 3 * fanout.SLICE_PACKETS + 1
    viewer.out.push(frame(count, keyframe=True))
    assert len(viewer.sender.packets) == fanout.SLICE_PACKETS
    viewer.out.push(frame(1, keyframe=False, pts_90k=3000))
    await until(lambda: len(viewer.sender.packets) == count + 1)
    packets = viewer.sent()
    assert [p.payload for p in packets] == [b"0/%d" % n for n in range(count)] + [b"3000/0"]
    assert [p.marker for p in packets] == [0] * (count - 1) + [1, 1]
    viewer.out.close()


async def test_a_viewer_behind_its_pacer_drops_to_the_next_keyframe(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.asked = 0
    viewer.clock.advance(ns=fanout.KEYFRAME_RETRY_NS)
    viewer.out.push(frame(2 * fanout.SLICE_PACKETS, keyframe=True))
    for number in range(1, fanout.QUEUE_FRAMES + 1):
        viewer.out.push(frame(1, keyframe=False, pts_90k=number))
    assert viewer.asked == 1
    assert dropped(viewer.metrics, "video_out", "overflow") == fanout.QUEUE_FRAMES
    viewer.out.push(frame(1, keyframe=False, pts_90k=90))
    await until(lambda: len(viewer.sender.packets) == 2 * fanout.SLICE_PACKETS)
    viewer.out.push(frame(1, keyframe=True, pts_90k=99))
    assert viewer.sent()[-1].payload == b"99/0"
    assert len(viewer.sender.packets) == 2 * fanout.SLICE_PACKETS + 1
    viewer.out.close()


async def test_a_newer_keyframe_replaces_what_waits(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(fanout.SLICE_PACKETS + 1, keyframe=True))
    viewer.out.push(frame(1, keyframe=False, pts_90k=1))
    viewer.out.push(frame(1, keyframe=True, pts_90k=2))
    await until(lambda: len(viewer.sender.packets) == fanout.SLICE_PACKETS + 2)
    assert viewer.sent()[-1].payload == b"2/0"
    assert dropped(viewer.metrics, "video_out", "superseded") == 1
    viewer.out.close()


def nack(*lost: int) -> RtcpRtpfbPacket:
    return RtcpRtpfbPacket(fmt=RTCP_RTPFB_NACK, ssrc=5, media_ssrc=11, lost=list(lost))


async def test_a_lost_packet_is_sent_again_as_rtx(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(5, keyframe=True, pts_90k=77))
    original = viewer.sent()[2]
    viewer.out.receive_rtcp(nack(original.sequence_number))
    again = viewer.sent()[5]
    assert (again.ssrc, again.payload_type) == (12, 97)
    repaired = unwrap_rtx(again, payload_type=96, ssrc=11)
    assert repaired.sequence_number == original.sequence_number
    assert repaired.payload == original.payload
    assert repaired.timestamp == original.timestamp
    viewer.out.close()


async def test_without_rtx_the_packet_itself_is_sent_again() -> None:
    viewer = Viewer(rtx=False)
    viewer.out.started()
    viewer.out.push(frame(3, keyframe=True))
    original = viewer.sent()[2]
    viewer.out.receive_rtcp(nack(original.sequence_number))
    again = viewer.sent()[3]
    assert again.ssrc == original.ssrc
    assert again.sequence_number == original.sequence_number
    assert again.marker == 1
    viewer.out.close()


async def test_a_whole_keyframe_can_be_asked_for_again_and_nobody_else_s_packets(
    viewer: Viewer,
) -> None:
    viewer.out.started()
    viewer.out.push(frame(120, keyframe=True))
    await until(lambda: len(viewer.sender.packets) == 120)
    wanted = [p.sequence_number for p in viewer.sent()]
    viewer.out.receive_rtcp(nack(*wanted))
    assert len(viewer.sender.packets) == 240
    viewer.out.receive_rtcp(nack(wanted[0] - 1, wanted[-1] + 1))
    assert len(viewer.sender.packets) == 240
    assert dropped(viewer.metrics, "video_out", "resend_gone") == 2
    viewer.out.close()


async def test_a_flood_of_nacks_costs_no_more_searches_than_packets_may_be_sent_again(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []
    find = History.find

    def note(history: History, sequence: int) -> tuple[int, bool, bytes]:
        searched.append(sequence)
        return find(history, sequence)

    monkeypatch.setattr(History, "find", note)
    viewer.out.started()
    viewer.out.push(frame(100, keyframe=True))
    await until(lambda: len(viewer.sender.packets) == 100)
    wanted = [p.sequence_number for p in viewer.sent()]
    for _ in range(100):
        viewer.out.receive_rtcp(nack(*wanted))
        viewer.out.receive_rtcp(nack(*[wanted[0]] * 1000))
        viewer.out.receive_rtcp(nack(*range(wanted[-1] + 1, wanted[-1] + 1000)))
    assert sorted(searched) == wanted
    assert len(viewer.sender.packets) == 200
    assert dropped(viewer.metrics, "video_out", "resend_gone") == 100 * 999
    viewer.out.close()


async def test_on_a_lossy_link_what_is_sent_again_follows_once_more(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(3, keyframe=True))
    first = viewer.sent()[0].sequence_number
    viewer.out.receive_rtcp(nack(first))
    assert len(viewer.sender.packets) == 4
    await asyncio.sleep(3 * resend.TWICE_S)
    assert len(viewer.sender.packets) == 4
    info = RtcpReceiverInfo(
        ssrc=11, fraction_lost=26, packets_lost=1, highest_sequence=1, jitter=0, lsr=0, dlsr=0
    )
    for _ in range(5):
        viewer.out.receive_rtcp(RtcpRrPacket(ssrc=5, reports=[info]))
    viewer.out.receive_rtcp(nack(first + 1, first + 2))
    await until(lambda: len(viewer.sender.packets) == 8)
    again = [unwrap_rtx(p, payload_type=96, ssrc=11).sequence_number for p in viewer.sent()[4:]]
    assert again == [first + 1, first + 2] * 2
    viewer.out.receive_rtcp(nack(first))
    viewer.out.close()
    await asyncio.sleep(3 * resend.TWICE_S)  # a timer that was left would send now
    assert len(viewer.sender.packets) <= 9
    viewer.out.close()


async def test_nacks_cannot_make_a_flood(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(100, keyframe=True))
    await until(lambda: len(viewer.sender.packets) == 100)
    wanted = [p.sequence_number for p in viewer.sent()]
    viewer.out.receive_rtcp(nack(*wanted))
    viewer.out.receive_rtcp(nack(*wanted))
    assert len(viewer.sender.packets) == 200  # the two crossed: nothing twice within a moment
    for _ in range(20):
        viewer.clock.advance(ms=50)
        viewer.out.receive_rtcp(nack(*wanted))
    assert len(viewer.sender.packets) <= 100 + 2 * resend.RESEND_BUDGET
    for _ in range(100):
        viewer.clock.advance(s=1)
        viewer.out.receive_rtcp(nack(*wanted))
    assert len(viewer.sender.packets) == 100 + 100 * RESENDS_MAX
    viewer.out.close()


async def test_padding_repeats_what_was_just_sent_at_the_rate_asked_for(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(EncodedFrame((b"a" * 200, b"b" * 1100, b"c" * 50), True, 0))
    viewer.out.pad(1_000_000)
    reports = len(viewer.sender.rtcp)
    for sent in range(4, 30):
        await until(lambda sent=sent: len(viewer.sender.packets) >= sent or advance(viewer))  # type: ignore[misc]
    media, padding = viewer.sent()[:3], viewer.sent()[3:]
    assert {p.ssrc for p in padding} == {12}
    numbers = [p.sequence_number for p in padding]
    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
    again = unwrap_rtx(padding[0], payload_type=96, ssrc=11)
    assert (again.sequence_number, again.payload) == (media[1].sequence_number, b"b" * 1100)
    assert len(viewer.sender.rtcp) > reports  # round trips are measured meanwhile
    seconds = (viewer.clock.now_ns() - 1_000_000_000) / 1e9
    assert abs(sum(map(len, viewer.sender.packets[3:])) * 8 / seconds / 1_000_000 - 1) < 0.25
    viewer.out.pad(0)
    await asyncio.sleep(2 * PAD_S)
    before = len(viewer.sender.packets)
    viewer.clock.advance(s=1)
    await asyncio.sleep(2 * PAD_S)
    assert len(viewer.sender.packets) == before
    viewer.out.close()


def advance(viewer: Viewer) -> bool:
    """A little more time on the viewer's clock; it is not yet what is waited for."""
    viewer.clock.advance(ms=5)
    return False


async def test_who_does_not_take_padding_gets_none() -> None:
    viewer = Viewer(rtx=False)
    viewer.out.started()
    assert not viewer.out.can_pad
    viewer.out.push(frame(3, keyframe=True))
    viewer.out.pad(1_000_000)
    viewer.clock.advance(s=1)
    await asyncio.sleep(2 * PAD_S)
    assert len(viewer.sender.packets) == 3
    viewer.out.close()


async def test_a_narrow_link_gets_a_keyframe_little_by_little_and_whole(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.pace(2_000_000)
    viewer.out.push(EncodedFrame(tuple(bytes((n,)) * 1200 for n in range(20)), True, 0))
    assert 1 <= len(viewer.sender.packets) <= 4
    for pts in range(1, 12):  # more than a wide link's queue holds
        viewer.out.push(frame(1, keyframe=False, pts_90k=3000 * pts))
    await until(lambda: len(viewer.sender.packets) == 31)
    assert dropped(viewer.metrics, "video_out", "overflow") == 0
    assert [p.payload[:1] for p in viewer.sent()[:20]] == [bytes((n,)) for n in range(20)]
    viewer.out.close()


async def test_behind_a_change_of_stream_nothing_of_the_old_one_is_sent(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.pace(1_000_000)
    viewer.out.push(frame(1, keyframe=True))
    viewer.out.push(EncodedFrame((b"x" * 1200,) * 9, False, 3000))
    viewer.out.push(frame(1, keyframe=False, pts_90k=6000))
    wanted = [p.sequence_number for p in viewer.sent()]
    viewer.out.clear()
    viewer.out.receive_rtcp(nack(*wanted))
    assert dropped(viewer.metrics, "video_out", "resend_gone") == len(wanted)
    viewer.out.push(frame(2, keyframe=True, pts_90k=9000))
    await until(lambda: viewer.sent()[-1].payload == b"9000/1")
    numbers = [p.sequence_number for p in viewer.sent()]
    assert numbers == [(numbers[0] + n) & 0xFFFF for n in range(len(numbers))]
    assert b"6000/0" not in [p.payload for p in viewer.sent()]
    viewer.out.receive_rtcp(nack(numbers[-1]))
    assert viewer.sent()[-1].ssrc == 12
    viewer.out.close()


@pytest.mark.parametrize(
    "message",
    [
        RtcpPsfbPacket(fmt=RTCP_PSFB_PLI, ssrc=5, media_ssrc=11),
        RtcpPsfbPacket(fmt=RTCP_PSFB_FIR, ssrc=5, media_ssrc=0, fci=b"\0\0\0\x0b\x01\0\0\0"),
    ],
)
async def test_pli_and_fir_ask_for_a_keyframe(viewer: Viewer, message: RtcpPsfbPacket) -> None:
    viewer.out.started()
    viewer.asked = 0
    viewer.out.receive_rtcp(message)
    assert viewer.asked == 1
    message.media_ssrc, message.fci = 99, b"\0\0\0\x63\x01\0\0\0"
    viewer.out.receive_rtcp(message)
    assert viewer.asked == 1
    viewer.out.close()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 201, 202, 203, 205, 206]),
            st.integers(0, 31),
            st.one_of(
                st.binary(max_size=60),
                st.binary(max_size=40).map(lambda data: b"\0\0\0\5\0\0\0\x0b" + data),
                st.binary(max_size=40).map(lambda data: b"\0\0\0\5\0\0\0\0REMB" + data),
            ),
        ),
        max_size=5,
    )
)
def test_no_feedback_whatsoever_raises(messages: list[tuple[int, int, bytes]]) -> None:
    async def feed() -> None:
        viewer = Viewer()
        viewer.out.started()
        viewer.out.push(frame(3, keyframe=True))
        for kind, count, body in messages:
            whole = body + bytes(-len(body) % 4)
            head = bytes((0x80 | count, kind)) + (len(whole) // 4).to_bytes(2, "big")
            try:
                packets = RtcpPacket.parse(head + whole)
            except (ValueError, struct.error):
                continue  # refused before it comes here
            for packet in packets:
                viewer.out.receive_rtcp(packet)
        viewer.out.close()

    asyncio.run(feed())


async def test_reports_tell_loss_round_trip_and_estimate(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(1, keyframe=True))
    report = next(p for p in viewer.sender.rtcp if isinstance(p, RtcpSrPacket))
    now = (viewer.sender.timeline.ntp_now() >> 16) & 0xFFFF_FFFF
    assert viewer.out.rtt_ms is None
    info = RtcpReceiverInfo(
        ssrc=11, fraction_lost=128, packets_lost=1, highest_sequence=1, jitter=0,
        lsr=(now - 65536) & 0xFFFF_FFFF, dlsr=32768,
    )  # fmt: skip
    for _ in range(20):
        viewer.out.receive_rtcp(RtcpRrPacket(ssrc=5, reports=[info]))
    assert 0.45 < viewer.out.loss < 0.51
    assert viewer.out.rtt_ms is not None
    assert 490 < viewer.out.rtt_ms < 5000
    told = viewer.out.report
    assert told is not None
    assert (told.lost, told.highest, told.sent_packets) == (1, 1, 1)
    assert told.rtt_ms is None  # of one sender report there is one round trip, not twenty
    counted = viewer.metrics.registry.get_sample_value
    assert counted("calliope_loss_share_sum", {"direction": "out"}) == 20 * 0.5
    assert counted("calliope_round_trip_seconds_count") == 1
    remb = RtcpPsfbPacket(fmt=RTCP_PSFB_APP, ssrc=5, media_ssrc=0, fci=pack_remb_fci(200_000, [11]))
    viewer.out.receive_rtcp(remb)
    assert viewer.out.estimate_bps == 200_000
    remb.fci = b"REMB\x09\x00"
    viewer.out.receive_rtcp(remb)
    assert viewer.out.estimate_bps == 200_000
    assert report.sender_info.rtp_timestamp == viewer.out.rtp_timestamp(0)
    viewer.out.close()


async def test_a_block_of_sound_is_dated_by_when_it_began_against_the_picture() -> None:
    """Lip-sync: of the same media time, the block's first sample is 20 ms older."""
    video_sender, audio_sender = StandInSender(), StandInSender()
    audio_sender.timeline = video_sender.timeline
    video, audio = VideoOut(Metrics(), lambda: None), AudioOut(Metrics())
    video.attach(video_sender.as_sender())
    audio.attach(audio_sender.as_sender())
    video.started()
    audio.started()
    video.push(frame(1, keyframe=True, pts_90k=90_000))
    audio.push(EncodedAudio(b"x", 48_000))
    video_report = next(p for p in video_sender.rtcp if isinstance(p, RtcpSrPacket)).sender_info
    audio_report = next(p for p in audio_sender.rtcp if isinstance(p, RtcpSrPacket)).sender_info
    audio_timestamp = RtpPacket.parse(audio_sender.packets[0]).timestamp

    def second_of(ntp: int, rtp_now: int, rtp: int, clock_hz: int) -> float:
        behind = ((rtp_now - rtp + (1 << 31)) % (1 << 32)) - (1 << 31)
        return ntp / (1 << 32) - behind / clock_hz

    shown = second_of(
        video_report.ntp_timestamp, video_report.rtp_timestamp, video.rtp_timestamp(90_000), 90_000
    )
    heard = second_of(
        audio_report.ntp_timestamp, audio_report.rtp_timestamp, audio_timestamp, 48_000
    )
    assert abs(shown - heard - 0.020) < 0.001
    video.close()
    audio.close()


async def test_the_marker_of_sound_follows_a_pause() -> None:
    sender = StandInSender()
    out = AudioOut(Metrics())
    out.attach(sender.as_sender())
    out.push(silence(0))
    assert sender.packets == []
    out.started()
    for pts in (960, 1920, 2880, 9600, 10560):
        out.push(silence(pts))
    packets = [RtpPacket.parse(data) for data in sender.packets]
    assert [p.marker for p in packets] == [1, 0, 0, 1, 0]
    assert (packets[3].timestamp - packets[2].timestamp) % (1 << 32) == 9600 - 2880
    assert (packets[3].sequence_number - packets[2].sequence_number) % (1 << 16) == 1
    out.close()


async def test_a_closed_viewer_says_goodbye_and_sends_nothing_more(viewer: Viewer) -> None:
    viewer.out.started()
    viewer.out.push(frame(2 * fanout.SLICE_PACKETS, keyframe=True))
    viewer.out.close()
    viewer.out.close()
    sent = len(viewer.sender.packets)
    assert [type(p) for p in viewer.sender.rtcp].count(RtcpByePacket) == 1
    viewer.out.push(frame(1, keyframe=True))
    viewer.out.receive_rtcp(nack(1))
    viewer.out.started()
    viewer.out.push(frame(1, keyframe=True))
    await asyncio.sleep(2 * fanout.SLICE_S)  # a timer that was left would send now
    assert len(viewer.sender.packets) == sent


async def test_a_stock_client_shows_the_picture_even_with_loss() -> None:
    call = StockCall(video=GreyTrack())
    await call.offer()
    mixer = GreyMixer()
    out = VideoOut(call.metrics, mixer.request_keyframe)
    out.attach(call.sender("video"))
    await call.answer()
    lossy = Lossy(0.05)
    call.lose(down=lossy)
    playing = asyncio.ensure_future(mixer.play(out.push))
    async with asyncio.timeout(30):
        for _ in range(60):
            shown = await call.remote_tracks["video"].recv()
            assert isinstance(shown, av.VideoFrame)
            assert (shown.width, shown.height) == (320, 240)
    assert lossy.lost > 0
    await until(lambda: out.rtt_ms is not None and out.loss > 0)
    playing.cancel()
    out.close()
    await call.close()
