"""Every knob of the server: its name, default, allowed range and meaning, in one place.

One name everywhere: ``mixer.fps`` in this text, ``--mixer-fps`` on the command line,
``CALLIOPE_MIXER_FPS`` in the environment, ``[mixer] fps =`` in the TOML file; the first of these
that is given wins.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calliope.errors import ConfigError
from calliope.options import (
    DEFAULT_ORIGIN,
    checked,
    even,
    matching,
    one_of,
    option,
    options_of,
    read_settings,
    whole,
)


def _is_address_or_empty(text: str) -> bool:
    try:
        return text == "" or bool(ipaddress.ip_address(text))
    except ValueError:
        return False


def _is_port_range(text: str) -> bool:
    ports = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    return text == "any" or (ports is not None and 1024 <= int(ports[1]) <= int(ports[2]) <= 65_535)


_ANY_TEXT = matching(r"[^\x00-\x1f]*", "text on one line")
_ORIGIN = matching(
    r"\*|https?://[^/\s,*]+", "an origin such as https://example.org, or * for every origin"
)
_RENDITION = re.compile(r"(\d{2,4})p:(\d{1,5})")


def _is_rendition(text: str) -> bool:
    parts = _RENDITION.fullmatch(text)
    if parts is None:
        return False
    height, kbps = int(parts[1]), int(parts[2])
    return height % 2 == 0 and 90 <= height <= 2160 and 30 <= kbps <= 20_000


@dataclass(frozen=True, slots=True)
class ServerConfig:
    host: str = option(
        "0.0.0.0",
        "Address or host name to listen on.",
        matching(r"[\w.:%-]+", "an address or a host name"),
    )
    port: int = option(8050, "TCP port to listen on; 0 takes a free one.", whole(0, 65_535))
    tls: str = option(
        "off",
        "How https is served: off (plain http), self-signed, or two PEM files.",
        matching(r"off|self-signed|[^,]+,[^,]+", "off, self-signed or CERTIFICATE.pem,KEY.pem"),
    )
    allowed_origins: tuple[str, ...] = option(
        (), "Origins whose pages may use the API from another site (CORS).", _ORIGIN
    )
    drain_s: int = option(
        5, "Seconds that calls get to end in after SIGTERM or SIGINT.", whole(0, 300)
    )
    probe: str = option(
        "off",
        "Who may have the server measure itself (POST /api/probe): nobody, who is on its machine,"
        " or everybody.",
        one_of("off", "local", "on"),
    )
    log_level: str = option("info", "What is logged.", one_of("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class IceConfig:
    stun: tuple[str, ...] = option(
        ("stun:stun.l.google.com:19302",),
        "STUN servers handed to browsers; the default is a third party's and may stop.",
        matching(r"stuns?:[^\s,?]+", "a stun: or stuns: address"),
    )
    turn: tuple[str, ...] = option(
        ("turn:openrelay.metered.ca:443?transport=tcp",),
        "TURN servers handed to browsers; the default is a third party's and may stop.",
        matching(r"turns?:[^\s,]+", "a turn: or turns: address"),
    )
    turn_username: str = option("openrelayproject", "User name for the TURN servers.", _ANY_TEXT)
    turn_credential: str = option(
        "openrelayproject", "Password for the TURN servers.", _ANY_TEXT, secret=True
    )
    turn_secret: str = option(
        "",
        "Secret shared with your own coturn (use-auth-secret): browsers get credentials that"
        " expire, in place of user name and password.",
        _ANY_TEXT,
        secret=True,
    )
    ttl_s: int = option(
        86_400, "Seconds for which browsers may use the ICE servers they got.", whole(60, 604_800)
    )
    public_address: str = option(
        "",
        "Address announced to browsers in place of the machine's own, for a server behind NAT.",
        checked(_is_address_or_empty, "an IP address, or empty"),
    )
    udp_ports: str = option(
        "any",
        "UDP ports for media.",
        checked(_is_port_range, "any, or FIRST-LAST within 1024-65535"),
    )
    udp_port: int = option(
        0,
        "One UDP port for the media of all; 0: one of ice.udp_ports for each session.",
        whole(0, 65_535),
    )


@dataclass(frozen=True, slots=True)
class MixerConfig:
    fps: int = option(30, "Pictures composed and sent a second.", whole(1, 60))
    width: int = option(1280, "Width of the composed picture, in pixels.", even(160, 3840))
    height: int = option(720, "Height of the composed picture, in pixels.", even(90, 2160))
    fit: str = option(
        "crop",
        "What is done with a camera whose shape differs from its tile's: cut, or shown whole.",
        one_of("crop", "contain"),
    )
    backend: str = option(
        "numba", "What composes: the kernels, or OpenCV.", one_of("numba", "opencv")
    )
    layout: str = option(
        "grid",
        "What lays out the grid view: the built-in grid, or a Python function of yours, whose"
        " module lies on PYTHONPATH.",
        matching(r"grid|[A-Za-z_][\w.]*:[A-Za-z_]\w*", "grid or MODULE:FUNCTION"),
    )
    renditions: tuple[str, ...] = option(
        ("720p:1200", "360p:400", "180p:120"),
        "Sizes and bitrates of the picture, best first; viewers get the best their link carries.",
        checked(
            _is_rendition,
            "HEIGHTp:KBPS with an even height of 90 to 2160 and 30 to 20000 kbit/s",
        ),
    )


@dataclass(frozen=True, slots=True)
class AudioConfig:
    voices: int = option(4, "How many of the loudest voices are mixed.", whole(1, 16))
    kbps: int = option(32, "Bitrate of the sound that is sent, in kbit/s.", whole(8, 128))


@dataclass(frozen=True, slots=True)
class MediaConfig:
    max_pixels: int = option(
        2560 * 1600,
        "Largest picture accepted from a camera or screen, in pixels (width times height).",
        whole(160 * 90, 7680 * 4320),
    )
    stall_ms: int = option(
        1000,
        "Milliseconds without packets after which a camera is shown as stalled.",
        whole(200, 60_000),
    )


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    room: int = option(25, "Seats in a room (participants and publishers).", whole(1, 250))
    audience: int = option(1000, "Audience members in a room.", whole(0, 100_000))
    rooms: int = option(100, "Rooms open at a time.", whole(1, 10_000))
    pending: int = option(
        64,
        "Offers answered but not yet connected, all rooms together; half of them from one network.",
        whole(1, 10_000),
    )
    connect_s: int = option(
        12, "Seconds after which an offer that has not connected is dropped.", whole(1, 120)
    )
    loss_s: int = option(
        8, "Seconds after which a browser that answers no more is gone.", whole(2, 60)
    )
    seat_s: int = option(60, "Seconds for which a lost participant's seat is kept.", whole(0, 3600))
    offer_bytes: int = option(65_536, "Largest offer accepted, in bytes.", whole(4096, 1_048_576))


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration, checked; built by ``load`` and read-only from then on."""

    server: ServerConfig = field(default_factory=ServerConfig)
    ice: IceConfig = field(default_factory=IceConfig)
    mixer: MixerConfig = field(default_factory=MixerConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    media: MediaConfig = field(default_factory=MediaConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)


OPTIONS = options_of(Config)
"""Every option, section by section."""


def load(
    overrides: Mapping[str, str], environ: Mapping[str, str], toml_path: Path | None = None
) -> Config:
    """The configuration: command line, else environment, else TOML file, else defaults.

    ``overrides`` maps option names (``mixer.fps``) to their text on the command line. Raises
    ConfigError: one sentence with the option, its value, what is allowed and where it came from.
    """
    settings = read_settings(OPTIONS, overrides, environ, toml_path)
    sections: dict[str, dict[str, Any]] = {}
    for knob in OPTIONS:
        sections.setdefault(knob.section, {})[knob.key] = settings[knob.name].value
    config = Config(
        server=ServerConfig(**sections["server"]),
        ice=IceConfig(**sections["ice"]),
        mixer=MixerConfig(**sections["mixer"]),
        audio=AudioConfig(**sections["audio"]),
        media=MediaConfig(**sections["media"]),
        limits=LimitsConfig(**sections["limits"]),
    )
    origins = {name: setting.origin for name, setting in settings.items()}
    _check_renditions(config.mixer, origins)
    _check_turn(config.ice, origins)
    return config


def _check_renditions(mixer: MixerConfig, origins: Mapping[str, str]) -> None:
    """ConfigError unless the renditions fall from first to last and fit into the canvas."""
    where = f"({origins['mixer.renditions']})"
    if not mixer.renditions:
        raise ConfigError(f"mixer.renditions is empty {where}, but it must hold at least one.")
    heights = [int(text.partition("p")[0]) for text in mixer.renditions]
    if heights != sorted(set(heights), reverse=True):
        shown = ", ".join(mixer.renditions)
        raise ConfigError(
            f"mixer.renditions is {shown!r} {where}, but its heights must fall from first to last."
        )
    if heights[0] > mixer.height:
        raise ConfigError(
            f"mixer.renditions holds {mixer.renditions[0]!r} {where}, but none may be higher than"
            f" mixer.height, which is {mixer.height} ({origins['mixer.height']}): set both."
        )


def _check_turn(ice: IceConfig, origins: Mapping[str, str]) -> None:
    """ConfigError unless TURN servers have credentials, and a secret has TURN servers."""
    if ice.turn_secret:
        if not ice.turn or origins["ice.turn"] == DEFAULT_ORIGIN:
            raise ConfigError(
                f"ice.turn_secret is set ({origins['ice.turn_secret']}), but ice.turn"
                f" ({origins['ice.turn']}) does not name your own TURN server: set it, such as"
                " turn:turn.example.org:3478."
            )
    elif ice.turn:
        for name, value in (
            ("ice.turn_username", ice.turn_username),
            ("ice.turn_credential", ice.turn_credential),
        ):
            if not value:
                raise ConfigError(
                    f"{name} is empty ({origins[name]}), but browsers refuse the servers in"
                    f" ice.turn ({origins['ice.turn']}) without it: set it, or ice.turn_secret."
                )
