"""The configuration: one name everywhere, four places to give it, clear words when it is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calliope.config import OPTIONS, Config, load
from calliope.errors import ConfigError
from calliope.options import Option

BY_NAME = {knob.name: knob for knob in OPTIONS}


def toml(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "calliope.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(
    overrides: dict[str, str] | None = None,
    environ: dict[str, str] | None = None,
    path: Path | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(overrides or {}, environ or {}, path)
    return str(caught.value)


def test_nothing_given_is_every_default() -> None:
    assert load({}, {"PATH": "/usr/bin", "HOME": "/root"}) == Config()


def test_command_line_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    path = toml(tmp_path, "[mixer]\nfps = 10\nwidth = 640\nheight = 720\n[audio]\nvoices = 2\n")
    environ = {"CALLIOPE_MIXER_FPS": "20", "CALLIOPE_MIXER_WIDTH": "800"}
    config = load({"mixer.fps": "25"}, environ, path)
    assert (config.mixer.fps, config.mixer.width, config.audio.voices) == (25, 800, 2)
    assert config.audio.kbps == Config().audio.kbps


def test_every_option_has_one_name_in_all_places() -> None:
    fps = BY_NAME["mixer.fps"]
    assert (fps.flag, fps.variable) == ("--mixer-fps", "CALLIOPE_MIXER_FPS")
    stun = BY_NAME["server.allowed_origins"]
    assert (stun.flag, stun.variable) == (
        "--server-allowed-origins",
        "CALLIOPE_SERVER_ALLOWED_ORIGINS",
    )
    for names in ([k.name for k in OPTIONS], [k.flag for k in OPTIONS]):
        assert len(set(names)) == len(OPTIONS)


@pytest.mark.parametrize("knob", OPTIONS, ids=lambda knob: knob.name)
def test_every_default_obeys_its_own_rule_and_is_explained(knob: Option) -> None:
    assert knob.first_fault(knob.default) is None
    assert knob.doc.endswith(".")
    text = ",".join(knob.default) if isinstance(knob.default, tuple) else str(knob.default)
    assert knob.from_text(text) == knob.default


def test_lists_are_commas_in_text_and_arrays_in_toml(tmp_path: Path) -> None:
    wanted = ("turn:a.example:3478?transport=udp", "turns:b.example")
    text = load({"ice.turn": " turn:a.example:3478?transport=udp, turns:b.example,"}, {})
    array = toml(tmp_path, '[ice]\nturn = ["turn:a.example:3478?transport=udp", "turns:b.example"]')
    assert text.ice.turn == load({}, {}, array).ice.turn == wanted


def test_stun_and_turn_can_be_switched_off_everywhere(tmp_path: Path) -> None:
    for config in (
        load({"ice.turn": "", "ice.stun": ""}, {}),
        load({}, {"CALLIOPE_ICE_TURN": "", "CALLIOPE_ICE_STUN": ""}),
        load({}, {}, toml(tmp_path, "[ice]\nturn = []\nstun = []\n")),
    ):
        assert config.ice.turn == config.ice.stun == ()


def test_a_bad_value_is_told_with_option_value_range_and_origin(tmp_path: Path) -> None:
    rest = "but it must be a whole number from 1 to 60."
    assert refusal({"mixer.fps": "61"}) == f"mixer.fps is 61 (command line, --mixer-fps), {rest}"
    assert (
        refusal(environ={"CALLIOPE_MIXER_FPS": "fast"})
        == f"mixer.fps is 'fast' (environment variable CALLIOPE_MIXER_FPS), {rest}"
    )
    path = toml(tmp_path, "# rates\n\n[mixer]\nwidth = 640\nfps = 0\n")
    assert refusal(path=path) == f"mixer.fps is 0 (file {path}, line 5), {rest}"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.port", "65536"),
        ("server.port", "-1"),
        ("server.port", "80.5"),
        ("server.port", "0x50"),
        ("server.port", ""),
        ("server.port", "9" * 40),
        ("server.host", ""),
        ("server.host", "two words"),
        ("server.tls", "on"),
        ("server.tls", "cert.pem"),
        ("server.allowed_origins", "example.org"),
        ("server.allowed_origins", "https://example.org/path"),
        ("server.log_level", "loud"),
        ("ice.stun", "turn:example.org"),
        ("ice.turn", "https://example.org"),
        ("ice.public_address", "example.org"),
        ("ice.public_address", "203.0.113.256"),
        ("ice.udp_ports", "40000"),
        ("ice.udp_ports", "41000-40000"),
        ("ice.udp_ports", "80-90"),
        ("ice.udp_ports", "40000-70000"),
        ("mixer.width", "1281"),
        ("mixer.height", "719"),
        ("mixer.fit", "stretch"),
        ("mixer.backend", "cuda"),
        ("mixer.layout", "speaker"),
        ("mixer.layout", "my module:f"),
        ("mixer.renditions", "720:1200"),
        ("mixer.renditions", "359p:400"),
        ("mixer.renditions", "360p:5"),
    ],
)
def test_values_that_cannot_work_are_refused(name: str, text: str) -> None:
    message = refusal({name: text})
    assert message.startswith(f"{name} ")
    assert f"(command line, {BY_NAME[name].flag})" in message
    assert message.count(".\n") == 0
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("server.host", "::"),
        ("server.host", "conference.example.org"),
        ("server.port", "0"),
        ("server.tls", "/etc/tls/cert.pem,/etc/tls/key.pem"),
        ("server.allowed_origins", "*"),
        ("server.allowed_origins", "https://a.example,http://localhost:3000"),
        ("ice.public_address", "2001:db8::1"),
        ("ice.udp_ports", "40000-40999"),
        ("mixer.layout", "my.layouts:columns"),
        ("mixer.fit", "contain"),
    ],
)
def test_values_that_people_use_are_taken(name: str, text: str) -> None:
    config = load({name: text}, {})
    section, key = name.split(".")
    assert getattr(getattr(config, section), key) == BY_NAME[name].from_text(text)


def test_toml_values_must_be_of_the_right_type(tmp_path: Path) -> None:
    for line in ('fps = "30"', "fps = 30.0", "fps = true", "fit = 3", 'renditions = "720p:9"'):
        message = refusal(path=toml(tmp_path, f"[mixer]\n{line}\n"))
        assert message.startswith(f"mixer.{line.split()[0]} is ")
        assert "line 2)" in message


def test_a_misspelt_option_is_told_with_the_nearest_one(tmp_path: Path) -> None:
    assert "did you mean mixer.fps?" in refusal({"mixer.fsp": "3"})
    assert refusal(environ={"CALLIOPE_MIXER_FSP": "3"}) == (
        "There is no option CALLIOPE_MIXER_FSP (environment variable);"
        " did you mean CALLIOPE_MIXER_FPS?"
    )
    path = toml(tmp_path, "[mixer]\nfsp = 3\n")
    assert refusal(path=path) == (
        f"There is no option mixer.fsp (file {path}, line 2); did you mean mixer.fps?"
    )


def test_unknown_sections_and_loose_keys_are_refused(tmp_path: Path) -> None:
    assert "'mixr'" in (message := refusal(path=toml(tmp_path, "\n[mixr]\nfps = 3\n")))
    assert "line 2" in message
    assert "[mixer]" in message
    assert "'mixer' " in refusal(path=toml(tmp_path, "mixer = 3\n"))


def test_a_dotted_key_is_found_on_its_line(tmp_path: Path) -> None:
    path = toml(tmp_path, "server.port = 1\nmixer.fps = 99\n")
    assert f"(file {path}, line 2)" in refusal(path=path)


def test_a_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone.toml"
    assert str(gone) in refusal(path=gone)
    broken = toml(tmp_path, "[mixer\n")
    assert str(broken) in (message := refusal(path=broken))
    assert "line 1" in message
    broken.write_bytes(b"\xff\xfe")
    assert str(broken) in refusal(path=broken)


def test_variables_of_the_project_that_are_no_options_are_left_alone() -> None:
    environ = {"CALLIOPE_CACHE_DIR": "/var/cache", "CALLIOPE_CONFIG": "x.toml"}
    assert load({}, environ) == Config()


def test_a_kubernetes_service_of_that_name_does_no_harm() -> None:
    environ = {
        "CALLIOPE_SERVICE_HOST": "10.0.0.1",
        "CALLIOPE_SERVICE_PORT": "8050",
        "CALLIOPE_SERVICE_PORT_HTTP": "8050",
        "CALLIOPE_PORT": "tcp://10.0.0.1:8050",
        "CALLIOPE_PORT_8050_TCP_ADDR": "10.0.0.1",
    }
    assert load({}, environ) == Config()


def test_a_secret_is_never_repeated() -> None:
    message = refusal({"ice.turn_secret": "hunter2\x00"})
    assert "hunter2" not in message
    assert message.startswith("ice.turn_secret is ")


def test_renditions_fit_into_the_canvas_and_fall() -> None:
    message = refusal({"mixer.height": "360"})
    assert "'720p:1200' (default)" in message
    assert "360 (command line, --mixer-height)" in message
    both = load({"mixer.height": "360", "mixer.renditions": "360p:400,180p:150"}, {})
    assert both.mixer.renditions == ("360p:400", "180p:150")
    assert "fall" in refusal({"mixer.renditions": "360p:400,720p:1200"})
    assert "fall" in refusal({"mixer.renditions": "360p:400,360p:200"})
    assert "empty" in refusal({"mixer.renditions": ""})


def test_a_turn_server_needs_a_way_to_log_in() -> None:
    assert "ice.turn_credential is empty" in refusal({"ice.turn_credential": ""})
    assert "ice.turn " in refusal({"ice.turn_secret": "s3cret"})
    own = {"ice.turn": "turn:turn.example.org", "ice.turn_secret": "s3cret"}
    assert load({**own, "ice.turn_username": "", "ice.turn_credential": ""}, {}).ice.turn_secret


@given(st.sampled_from(OPTIONS), st.text(max_size=40))
def test_no_text_makes_anything_but_a_value_or_a_config_error(knob: Option, text: str) -> None:
    try:
        config = load({knob.name: text}, {})
    except ConfigError:
        return
    assert getattr(getattr(config, knob.section), knob.key) == knob.from_text(text)
