"""One camera or microphone coming in, from honest senders and from others."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_PLI,
    RTCP_RTPFB_NACK,
    RtcpByePacket,
    RtcpPsfbPacket,
    RtcpRrPacket,
    RtcpRtpfbPacket,
    RtcpSenderInfo,
    RtcpSrPacket,
    unpack_remb_fci,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from calliope import vp8
from calliope.clock import FakeClock, SystemClock
from calliope.media import AudioPacket, VideoFeed
from calliope.metrics import Metrics
from calliope.transport import receiver as receiver_module
from calliope.transport.aiortc_seams import MediaReceiver
from calliope.transport.receiver import AudioIn, VideoIn
from calliope.transport.rtp import RtpPacket
from tests.transport.media_peers import (
    GreyMixer,
    GreyTrack,
    Lossy,
    StandInReceiver,
    StockCall,
    dropped,
    encode,
    luma_of,
    until,
)

MAX_PIXELS = 640 * 480


def rtp(
    sequence: int,
    timestamp: int,
    payload: bytes,
    *,
    marker: bool = False,
    payload_type: int = 96,
    ssrc: int = 1000,
    extensions: bytes = b"",
) -> RtpPacket:
    return RtpPacket(
        payload_type=payload_type,
        marker=marker,
        sequence=sequence & 0xFFFF,
        timestamp=timestamp,
        ssrc=ssrc,
        payload=payload,
        extension_profile=0xBEDE if extensions else 0,
        extensions=extensions,
    )


class Camera:
    """Numbers and packetises coded pictures as a browser does."""

    def __init__(self, ssrc: int = 1000) -> None:
        self.sequence = 65_530
        self.timestamp = 0
        self.ssrc = ssrc

    def vp8(self, data: bytes, max_payload: int = 100) -> list[RtpPacket]:
        payloads = vp8.packetise(data, 1, max_payload)
        return self._packets(payloads, 96)

    def h264(self, data: bytes) -> list[RtpPacket]:
        """Access unit to packets: each NAL unit whole, or cut into FU-A (RFC 6184)."""
        payloads = []
        for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]:
            if len(unit) < 100:
                payloads.append(unit)
                continue
            chunks = [unit[at : at + 99] for at in range(1, len(unit), 99)]
            for number, chunk in enumerate(chunks):
                flags = (0x80 if number == 0 else 0) | (0x40 if number == len(chunks) - 1 else 0)
                payloads.append(bytes([unit[0] & 0xE0 | 28, flags | unit[0] & 0x1F]) + chunk)
        return self._packets(tuple(payloads), 98)

    def _packets(self, payloads: tuple[bytes, ...], payload_type: int) -> list[RtpPacket]:
        packets = []
        for number, payload in enumerate(payloads):
            packets.append(
                rtp(
                    self.sequence,
                    self.timestamp,
                    payload,
                    marker=number == len(payloads) - 1,
                    payload_type=payload_type,
                    ssrc=self.ssrc,
                )
            )
            self.sequence += 1
        self.timestamp += 3000
        return packets


class Watcher:
    """A VideoIn on a stand-in receiver, with what came of it."""

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.metrics = Metrics()
        self.receiver = StandInReceiver()
        self.feeds: list[VideoFeed] = []
        self.video = VideoIn(SystemClock(), self.metrics, max_pixels, self.feeds.append)
        self.video.attach(self.receiver.as_receiver())

    def take(self, packets: list[RtpPacket]) -> None:
        for packet in packets:
            self.video.receive_rtp(packet)

    def plis(self) -> int:
        return len(self.receiver.sent_of(RtcpPsfbPacket, RTCP_PSFB_PLI))

    def nacked(self) -> list[int]:
        nacks = self.receiver.sent_of(RtcpRtpfbPacket, RTCP_RTPFB_NACK)
        return [sequence for nack in nacks for sequence in nack.lost]

    def luma(self) -> int | None:
        """The brightness of the newest picture."""
        frame = self.feeds[-1].source.latest() if self.feeds else None
        return None if frame is None else luma_of(frame.y)

    def size(self) -> tuple[int, int] | None:
        frame = self.feeds[-1].source.latest() if self.feeds else None
        return None if frame is None else (frame.width, frame.height)


def near(luma: int) -> Callable[[int | None], bool]:
    return lambda seen: seen is not None and abs(seen - luma) <= 4


@pytest.fixture
async def watcher() -> AsyncIterator[Watcher]:
    watcher = Watcher()
    yield watcher
    await watcher.video.close()


async def test_a_camera_s_picture_is_there_without_a_following_one(watcher: Watcher) -> None:
    (data,) = encode("VP8", [100])
    watcher.take(Camera().vp8(data))
    await until(lambda: near(100)(watcher.luma()))
    assert watcher.size() == (160, 120)
    assert len(watcher.feeds) == 1
    assert watcher.plis() == 0


@pytest.mark.parametrize("size", [(160, 120), (175, 99), (320, 240)])
async def test_h264_in_single_units_and_fragments(watcher: Watcher, size: tuple[int, int]) -> None:
    camera = Camera()
    width, height = size[0] & ~1, size[1] & ~1
    for data in encode("H264", [60, 90, 120], width, height):
        watcher.take(camera.h264(data))
    await until(lambda: near(120)(watcher.luma()))
    assert watcher.size() == (width, height)


async def test_a_phone_that_is_turned_changes_the_size_in_the_middle(watcher: Watcher) -> None:
    camera = Camera()
    for data in encode("VP8", [80, 90], 160, 120):
        watcher.take(camera.vp8(data))
    await until(lambda: watcher.size() == (160, 120))
    for data in encode("VP8", [120, 130], 120, 160):
        watcher.take(camera.vp8(data))
    await until(lambda: watcher.size() == (120, 160))
    assert len(watcher.feeds) == 1


async def test_a_sender_may_change_its_codec(watcher: Watcher) -> None:
    camera = Camera()
    for data in encode("VP8", [80, 90]):
        watcher.take(camera.vp8(data))
    await until(lambda: near(90)(watcher.luma()))
    for data in encode("H264", [150, 160]):
        watcher.take(camera.h264(data))
    await until(lambda: near(160)(watcher.luma()))


async def test_heard_moves_with_every_packet() -> None:
    clock = FakeClock()
    feeds: list[VideoFeed] = []
    video = VideoIn(clock, Metrics(), MAX_PIXELS, feeds.append)
    video.attach(StandInReceiver().as_receiver())
    camera = Camera()
    (data,) = encode("VP8", [100])
    for packet in camera.vp8(data):
        video.receive_rtp(packet)
    arrived_ns = clock.now_ns()
    await until(lambda: bool(feeds))
    frame = feeds[0].source.latest()
    assert frame is not None
    assert frame.arrived_ns == arrived_ns
    clock.advance(ms=700)
    video.receive_rtp(rtp(camera.sequence, 0, b""))
    assert feeds[0].heard_ns == clock.now_ns()
    await video.close()


async def test_a_lost_packet_is_asked_for_until_it_comes_as_rtx(watcher: Watcher) -> None:
    camera = Camera()
    key, second = encode("VP8", [60, 200])
    watcher.take(camera.vp8(key))
    packets = camera.vp8(second, max_payload=20)
    lost = packets.pop(1)
    watcher.take(packets)
    await until(lambda: watcher.nacked().count(lost.sequence) >= 3)
    assert set(watcher.nacked()) == {lost.sequence}
    again = rtp(9, lost.timestamp, lost.sequence.to_bytes(2, "big") + lost.payload,
                payload_type=97, ssrc=4000)  # fmt: skip
    watcher.video.receive_rtp(again)
    await until(lambda: near(200)(watcher.luma()))
    assert watcher.plis() == 0


async def test_a_gap_over_the_wrap_of_the_numbers_is_asked_for(watcher: Watcher) -> None:
    camera = Camera()
    key, second, third = encode("VP8", [60, 70, 80])
    camera.sequence = 0xFFFE
    watcher.take(camera.vp8(key, 10_000))
    lost = camera.vp8(second, 10)[:4]  # 0xFFFF, 0, 1, 2
    camera.sequence = 3
    watcher.take(camera.vp8(third, 10_000))
    await until(lambda: watcher.nacked().count(2) >= 2)
    assert set(watcher.nacked()) == {0xFFFF, 0, 1, 2}
    assert [packet.sequence for packet in lost] == [0xFFFF, 0, 1, 2]


async def test_a_picture_that_is_never_repaired_is_replaced_by_a_keyframe(
    watcher: Watcher,
) -> None:
    camera = Camera()
    key, lost, after = encode("VP8", [60, 61, 62])
    watcher.take(camera.vp8(key))
    camera.vp8(lost)
    watcher.take(camera.vp8(after))
    await until(lambda: watcher.plis() >= 2)  # and again, until a keyframe comes
    watcher.take(camera.vp8(encode("VP8", [180])[0]))
    await until(lambda: near(180)(watcher.luma()))
    asked = watcher.plis()
    assert dropped(watcher.metrics, "video_in", "gave_up") == 1
    await asyncio.sleep(receiver_module.PLI_INTERVAL_NS / 1e9 * 1.5)
    assert watcher.plis() == asked


async def test_a_camera_that_begins_in_the_middle_is_asked_for_a_keyframe(
    watcher: Watcher,
) -> None:
    camera = Camera()
    _key, delta = encode("VP8", [60, 61])
    watcher.take(camera.vp8(delta))
    assert watcher.plis() == 1
    assert watcher.feeds == []


async def test_a_keyframe_of_16383_by_16383_is_refused_before_it_is_decoded(
    watcher: Watcher,
) -> None:
    camera = Camera()
    (data,) = encode("VP8", [100])
    huge = data[:6] + b"\xff\x3f\xff\x3f" + data[10:]
    watcher.take(camera.vp8(huge))
    await until(lambda: dropped(watcher.metrics, "decoder", "broken") == 1)
    await until(lambda: watcher.plis() >= 1)
    assert watcher.feeds == []
    watcher.take(camera.vp8(data))
    await until(lambda: near(100)(watcher.luma()))


async def test_an_h264_picture_over_the_limit_is_refused() -> None:
    watcher = Watcher(max_pixels=160 * 120)
    camera = Camera()
    for data in encode("H264", [100], 640, 480):
        watcher.take(camera.h264(data))
    await until(lambda: dropped(watcher.metrics, "decoder", "broken") == 1)
    for data in encode("H264", [100], 160, 120):
        watcher.take(camera.h264(data))
    await until(lambda: watcher.size() == (160, 120))
    await watcher.video.close()


async def test_garbage_in_a_good_stream_costs_a_keyframe_and_no_more(watcher: Watcher) -> None:
    camera = Camera()
    coded = encode("VP8", [60, 70])
    watcher.take(camera.vp8(coded[0]))
    await until(lambda: bool(watcher.feeds))
    watcher.take([rtp(camera.sequence, camera.timestamp, b"\x80", marker=True)])
    camera.sequence += 1
    camera.timestamp += 3000
    watcher.take(camera.vp8(b"\x00" * 40))  # says it is a keyframe
    await until(lambda: dropped(watcher.metrics, "decoder", "broken") >= 1)
    await until(lambda: watcher.plis() >= 1)
    watcher.take(camera.vp8(encode("VP8", [190])[0]))
    await until(lambda: near(190)(watcher.luma()))
    assert dropped(watcher.metrics, "video_in", "malformed") == 1


SEQUENCES = st.one_of(st.integers(0, 0xFFFF), st.integers(0, 40), st.integers(0xFFE0, 0xFFFF))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            SEQUENCES,
            st.integers(0, 3),
            st.one_of(st.binary(max_size=60), st.just(b"\x90\x80\x01\x00key")),
            st.booleans(),
            st.sampled_from([96, 97, 98]),
            st.integers(1, 3),
            st.binary(max_size=8),
            st.integers(0, 200),
        ),
        max_size=40,
    )
)
def test_no_packet_whatsoever_raises_nor_do_the_timers(packets: list[tuple[Any, ...]]) -> None:
    async def feed() -> None:
        clock = FakeClock()
        receiver = StandInReceiver()  # reads back all that it is to send
        video = VideoIn(clock, Metrics(), MAX_PIXELS, lambda _feed: None)
        video.attach(receiver.as_receiver())
        for sequence, timestamp, payload, marker, kind, ssrc, extensions, wait_ms in packets:
            video.receive_rtp(
                rtp(sequence, timestamp, payload, marker=marker, payload_type=kind, ssrc=ssrc,
                    extensions=extensions)
            )  # fmt: skip
            clock.advance(ms=wait_ms)
            video._sweep()
            if video._reports is not None:
                video._reports._send()
        await video.close()

    asyncio.run(feed())


async def test_a_second_stream_waits_until_the_first_is_silent() -> None:
    clock = FakeClock()
    metrics = Metrics()
    feeds: list[VideoFeed] = []
    video = VideoIn(clock, metrics, MAX_PIXELS, feeds.append)
    video.attach(StandInReceiver().as_receiver())
    first, second = Camera(ssrc=1), Camera(ssrc=2)
    for packet in first.vp8(encode("VP8", [60])[0]):
        video.receive_rtp(packet)
    intruder = second.vp8(encode("VP8", [200])[0])
    video.receive_rtp(intruder[0])
    assert dropped(metrics, "video_in", "other_source") == 1
    clock.advance(s=2)
    for packet in intruder:
        video.receive_rtp(packet)
    await until(lambda: bool(feeds))
    await until(lambda: luma_of(feeds[0].source.latest().y) > 190)  # type: ignore[union-attr]
    await video.close()


async def test_goodbye_does_not_end_the_stream(watcher: Watcher) -> None:
    camera = Camera()
    first, second = encode("VP8", [60, 160])
    watcher.take(camera.vp8(first))
    watcher.video.receive_rtcp(RtcpByePacket(sources=[1000]))
    watcher.take(camera.vp8(second))
    await until(lambda: near(160)(watcher.luma()))


async def test_the_sender_is_told_what_arrived_and_how_much_it_may_send() -> None:
    clock = FakeClock()
    receiver = StandInReceiver()
    metrics = Metrics()
    video = VideoIn(clock, metrics, MAX_PIXELS, lambda _feed: None)
    video.attach(receiver.as_receiver())
    video.limit_bps = 100_000
    info = RtcpSenderInfo(
        ntp_timestamp=0x0001_0002_0003_0004, rtp_timestamp=0, packet_count=1, octet_count=1
    )
    stamp = b"\x32\x01\x02\x03"
    for sequence in (1, 2, 5, 6):  # two lost of six
        video.receive_rtp(rtp(sequence, 0, b"\x90\x80\x01x", extensions=stamp))
    video.receive_rtcp(RtcpSrPacket(ssrc=1000, sender_info=info))
    clock.advance(ms=500)
    remb = receiver.sent_of(RtcpPsfbPacket, RTCP_PSFB_APP)[0]
    bps, ssrcs = unpack_remb_fci(remb.fci)
    assert ssrcs == [1000]
    assert 99_000 < bps <= 100_000
    await until(lambda: any(isinstance(p, RtcpRrPacket) for p in receiver.sent))
    (report,) = next(p for p in receiver.sent if isinstance(p, RtcpRrPacket)).reports
    assert report.ssrc == 1000
    assert report.packets_lost == 2
    assert report.fraction_lost == 256 * 2 // 6
    assert report.highest_sequence == 6
    assert report.lsr == 0x0002_0003
    assert report.dlsr == 32768
    lost = metrics.registry.get_sample_value("calliope_loss_share_sum", {"direction": "in"})
    assert lost == report.fraction_lost / 256
    await video.close()


async def test_what_was_received_is_dated_by_the_senders_last_report() -> None:
    receiver = StandInReceiver()
    video = VideoIn(FakeClock(), Metrics(), MAX_PIXELS, lambda _feed: None)
    video.attach(receiver.as_receiver())
    video.receive_rtp(rtp(1, 0xFFFF_FF00, b"\x90\x80\x01x"))
    assert video.ntp_ns(0) is None
    info = RtcpSenderInfo(
        ntp_timestamp=100 << 32 | 1 << 31, rtp_timestamp=0xFFFF_FF00, packet_count=1, octet_count=1
    )
    video.receive_rtcp(RtcpSrPacket(ssrc=1000, sender_info=info))
    half_s = 500_000_000
    assert video.ntp_ns(0xFFFF_FF00) == 100 * 2 * half_s + half_s
    assert video.ntp_ns(0xFFFF_FF00 - 45_000) == 100 * 2 * half_s
    assert video.ntp_ns(45_000 - 0x100) == 101 * 2 * half_s  # timestamps wrap
    await video.close()


async def test_sound_goes_to_its_sink_with_level_and_time() -> None:
    clock = FakeClock()
    got: list[AudioPacket] = []

    class Sink:
        def push(self, packet: AudioPacket) -> None:
            got.append(packet)

    metrics = Metrics()
    audio = AudioIn(clock, metrics, Sink())
    audio.attach(StandInReceiver().as_receiver())
    audio.receive_rtp(rtp(5, 960, b"opus", payload_type=111, extensions=b"\x20\x9e\x00\x00"))
    audio.receive_rtp(rtp(6, 1920, b"opus2", payload_type=111))
    audio.receive_rtp(rtp(7, 2880, b"", payload_type=111))
    audio.receive_rtp(rtp(8, 3840, b"g722", payload_type=9))
    audio.receive_rtp(rtp(9, 3840, b"other", payload_type=111, ssrc=2))
    assert [(p.sequence, p.timestamp_48k, p.data, p.level) for p in got] == [
        (5, 960, b"opus", 30),
        (6, 1920, b"opus2", None),
    ]
    assert got[0].arrived_ns == clock.now_ns() == audio.heard_ns
    assert dropped(metrics, "audio_in", "codec") == 1
    assert dropped(metrics, "audio_in", "other_source") == 1
    audio.close()
    audio.receive_rtp(rtp(10, 4800, b"opus", payload_type=111))
    assert len(got) == 2


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_a_stock_client_is_seen(codec: str) -> None:
    call = StockCall(video=GreyTrack(), codec=codec)
    await call.offer()
    feeds: list[VideoFeed] = []
    video = VideoIn(SystemClock(), call.metrics, MAX_PIXELS, feeds.append)
    video.attach(call.receiver("video"))
    await call.answer()
    serials: set[int] = set()

    def seen() -> int:
        frame = feeds[0].source.latest() if feeds else None
        if frame is not None:
            serials.add(frame.serial)
        return len(serials)

    await until(lambda: seen() >= 20)
    await video.close()
    await call.close()


@pytest.mark.parametrize(
    ("up", "down"),
    [
        (Lossy(0.05, seed=3), Lossy(0.05, seed=4)),
        (Lossy(0, seed=5, repeated=0.1, delayed=0.2), Lossy(0, seed=6, repeated=0.1, delayed=0.2)),
    ],
    ids=["lossy", "reordered and repeated"],
)
async def test_a_camera_over_a_bad_link_stays_fluent(up: Lossy, down: Lossy) -> None:
    """Five percent lost both ways, or many out of order: hardly a picture is missing."""
    track = GreyTrack()
    call = StockCall(video=track)
    await call.offer()
    feeds: list[VideoFeed] = []
    video = VideoIn(SystemClock(), call.metrics, MAX_PIXELS, feeds.append)
    video.attach(call.receiver("video"))
    await call.answer()
    call.lose(up=up, down=down)
    await until(lambda: track.sent >= 200, 60)
    sent = track.sent
    await until(lambda: feeds[0].source.latest().serial >= 0.9 * sent)  # type: ignore[union-attr]
    assert up.lost + up.disturbed > 5
    await video.close()
    await call.close()


async def test_a_camera_is_back_after_the_link_was_dark() -> None:
    """Everything lost for longer than gaps are asked for: a keyframe, and it goes on."""
    track = GreyTrack()
    call = StockCall(video=track)
    await call.offer()
    feeds: list[VideoFeed] = []
    video = VideoIn(SystemClock(), call.metrics, MAX_PIXELS, feeds.append)
    video.attach(call.receiver("video"))
    await call.answer()
    link = Lossy(0)
    call.lose(up=link)
    await until(lambda: bool(feeds))

    def serial() -> int:
        frame = feeds[0].source.latest()
        return 0 if frame is None else frame.serial

    for _ in range(3):
        link.dark = True
        sent = track.sent
        await until(lambda: track.sent >= sent + 20)  # noqa: B023
        before = serial()
        link.dark = False
        await until(lambda: serial() >= before + 20)  # noqa: B023
    assert link.lost > 30
    await video.close()
    await call.close()


async def test_ten_calls_leave_no_thread_task_or_socket() -> None:
    async def one_call() -> None:
        call = StockCall(video=GreyTrack(), audio="audio")
        await call.offer()
        feeds: list[VideoFeed] = []
        video = VideoIn(SystemClock(), call.metrics, MAX_PIXELS, feeds.append)
        video.attach(call.receiver("video"))
        await call.answer()
        await until(lambda: bool(feeds))
        await video.close()
        await call.close()

    await one_call()  # what is made once: executors, caches
    threads, tasks = threading.active_count(), len(asyncio.all_tasks())
    for _ in range(9):
        await one_call()
    await until(lambda: len(asyncio.all_tasks()) == tasks)
    assert threading.active_count() <= threads
    gc.collect()
    alive = [o for o in gc.get_objects() if issubclass(type(o), MediaReceiver | VideoIn)]
    assert len(alive) <= 2  # what the last call's cycles still hold


async def test_closing_does_not_wait_on_the_loop_for_a_busy_decoder() -> None:
    watcher = Watcher()
    mixer = GreyMixer(640, 480, 1200)
    camera = Camera()
    for _ in range(30):
        watcher.take(camera._packets(mixer.next_frame().payloads, 96))
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.ensure_future(turn())
    await watcher.video.close()
    await watcher.video.close()
    turning.cancel()
    assert turns > 0
    assert not any(thread.name == "decoder" for thread in threading.enumerate())
