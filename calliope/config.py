"""Every knob of the server: its name, default, allowed range and meaning, in one place.

One name everywhere: ``mixer.fps`` in this text, ``--mixer-fps`` on the command line,
``CALLIOPE_MIXER_FPS`` in the environment, ``[mixer] fps =`` in the TOML file.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ServerConfig:
    host: str = "0.0.0.0"
    port: int = 8050
    tls: str = "off"  # off | self-signed | CERT.pem,KEY.pem
    allowed_origins: tuple[str, ...] = ()
    drain_s: int = 5  # after SIGTERM: how long calls may take to end
    log_level: str = "info"


@dataclass(frozen=True, slots=True)
class IceConfig:
    stun: tuple[str, ...] = ("stun:stun.l.google.com:19302",)
    turn: tuple[str, ...] = ("turn:openrelay.metered.ca:443?transport=tcp",)
    turn_username: str = "openrelayproject"
    turn_credential: str = "openrelayproject"
    turn_secret: str = ""  # coturn's use-auth-secret; replaces username and credential
    ttl_s: int = 86_400
    public_address: str = ""  # announced instead of the local one
    udp_ports: str = "any"  # any | FIRST-LAST


@dataclass(frozen=True, slots=True)
class MixerConfig:
    fps: int = 30
    width: int = 1280
    height: int = 720
    fit: str = "crop"  # crop | contain: cameras whose shape differs from their tile's
    backend: str = "numba"  # numba | opencv
    layout: str = "grid"  # grid | module:function  (what the `grid` view uses)
    renditions: tuple[str, ...] = ("720p:1200", "360p:400", "180p:150")  # HEIGHTp:KBPS, best first


@dataclass(frozen=True, slots=True)
class AudioConfig:
    voices: int = 4
    kbps: int = 32


@dataclass(frozen=True, slots=True)
class MediaConfig:
    max_pixels: int = 2560 * 1600
    stall_ms: int = 1000  # a camera without packets for so long is shown as stalled


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    room: int = 25  # seats in a room (participants and publishers)
    audience: int = 1000  # audience members in a room
    rooms: int = 100
    pending: int = 64  # offers answered but not yet connected, all rooms together
    connect_s: int = 12  # an offer that has not connected by then is dropped
    loss_s: int = 8  # a browser that answers no consent check for so long is gone
    seat_s: int = 60  # how long a lost participant's seat is kept
    offer_bytes: int = 65_536


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked; built by ``load`` and read-only from then on."""

    server: ServerConfig = field(default_factory=ServerConfig)
    ice: IceConfig = field(default_factory=IceConfig)
    mixer: MixerConfig = field(default_factory=MixerConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
