"""The wheel: it carries everything, and runs from any folder without the checkout."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from calliope.assets import static_dir

ROOT = Path(__file__).parent.parent
PARTS = (
    "calliope",
    "static",
    "setup.cfg",
    "pyproject.toml",
    "requirements.in",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left in the checkout and nothing old gets in."""
    source = tmp_path_factory.mktemp("source")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(
                ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / part, source / part)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."],
        cwd=source,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel alone was installed."""
    folder = tmp_path_factory.mktemp("site")
    install = "pip install --quiet --no-deps --no-index --disable-pip-version-check --target"
    subprocess.run(
        [sys.executable, "-m", *install.split(), str(folder), str(wheel)],
        check=True,
        timeout=120,
    )
    return folder


def tracked(folder: str) -> Iterator[str]:
    """Files of the checkout that belong into a release."""
    for file in (ROOT / folder).rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file.relative_to(ROOT).as_posix()


def test_the_wheel_holds_every_module_font_and_file_of_the_page(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = set(tracked("calliope")) | {f"calliope/{name}" for name in tracked("static")}
    assert held == expected


def test_the_wheel_names_its_licences_and_its_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition(".dist-info/")[2] for name in archive.namelist()}
        (entry_points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        assert b"calliope = calliope.__main__:main" in archive.read(entry_points)
    assert {"licenses/LICENSE", "licenses/calliope/fonts/OFL.txt"} <= names


def test_a_checkout_serves_the_page_beside_the_package() -> None:
    assert static_dir() == ROOT / "static"


def test_an_installed_server_serves_its_own_page_from_any_folder(
    site: Path, tmp_path: Path
) -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": str(site),
        # The code is the same, and so is its name in the cache: nothing is compiled again.
        "CALLIOPE_CACHE_DIR": str(ROOT / "calliope" / "__pycache__"),
    }
    loopback = ("--server-host", "127.0.0.1", "--server-port", "0")
    server = subprocess.Popen(
        [sys.executable, "-u", str(site / "bin" / "calliope"), "serve", *loopback],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        for line in server.stdout:
            if ready := re.search(r"open (http://\S+)", line):
                break
        else:
            pytest.fail(f"the server ended with {server.wait()} before it was ready")
        with urllib.request.urlopen(f"{ready[1]}/some-room", timeout=10) as answer:
            page = answer.read()
        assert page == (ROOT / "static" / "index.html").read_bytes()
        assert (site / "calliope" / "static" / "index.html").read_bytes() == page
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
