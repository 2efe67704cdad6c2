"""Stories of a room, without a network: fake outlets, fake mixers, a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from calliope.clock import FakeClock
from calliope.config import Config, LimitsConfig
from calliope.errors import BadRequest, RoomFull, Unavailable
from calliope.ladder import Link
from calliope.media import AudioPacket, AudioSink, EncodedAudio, EncodedFrame, Frame, VideoFeed
from calliope.member import JoinRequest, Member
from calliope.metrics import Metrics
from calliope.mixer.scene import Layout, Scene, TickOutput, Tile, ViewName
from calliope.mixing import AudioDeliver
from calliope.rooms import Rooms
from calliope.turns import MEMBERS_AT_ONCE, WORK_WAITING
from tests.protocol_examples import messages


class FakeOutlet:
    """Keeps what it is given; its RTP clock starts at 1000."""

    def __init__(self) -> None:
        self.messages: list[Mapping[str, Any]] = []
        self.video: list[EncodedFrame] = []
        self.audio: list[EncodedAudio] = []
        self.ended: list[str] = []
        self.now = Link(loss=0.25, rtt_ms=12.34)
        self.shapes: list[tuple[int | None, int]] = []
        self.limits: list[int | None] = []
        self.log: list[str] = []

    def send_message(self, message: Mapping[str, object]) -> None:
        self.messages.append(message)
        self.log.append(str(message["type"]))

    def send_video(self, frame: EncodedFrame) -> None:
        self.video.append(frame)
        self.log.append("frame")

    def send_audio(self, packet: EncodedAudio) -> None:
        self.audio.append(packet)

    def rtp_timestamp(self, pts_90k: int) -> int:
        return (1000 + pts_90k) % 2**32

    def link(self) -> Link:
        return self.now

    def shape(self, pace_bps: int | None, padding_bps: int) -> None:
        self.shapes.append((pace_bps, padding_bps))

    def clear_video(self) -> None:
        self.log.append("clear")

    def limit_uplink(self, bps: int | None) -> None:
        self.limits.append(bps)

    def end(self, code: str, reason: str) -> None:
        assert reason.endswith(".")
        self.ended.append(code)

    def of(self, type_: str) -> list[Mapping[str, Any]]:
        return [message for message in self.messages if message["type"] == type_]


class FakeVoice:
    def push(self, packet: AudioPacket) -> None:
        raise AssertionError(f"no test sends sound, but here is {packet}")


@dataclass
class FakeVideoMixer:
    deliver: Callable[[TickOutput], None]
    scene: Scene = field(default_factory=Scene)
    keyframes: list[tuple[str, str]] = field(default_factory=list)
    running: bool | None = None

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def join(self) -> None:
        assert self.running is not True

    @property
    def alive(self) -> bool:
        return self.running is True

    def show(self, scene: Scene) -> None:
        self.scene = scene

    def request_keyframe(self, view: ViewName, rendition: str) -> None:
        self.keyframes.append((view, rendition))

    def tick(self, pts_90k: int, *, layout: Layout | None = None, keyframe: bool = True) -> None:
        """Deliver a frame of everything watched."""
        frame = EncodedFrame((b"x",), keyframe, pts_90k)
        frames = tuple((key, frame) for key in sorted(self.scene.watched))
        self.deliver(TickOutput(pts_90k, None, (layout,) if layout else (), frames))


@dataclass
class FakeAudioMixer:
    deliver: AudioDeliver
    voices: dict[str, AudioSink] = field(default_factory=dict)
    muted: dict[str, bool] = field(default_factory=dict)
    gains: dict[tuple[str, str], float] = field(default_factory=dict)
    listeners: set[str] = field(default_factory=set)
    running: bool | None = None

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def join(self) -> None:
        assert self.running is not True

    @property
    def alive(self) -> bool:
        return self.running is True

    def new_voice(self) -> AudioSink:
        return FakeVoice()

    def add(self, id: str, voice: AudioSink) -> None:
        self.voices[id] = voice

    def remove(self, id: str) -> None:
        self.voices.pop(id, None)

    def set_muted(self, id: str, muted: bool) -> None:
        self.muted[id] = muted

    def set_gain(self, listener_id: str, speaker_id: str, gain: float) -> None:
        self.gains[listener_id, speaker_id] = gain

    def listen(self, id: str) -> None:
        self.listeners.add(id)

    def unlisten(self, id: str) -> None:
        self.listeners.discard(id)


class FakeMixers:
    def __init__(self) -> None:
        self.videos: list[FakeVideoMixer] = []
        self.audios: list[FakeAudioMixer] = []

    def video(self, deliver: Callable[[TickOutput], None]) -> FakeVideoMixer:
        self.videos.append(FakeVideoMixer(deliver))
        return self.videos[-1]

    def audio(self, deliver: AudioDeliver) -> FakeAudioMixer:
        self.audios.append(FakeAudioMixer(deliver))
        return self.audios[-1]


class House:
    """A server's rooms with everything around them faked."""

    def __init__(self, **limits: int) -> None:
        self.clock = FakeClock()
        self.mixers = FakeMixers()
        config = Config(limits=LimitsConfig(**limits))
        self.rooms = Rooms(config, self.clock, Metrics(), self.mixers, lambda call: call())
        self.posted: list[Callable[[], None]] = []
        self._secrets = 0

    def run_posted(self) -> None:
        """Let the event loop do what it was given."""
        while self.posted:
            self.posted.pop(0)()

    @property
    def video(self) -> FakeVideoMixer:
        return self.mixers.videos[-1]

    @property
    def audio(self) -> FakeAudioMixer:
        return self.mixers.audios[-1]

    def join(self, name: str | None = "Ada", *, connect: bool = True, **changes: Any) -> Guest:
        self._secrets += 1
        request = JoinRequest(
            **{
                "room": "blue",
                "name": name,
                "role": "participant",
                "secret": f"secret-{self._secrets}",
                **changes,
            }
        )
        outlet = FakeOutlet()
        guest = Guest(self.rooms.join(request, outlet), outlet, request.secret)
        if connect:
            guest.member.connected()
            guest.member.channel_opened()
        return guest


@dataclass
class Guest:
    member: Member
    outlet: FakeOutlet
    secret: str

    def say(self, text: str) -> None:
        self.member.receive(f'{{"type":"chat","text":"{text}"}}')

    def set(self, fields: str) -> None:
        self.member.receive(f'{{"type":"state",{fields}}}')


class StillSource:
    """A camera whose newest frame is the one given."""

    def __init__(self, arrived_ns: int) -> None:
        plane = np.zeros((2, 2), np.uint8)
        self.frame = Frame(plane, plane[:1, :1], plane[:1, :1], 1, arrived_ns)

    def latest(self) -> Frame | None:
        return self.frame


def turn_camera_on(house: House, guest: Guest) -> VideoFeed:
    feed = VideoFeed(StillSource(house.clock.now_ns()), house.clock.now_ns())
    guest.member.set_video(feed)
    return feed


def layout_of(*ids: str, serial: int = 1) -> Layout:
    tiles = tuple(Tile(id, "camera", 0, 0, 640, 360, "crop") for id in ids)
    return Layout("grid", serial, (1280, 720), tiles)


def test_two_meet_and_each_is_told_of_the_other() -> None:
    house = House()
    ada = house.join("Ada")
    grace = house.join("Grace")
    assert [p["name"] for p in grace.outlet.of("welcome")[0]["participants"]] == ["Ada", "Grace"]
    assert grace.outlet.of("welcome")[0]["you"] == grace.member.id
    assert [m["participant"]["name"] for m in ada.outlet.of("joined")] == ["Grace"]
    assert grace.outlet.of("joined") == []
    grace.member.leave(lost=False)
    assert ada.outlet.of("left") == [{"type": "left", "id": grace.member.id}]


def test_a_session_that_has_not_connected_is_seen_by_nobody_and_leaves_no_trace() -> None:
    house = House()
    ada = house.join("Ada")
    ghost = house.join("Ghost", connect=False)
    assert ada.outlet.of("joined") == []
    ghost.member.leave(lost=True)
    assert ada.outlet.of("left") == []
    assert len(house.video.scene.people) == 1


def test_the_documented_shapes_are_the_ones_sent() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    house.video.tick(3000, layout=layout_of("p1", "p2"))
    grace.set('"hand":true')
    grace.say("hi")
    grace.member.receive('{"type":"reaction","emoji":"👏"}')
    grace.member.receive("rubbish")
    ada.member.receive('{"type":"stats","on":true}')
    house.clock.advance(s=1)
    house.rooms.sweep()
    house.audio.deliver(None, {}, frozenset({"p1"}))
    grace.member.leave(lost=False)
    sent: dict[str, Mapping[str, Any]] = {}
    for outlet in (ada.outlet, grace.outlet):
        sent.update({str(m["type"]): m for m in outlet.messages})
    for documented in messages("Server to client"):
        if documented["type"] != "history":
            assert sent[documented["type"]].keys() == documented.keys()


def test_chat_reaches_everybody_and_who_comes_late_reads_the_last_hundred() -> None:
    house = House()
    ada = house.join("Ada")
    for i in range(120):
        house.clock.advance(s=1)
        ada.say(f"message {i}")
    late = house.join("Late")
    assert [m["text"] for m in ada.outlet.of("chat")] == [f"message {i}" for i in range(120)]
    welcome = late.outlet.of("welcome")[0]
    assert [m["text"] for m in welcome["chat"]] == [f"message {i}" for i in range(20, 120)]
    assert "type" not in welcome["chat"][0]


def test_a_long_history_continues_in_messages_that_fit() -> None:
    house = House()
    ada = house.join("Ada")
    for _ in range(100):
        house.clock.advance(s=1)
        ada.say("語" * 1000)
    late = house.join("Late")
    texts = [
        entry["text"]
        for message in late.outlet.messages
        if message["type"] in ("welcome", "history")
        for entry in message["chat"]
    ]
    assert len(texts) == 100
    assert len(late.outlet.of("history")) >= 4


def test_a_chat_flood_is_throttled_and_the_flooder_is_told() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    for i in range(500):
        ada.say(str(i))
    assert len(grace.outlet.of("chat")) == 10
    errors = ada.outlet.of("error")
    assert 0 < len(errors) <= 10
    assert {e["code"] for e in errors} == {"too_many"}
    house.clock.advance(s=1)
    ada.say("calm again")
    assert grace.outlet.of("chat")[-1]["text"] == "calm again"


def test_state_changes_are_told_once_and_reach_picture_and_sound() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    turn_camera_on(house, ada)
    ada.set('"muted":true')
    ada.set('"muted":true')
    assert [m["participant"]["muted"] for m in grace.outlet.of("updated")] == [False, True]
    assert house.audio.muted["p1"] is True
    assert house.video.scene.people[0].muted is True
    ada.set('"camera":false')
    assert house.video.scene.people[0].camera is None
    assert grace.outlet.of("updated")[-1]["participant"]["camera"] is False


def test_a_camera_switched_on_again_never_shows_its_old_last_picture() -> None:
    house = House()
    ada = house.join("Ada")
    feed = turn_camera_on(house, ada)
    ada.set('"camera":false')
    house.clock.advance(s=3)
    ada.set('"camera":true')
    house.clock.advance(ms=10)
    feed.heard_ns = house.clock.now_ns()
    house.rooms.sweep()
    camera = house.video.scene.people[0].camera
    assert camera is not None
    assert camera.latest() is None
    assert isinstance(feed.source, StillSource)
    feed.source = StillSource(house.clock.now_ns())
    house.rooms.sweep()
    camera = house.video.scene.people[0].camera
    assert camera is not None
    assert camera.latest() is not None


def test_a_camera_that_stalls_is_marked_after_a_second_and_gone_after_five() -> None:
    house = House()
    ada = house.join("Ada")
    feed = turn_camera_on(house, ada)
    house.clock.advance(ms=900)
    house.rooms.sweep()
    assert house.video.scene.people[0].camera_stalled is False
    house.clock.advance(ms=200)
    house.rooms.sweep()
    assert house.video.scene.people[0].camera_stalled is True
    assert house.video.scene.people[0].camera is not None
    house.clock.advance(s=4)
    house.rooms.sweep()
    assert house.video.scene.people[0].camera is None
    feed.heard_ns = house.clock.now_ns()
    house.rooms.sweep()
    assert house.video.scene.people[0].camera is not None
    assert house.video.scene.people[0].camera_stalled is False


def test_a_camera_that_we_paused_is_not_called_stalled() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Grace")
    turn_camera_on(house, ada)
    house.video.tick(0, layout=layout_of("p2"))
    assert ada.outlet.of("uplink")[-1]["kbps"] == 0
    house.clock.advance(s=30)
    house.rooms.sweep()
    assert house.video.scene.people[0].camera_stalled is False


def test_the_layout_comes_before_its_frame_and_names_it_in_the_receivers_time() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    ada.outlet.log.clear()
    house.video.tick(2**32 - 500, layout=layout_of("p1"), keyframe=False)
    assert ada.outlet.log.index("layout") < ada.outlet.log.index("frame")
    assert ada.outlet.of("layout")[-1]["pts"] == 500


def test_a_late_joiner_gets_its_first_frame_at_a_keyframe_and_a_recent_layout_time() -> None:
    house = House()
    house.join("Ada")
    house.video.tick(0, layout=layout_of("p1"))
    grace = house.join("Grace", connect=False)
    grace.member.connected()
    assert ("grid", "720p") in house.video.keyframes
    house.video.tick(90_000, keyframe=False)
    assert grace.outlet.video == []
    house.video.tick(93_000)
    assert len(grace.outlet.video) == 1
    grace.member.channel_opened()
    layout = grace.outlet.of("welcome")[0]["layout"]
    assert layout["pts"] == 94_000
    assert layout["serial"] == 1


def test_a_change_of_view_keeps_the_old_picture_until_the_new_ones_keyframe() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    ada.member.receive('{"type":"view","name":"speaker"}')
    assert house.video.scene.watched == {("grid", "720p"), ("speaker", "720p")}
    house.video.tick(3000, keyframe=False)
    assert len(ada.outlet.video) == 2
    house.video.tick(6000)
    assert len(ada.outlet.video) == 3
    assert house.video.scene.watched == {("speaker", "720p")}


def watch(house: House, guest: Guest, *, seconds: float, estimate_bps: int) -> None:
    """Let time pass over a picture of 1.2 Mbit/s and a viewer that reports this estimate."""
    for _ in range(round(seconds * 5)):
        house.clock.advance(ms=200)
        sent = guest.outlet.now.sent_bytes + 30_000
        guest.outlet.now = Link(estimate_bps=estimate_bps, sent_bytes=sent)
        house.rooms.sweep()


def test_who_has_a_narrow_link_gets_the_small_rendition_and_nobody_else() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    house.video.tick(0)
    watch(house, ada, seconds=2, estimate_bps=1_500_000)
    house.video.keyframes.clear()
    watch(house, ada, seconds=1, estimate_bps=170_000)
    assert house.video.keyframes == [("grid", "180p")]
    assert house.video.scene.watched == {("grid", "720p"), ("grid", "180p")}
    assert ada.outlet.log[-1] == "clear"
    house.video.tick(3000, keyframe=False)
    assert (len(ada.outlet.video), len(grace.outlet.video)) == (1, 2)  # no more of the large one
    ada.member.receive('{"type":"stats","on":true}')
    house.video.tick(6000)
    house.rooms.sweep()
    assert (len(ada.outlet.video), len(grace.outlet.video)) == (2, 3)
    assert ada.outlet.of("stats")[-1]["rendition"] == "180p"
    assert ada.outlet.shapes[-1] == (240_000, 0)
    assert grace.outlet.shapes in ([], [(None, 0)])
    again = house.join("Ada", previous=ada.secret)
    assert again.member.ladder.rung == 2
    assert house.video.keyframes[-1] == ("grid", "180p")


def test_who_is_moved_back_before_the_keyframe_came_lacks_frames_and_waits_for_another() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    watch(house, ada, seconds=2, estimate_bps=1_500_000)
    watch(house, ada, seconds=1, estimate_bps=170_000)
    house.video.tick(3000, keyframe=False)
    house.video.keyframes.clear()
    watch(house, ada, seconds=8, estimate_bps=9_000_000)
    assert ada.member.ladder.rung == 0
    assert house.video.keyframes[-1] == ("grid", "720p")
    house.video.tick(6000, keyframe=False)
    assert len(ada.outlet.video) == 1
    house.video.tick(9000)
    house.video.tick(12000, keyframe=False)
    assert [frame.pts_90k for frame in ada.outlet.video] == [0, 9000, 12000]


def test_nobody_watching_a_rendition_lets_its_encoder_stop() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    watch(house, ada, seconds=2, estimate_bps=1_500_000)
    watch(house, ada, seconds=1, estimate_bps=170_000)
    house.video.tick(3000)
    assert house.video.scene.watched == {("grid", "180p")}
    # an estimate this high needs no probe
    watch(house, ada, seconds=5, estimate_bps=9_000_000)
    house.video.tick(6000)
    watch(house, ada, seconds=2, estimate_bps=9_000_000)
    house.video.tick(9000)
    assert house.video.scene.watched == {("grid", "720p")}


def test_a_sender_without_a_channel_is_limited_to_its_tile_by_its_estimate() -> None:
    house = House()
    obs = house.join("OBS", role="publisher", connect=False)
    obs.member.connected()
    ada = house.join("Ada")
    house.video.tick(0)
    house.video.tick(3000, layout=layout_of("p1", "p2"))
    assert obs.outlet.limits[-1] is not None
    assert 30_000 < obs.outlet.limits[-1] <= 2_500_000
    assert set(ada.outlet.limits) == {None}
    house.video.tick(6000, layout=layout_of("p2"))
    assert obs.outlet.limits[-1] == 30_000
    obs.member.channel_opened()
    assert obs.outlet.limits[-1] is None
    assert obs.outlet.of("uplink")[-1]["kbps"] == 0


def test_a_large_room_lets_the_event_loop_go_on_between_its_members() -> None:
    house = House()
    house.rooms._post = house.posted.append
    guests = [house.join(f"Eve {n}", role="audience") for n in range(3 * MEMBERS_AT_ONCE)]
    house.run_posted()
    for tick in range(3):
        house.video.tick(3000 * tick)
        house.posted.pop(0)()
        served = sum(len(guest.outlet.video) == tick + 1 for guest in guests)
        assert 0 < served <= MEMBERS_AT_ONCE
        guests[0].say("hello")  # behind what was begun, and whole
        house.run_posted()
        assert {len(guest.outlet.video) for guest in guests} == {tick + 1}
        assert {len(guest.outlet.of("chat")) for guest in guests} == {tick + 1}
    assert all(frame.pts_90k == 3000 * n for g in guests for n, frame in enumerate(g.outlet.video))


def test_a_loop_that_falls_behind_drops_pictures_and_no_layouts() -> None:
    house = House()
    house.rooms._post = house.posted.append
    guests = [house.join(f"Eve {n}", role="audience") for n in range(2 * MEMBERS_AT_ONCE)]
    house.run_posted()
    house.video.tick(0)
    house.run_posted()
    house.video.keyframes.clear()
    before = len(guests[0].outlet.video)
    for tick in range(1, 40):
        house.video.tick(3000 * tick, layout=layout_of("p1", serial=2) if tick == 30 else None)
    house.run_posted()
    assert len(guests[0].outlet.video) <= before + WORK_WAITING
    assert house.video.keyframes  # viewers lack frames
    house.video.tick(3000 * 40)
    house.run_posted()
    assert {guest.outlet.of("layout")[-1]["serial"] for guest in guests} == {2}


def test_audience_sees_and_chats_but_stands_in_no_list() -> None:
    house = House()
    ada = house.join("Ada")
    viewer = house.join("Eve", role="audience")
    assert ada.outlet.of("joined") == []
    assert [p["id"] for p in viewer.outlet.of("welcome")[0]["participants"]] == ["p1"]
    viewer.say("hello from the back")
    assert ada.outlet.of("chat")[0]["from"] == viewer.member.id
    viewer.set('"hand":true')
    assert viewer.outlet.of("error")[0]["code"] == "forbidden"
    house.video.tick(0)
    assert len(viewer.outlet.video) == 1
    assert len(house.video.scene.people) == 1


def test_a_seat_is_taken_over_without_a_word_to_the_others() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    ada.set('"muted":true')
    before = len(grace.outlet.messages)
    again = house.join("Ada", previous=ada.secret)
    assert again.member.id == ada.member.id
    assert ada.outlet.ended == ["taken_over"]
    assert [m["type"] for m in grace.outlet.messages[before:]] == ["updated"]
    assert house.audio.muted["p1"] is True
    ada.member.leave(lost=True)
    assert grace.outlet.of("left") == []
    assert house.audio.voices["p1"] is again.member.audio


def test_a_takeover_that_never_connects_changes_nothing() -> None:
    house = House()
    ada = house.join("Ada")
    again = house.join("Ada", previous=ada.secret, connect=False)
    again.member.leave(lost=True)
    assert ada.outlet.ended == []
    house.video.tick(0)
    assert len(ada.outlet.video) == 1


def test_a_lost_seat_is_kept_for_a_minute() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    ada.member.leave(lost=True)
    assert len(grace.outlet.of("left")) == 1
    house.clock.advance(s=59)
    house.rooms.sweep()
    again = house.join("Ada", previous=ada.secret)
    assert again.member.id == ada.member.id
    assert len(grace.outlet.of("joined")) == 1
    again.member.leave(lost=True)
    house.clock.advance(s=61)
    house.rooms.sweep()
    assert house.join("Ada", previous=ada.secret).member.id != ada.member.id


def test_an_unknown_secret_is_an_ordinary_join() -> None:
    house = House()
    house.join("Ada")
    assert house.join("Grace", previous="nobody's").member.id == "p2"


def test_a_screen_takes_no_seat_and_ends_with_its_owner() -> None:
    house = House(room=1)
    ada = house.join("Ada")
    screen = house.join(None, previous=ada.secret, screen=True, role="publisher")
    assert screen.member.id == ada.member.id
    screen.member.set_video(VideoFeed(StillSource(0), house.clock.now_ns()))
    assert ada.outlet.of("updated")[-1]["participant"]["screen"] is True
    assert house.video.scene.people[0].screen is not None
    assert ("presenter", "720p") in house.video.scene.watched
    assert house.audio.gains["p1", "p1/screen"] == 0.0
    ada.member.leave(lost=False)
    assert screen.outlet.ended == ["owner_left"]
    house.rooms.sweep()
    assert house.rooms.room_count == 0


def test_a_second_screen_replaces_the_first() -> None:
    house = House()
    ada = house.join("Ada")
    first = house.join(None, previous=ada.secret, screen=True)
    second = house.join(None, previous=ada.secret, screen=True)
    assert first.outlet.ended == ["taken_over"]
    second.member.leave(lost=False)
    assert ada.outlet.ended == []


def test_a_full_room_says_so_and_another_room_does_not_care() -> None:
    house = House(room=2)
    house.join("Ada")
    house.join("Grace", connect=False)
    with pytest.raises(RoomFull):
        house.join("Lin")
    house.join("Lin", room="green")
    house.join("Eve", role="audience")


def test_rooms_share_nothing() -> None:
    house = House()
    ada = house.join("Ada", room="one")
    lin = house.join("Lin", room="two")
    ada.say("only for room one")
    assert lin.outlet.of("chat") == []
    assert [p["name"] for p in lin.outlet.of("welcome")[0]["participants"]] == ["Lin"]


def test_the_last_one_out_closes_the_room() -> None:
    house = House()
    ada = house.join("Ada")
    video, audio = house.video, house.audio
    ada.member.leave(lost=True)
    house.rooms.sweep()
    assert house.rooms.room_count == 0
    assert video.running is False
    assert audio.running is False


def test_no_mixer_starts_for_an_offer_that_never_connects() -> None:
    house = House()
    ghost = house.join("Ghost", connect=False)
    assert house.video.running is None
    ghost.member.leave(lost=True)
    house.rooms.sweep()
    assert house.rooms.room_count == 0


def test_a_refused_first_join_leaves_no_room_behind() -> None:
    house = House()
    with pytest.raises(BadRequest):
        house.join("\u202eevil")
    assert house.rooms.room_count == 0


def test_too_many_rooms_and_draining_are_unavailable() -> None:
    house = House(rooms=1)
    ada = house.join("Ada", room="one")
    with pytest.raises(Unavailable) as caught:
        house.join("Lin", room="two")
    assert caught.value.retry_after_s
    house.rooms.drain()
    assert ada.outlet.of("error")[-1]["code"] == "draining"
    with pytest.raises(Unavailable):
        house.join("Lin", room="one")


def test_who_is_in_the_mix_gets_a_mix_of_their_own() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    shared, own = EncodedAudio(b"s", 0), EncodedAudio(b"o", 0)
    house.audio.deliver(shared, {"p1": own}, frozenset({"p1"}))
    assert ada.outlet.audio == [own]
    assert grace.outlet.audio == [shared]
    assert grace.outlet.of("speaking")[-1]["ids"] == ["p1"]
    assert house.video.scene.people[0].speaking is True
    house.audio.deliver(shared, {}, frozenset({"p1"}))
    assert len(grace.outlet.of("speaking")) == 1


def test_who_leaves_in_the_midst_of_a_word_leads_no_more() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    house.audio.deliver(None, {}, frozenset({"p1"}))
    ada.member.receive('{"type":"bye"}')
    grace.member.receive('{"type":"stats","on":true}')
    house.rooms.sweep()
    assert len(grace.outlet.of("stats")) == 1
    house.audio.deliver(None, {}, frozenset({"p1", "p2"}))  # was under way when Ada left
    assert [person.speaking for person in house.video.scene.people] == [True]


def test_volume_is_for_people_who_are_there() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Grace")
    ada.member.receive('{"type":"volume","id":"p2","gain":0.5}')
    assert house.audio.gains["p1", "p2"] == 0.5
    ada.member.receive('{"type":"volume","id":"p9","gain":0.5}')
    assert ada.outlet.of("error")[-1]["code"] == "not_found"


def test_bye_frees_the_seat_at_once() -> None:
    house = House()
    ada, grace = house.join("Ada"), house.join("Grace")
    ada.member.receive('{"type":"bye"}')
    assert ada.outlet.ended == ["bye"]
    assert grace.outlet.of("left") == [{"type": "left", "id": "p1"}]
    assert house.join("Ada", previous=ada.secret).member.id == "p3"


def test_statistics_come_every_two_seconds_while_asked_for() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    ada.member.receive('{"type":"stats","on":true}')
    for _ in range(11):
        house.rooms.sweep()
        house.clock.advance(ms=400)
    assert len(ada.outlet.of("stats")) == 3
    assert ada.outlet.of("stats")[0]["rendition"] == "720p"
    assert ada.outlet.of("stats")[0]["rtt_ms"] == 12.3
    ada.member.receive('{"type":"stats","on":false}')
    house.clock.advance(s=5)
    house.rooms.sweep()
    assert len(ada.outlet.of("stats")) == 3


def test_an_uplink_follows_the_tile() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0, layout=layout_of("p1"))
    assert ada.outlet.of("uplink")[-1]["width"] == 640
    house.video.tick(3000, layout=layout_of("p1", serial=2))
    assert len(ada.outlet.of("uplink")) == 1


def test_a_screen_is_asked_for_whole_however_small_it_is_shown() -> None:
    """Its canvas follows its size: if that followed the tile, both would shrink to nothing."""
    house = House()
    ada = house.join("Ada")
    turn_camera_on(house, house.join("Ada", previous=ada.secret, screen=True))
    ada.member.receive('{"type":"view","name":"presenter"}')
    tile = Tile("p1", "screen", 0, 0, 320, 180, "contain")
    house.video.tick(0, layout=Layout("presenter", 1, (640, 360), (tile,)))
    uplink = next(m for m in ada.outlet.of("uplink")[::-1] if m["source"] == "screen")
    assert (uplink["width"], uplink["height"], uplink["fps"]) == (1920, 1080, 15)


def test_the_main_speaker_does_not_flicker() -> None:
    """Ada talks; Grace coughs, then talks on: one change, when she has talked for a second."""
    house = House()
    ada = house.join("Ada")
    house.join("Grace")

    def main() -> str:
        house.rooms.sweep()
        return max(house.video.scene.people, key=lambda person: person.led_ns).id

    def speak(*ids: str) -> None:
        house.audio.deliver(None, {}, frozenset(ids))

    speak("p1")
    assert main() == "p1"
    house.clock.advance(s=5)
    speak()
    speak("p2")
    assert main() == "p1"
    house.clock.advance(ms=300)
    speak()
    assert main() == "p1"
    speak("p2")
    house.clock.advance(ms=900)
    assert main() == "p1"
    house.clock.advance(ms=200)
    assert main() == "p2"
    speak("p1", "p2")
    house.clock.advance(s=9)
    assert main() == "p2"
    ada.member.leave(lost=False)
    assert main() == "p2"


def test_a_takeover_that_never_connects_renames_nobody() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Mallory", previous=ada.secret, connect=False)
    house.rooms.sweep()
    assert house.video.scene.people[0].name == "Ada"
    house.join("Ada L.", previous=ada.secret)
    assert house.video.scene.people[0].name == "Ada L."


def test_one_viewers_endless_keyframe_requests_cost_the_others_little() -> None:
    house = House()
    ada = house.join("Ada")
    house.video.tick(0)
    house.video.keyframes.clear()
    for _ in range(600):
        house.clock.advance(ms=100)
        ada.member.request_keyframe()
    assert len(house.video.keyframes) <= 34  # a minute at one every two seconds, and the burst


def test_pictures_wait_for_a_loop_that_stands_still_but_not_without_bound() -> None:
    calls: list[Callable[[], None]] = []
    house = House()
    house.rooms = Rooms(Config(), house.clock, Metrics(), house.mixers, calls.append)
    ada = house.join("Ada")
    house.video.tick(0)
    calls.pop()()
    house.video.tick(3000, layout=layout_of("p1"), keyframe=False)
    for tick in range(2, 100):
        house.video.tick(tick * 3000, keyframe=False)
    house.video.keyframes.clear()
    assert len(calls) == 1
    calls.pop()()
    assert len(ada.outlet.video) == 1 + 16
    assert house.video.keyframes == [("grid", "720p")]
    assert [tile["id"] for tile in ada.outlet.of("layout")[-1]["tiles"]] == ["p1"]
