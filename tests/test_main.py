"""The command line: commands, help, one sentence for a mistake; the documents that list options."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

import calliope
from calliope import __main__ as command_line
from calliope.config import OPTIONS, Config, load
from calliope.options import as_markdown, as_text, as_toml

ROOT = Path(__file__).parent.parent


def run(*arguments: str, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "calliope", *arguments],
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "100", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_help_shows_every_option_with_its_default() -> None:
    status, out, _ = run("serve", "--help")
    assert status == 0
    words = " ".join(out.split())
    for knob in OPTIONS:
        assert f" {knob.flag} " in words
        assert f"default: {as_text(knob.default) or 'empty'}]" in words


def test_the_version_is_the_packages() -> None:
    assert run("--version")[1] == f"calliope {calliope.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "environ", "sentence"),
    [
        (
            ["--server-port", "99999"],
            {},
            "server.port is 99999 (command line, --server-port),"
            " but it must be a whole number from 0 to 65535.",
        ),
        (
            [],
            {"CALLIOPE_MIXER_FIT": "stretch"},
            "mixer.fit is 'stretch' (environment variable CALLIOPE_MIXER_FIT),"
            " but it must be crop or contain.",
        ),
        (
            ["--mixer-fsp", "3"],
            {},
            "There is no option --mixer-fsp (command line); did you mean --mixer-fps?",
        ),
        (["here"], {}, "'here' is no argument of calliope serve; see calliope serve --help."),
        (
            [],
            {"CALLIOPE_CONFIG": "/proc/none.toml"},
            "The configuration file /proc/none.toml cannot be read: No such file or directory.",
        ),
        (
            ["--server-tls", "/proc/none.pem,/proc/none.key"],
            {},
            "server.tls: cannot read '/proc/none.pem': No such file or directory.",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    arguments: list[str], environ: dict[str, str], sentence: str
) -> None:
    status, out, err = run("serve", *arguments, environ=environ)
    assert (status, out, err) == (2, "", f"calliope: {sentence}\n")


def test_serve_hands_the_configuration_of_all_places_to_the_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    served: list[Config] = []

    def take(config: Config) -> int:
        served.append(config)
        return 0

    monkeypatch.setattr(calliope, "app", SimpleNamespace(run=take), raising=False)
    file = tmp_path / "calliope.toml"
    file.write_text("[mixer]\nfps = 10\n[audio]\nvoices = 3\n")
    monkeypatch.setenv("CALLIOPE_AUDIO_VOICES", "5")
    chosen = ["--config", str(file), "--mixer-fit=contain", "--ice-turn="]
    assert command_line.main(["serve", *chosen]) == 0
    (config,) = served
    assert (config.mixer.fps, config.audio.voices) == (10, 5)
    assert (config.mixer.fit, config.ice.turn) == ("contain", ())


def test_the_example_file_is_current_and_means_the_defaults() -> None:
    example = ROOT / "calliope.example.toml"
    text = example.read_text(encoding="utf-8")
    assert text == as_toml(OPTIONS) == run("options")[1]
    assert load({}, {}, example) == Config()


def test_the_example_file_with_every_option_taken_in_is_valid(tmp_path: Path) -> None:
    lines = as_toml(OPTIONS).splitlines()
    keys = tuple(f"# {knob.key} = " for knob in OPTIONS)
    taken_in = tmp_path / "all.toml"
    taken_in.write_text(
        "\n".join(line[2:] if line.startswith(keys) else line for line in lines), encoding="utf-8"
    )
    tables = tomllib.loads(taken_in.read_text(encoding="utf-8"))
    assert sum(len(table) for table in tables.values()) == len(OPTIONS)
    assert load({}, {}, taken_in) == Config()


def test_the_documented_table_is_current() -> None:
    table = as_markdown(OPTIONS)
    assert table in (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert table == run("options", "--markdown")[1]


def test_the_readme_tells_defaults_as_they_are() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.\w+)` \| (\S+) \|", readme, re.MULTILINE)
    assert len(rows) >= 10
    by_name = {knob.name: knob for knob in OPTIONS}
    for name, default in rows:
        text = as_text(by_name[name].default)
        assert default == (f"`{text}`" if text else "empty"), name


@pytest.mark.parametrize("document", ["README.md", *(f.name for f in (ROOT / "docs").glob("*.md"))])
def test_documents_name_only_options_that_exist(document: str) -> None:
    path = ROOT / document if document == "README.md" else ROOT / "docs" / document
    text = path.read_text(encoding="utf-8")
    sections = "|".join(dict.fromkeys(knob.section for knob in OPTIONS))
    names = {knob.name for knob in OPTIONS}
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)`", text))
    assert {name for name in named if not name.endswith((".py", ".js"))} <= names
    flags = set(re.findall(rf"--(?:{sections})-[a-z-]+", text))
    assert flags <= {knob.flag for knob in OPTIONS}
