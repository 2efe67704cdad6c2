"""A seat between two sessions, and what else happens in the wrong order."""

from __future__ import annotations

import pytest

from calliope.errors import Forbidden
from calliope.mixer.scene import Layout, SourceKind, Tile
from tests.test_room import House, layout_of, turn_camera_on


def test_takeover_pending_while_old_leaves() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")
    again = house.join("Ada", connect=False, previous=ada.secret)
    ada.member.leave(lost=False)  # old page's pc.close(): close_notify
    again.member.connected()
    again.member.channel_opened()
    assert again.member.id == ada.member.id
    assert [p.name for p in house.video.scene.people]
    assert "Ada" in [p.name for p in house.video.scene.people]


def test_takeover_ghost_leaves() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")
    again = house.join("Ada", connect=False, previous=ada.secret)
    ada.member.leave(lost=False)
    again.member.connected()
    again.member.channel_opened()
    again.member.leave(lost=False)


def test_takeover_pending_when_kept_time_ends() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")
    ada.member.leave(lost=True)
    house.clock.advance(s=59)
    again = house.join("Ada", connect=False, previous=ada.secret)
    house.clock.advance(s=2)
    house.rooms.sweep()
    again.member.connected()
    again.member.channel_opened()
    assert "Ada" in [p.name for p in house.video.scene.people]


def test_a_screen_is_not_paused_before_its_first_picture() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")
    house.video.tick(3000, layout=layout_of("p1", "p2"))
    scr = house.join("Ada", connect=False, previous=ada.secret, screen=True, role="publisher")
    scr.member.connected()
    house.join("Cy")
    house.video.tick(6000, layout=layout_of("p1", "p2", "p3", serial=2))
    assert [m for m in ada.outlet.of("uplink") if m["source"] == "screen"] == []


def test_second_screen_gets_its_uplink() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")

    def lay(serial: int, *tiles: tuple[str, SourceKind]) -> Layout:
        return Layout(
            "presenter" if ("p1", "screen") in tiles else "grid",
            serial,
            (1280, 720),
            tuple(Tile(i, s, 0, 0, 640, 360, "crop") for i, s in tiles),
        )

    for round in range(2):
        scr = house.join("Ada", connect=False, previous=ada.secret, screen=True, role="publisher")
        scr.member.connected()
        turn_camera_on(house, scr)
        house.video.tick(
            3000, layout=lay(1 + 2 * round, ("p1", "camera"), ("p2", "camera"), ("p1", "screen"))
        )
        n = [m for m in ada.outlet.of("uplink") if m["source"] == "screen"]
        assert all(m["kbps"] for m in n)
        assert len(n) == round + 1
        scr.member.leave(lost=False)
        house.video.tick(6000, layout=lay(2 + 2 * round, ("p1", "camera"), ("p2", "camera")))


def test_speaker_leaves_before_next_audio_tick() -> None:
    house = House()
    ada = house.join("Ada")
    bob = house.join("Bob")
    house.join("Cy")
    house.audio.deliver(None, {}, frozenset({"p1"}))
    house.clock.advance(s=5)
    house.audio.deliver(None, {}, frozenset({"p1", "p2"}))
    house.clock.advance(s=3)
    house.audio.deliver(None, {}, frozenset({"p1", "p2"}))
    ada.member.leave(lost=False)
    bob.member.leave(lost=False)
    house.rooms.sweep()


def test_audience_shares_screen() -> None:
    house = House()
    house.join("Ada")
    eve = house.join("Eve", role="audience")
    with pytest.raises(Forbidden):
        house.join("Eve", previous=eve.secret, screen=True, role="publisher")
    assert eve.outlet.ended == []


def test_role_change() -> None:
    house = House()
    house.join("Ada")
    eve = house.join("Eve", role="audience")
    house.join("Eve", previous=eve.secret, role="participant")
    assert "Eve" in [p.name for p in house.video.scene.people]


def test_unpaused_camera_isnt_stalled() -> None:
    house = House()
    ada = house.join("Ada")
    house.join("Bob")
    turn_camera_on(house, ada)
    house.video.tick(3000, layout=layout_of("p1", "p2"))
    house.video.tick(6000, layout=layout_of("p2", serial=2))
    assert ada.member.seat.uplinks["camera"].kbps == 0
    house.clock.advance(s=60)
    house.video.tick(9000, layout=layout_of("p1", "p2", serial=3))
    assert ada.member.seat.uplinks["camera"].kbps > 0
    house.rooms.sweep()
    p = house.video.scene.people[0]
    assert p.camera is not None
    assert not p.camera_stalled
