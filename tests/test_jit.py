"""Compiled kernels: kept between starts, never stale, and never a reason not to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

import calliope
from calliope import kernel_cache
from calliope.jit import kernel
from calliope.kernel_cache import sources_of

PACKAGE = Path(__file__).parent.parent / "calliope"

HELPERS = """
from calliope.jit import kernel
STEP = {step}
@kernel
def step(x):
    return x + STEP
"""
KERNELS = """
from calliope.jit import kernel
from calliope.probe_helpers import step
@kernel
def walk(x):
    return step(step(x))
"""
PROBE = """
import json, tempfile
{before}
from calliope.probe_kernels import walk
answer = walk(1)
print(json.dumps([answer, sum(walk.stats.cache_hits.values()), str(walk.stats.cache_path or "")]))
"""


class House:
    """A copy of the package with two kernel modules of its own, run in fresh processes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "site" / "calliope"
        self.package.mkdir(parents=True)
        for name in ("__init__.py", "jit.py", "kernel_cache.py"):
            shutil.copy(PACKAGE / name, self.package / name)
        (self.package / "probe_kernels.py").write_text(KERNELS)
        self.set_step(1)

    def set_step(self, step: int) -> None:
        (self.package / "probe_helpers.py").write_text(HELPERS.format(step=step))

    def start(
        self, environ: Mapping[str, str] | None = None, before: str = ""
    ) -> tuple[int, bool, str]:
        """One start: what ``walk(1)`` gave, whether it came from the cache, from which folder."""
        # Root may write anywhere; without these capabilities it is held to the modes of folders.
        bounded = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        command = [*(bounded if os.geteuid() == 0 else []), sys.executable, "-c"]
        done = subprocess.run(
            [*command, PROBE.format(before=before)],
            env={"PYTHONPATH": str(self.root / "site"), "PATH": os.defpath, **(environ or {})},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        answer, hits, folder = json.loads(done.stdout)
        return answer, hits > 0, folder

    def lock(self) -> None:
        """Make the package read-only, with whatever lies in it."""
        self._chmod(0o555, 0o444)

    def unlock(self) -> None:
        self._chmod(0o755, 0o644)

    def _chmod(self, folders: int, files: int) -> None:
        for folder, _, names in os.walk(self.root):
            os.chmod(folder, folders)
            for name in names:
                os.chmod(Path(folder, name), files)


NOWHERE = 'tempfile.tempdir = "/proc/nowhere"'
HOMELESS = {"HOME": "/proc/nobody"}


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    yield made
    made.unlock()


def test_a_second_start_compiles_nothing_but_an_edit_in_another_file_is_noticed(
    house: House,
) -> None:
    assert house.start()[:2] == (3, False)
    assert house.start()[:2] == (3, True)
    house.set_step(10)
    assert house.start()[:2] == (21, False)
    house.set_step(1)
    assert house.start()[:2] == (3, True), "the code before it is still kept"


COUNTED = """
from numba.core.registry import cpu_target
context = cpu_target.target_context
kind, refresh, refreshes = type(context), type(context).refresh, []
def counted(self):
    refreshes.append(1)
    refresh(self)
kind.refresh = counted
"""
KNOWN = """
import json
{before}
{first}
context.refresh()
known = sum(len(found.versions) for found in context._defns.values())
print(json.dumps([len(refreshes), known]))
"""


def test_numba_fills_its_context_once_for_the_first_kernel_and_misses_nothing(house: House) -> None:
    """Left alone it does so again for each of 250 templates: a tenth of a second of a start."""
    house.start()
    counts = []
    for first in ("from calliope.probe_kernels import walk; walk(1)", ""):
        done = subprocess.run(
            [sys.executable, "-c", KNOWN.format(before=COUNTED, first=first)],
            env={"PYTHONPATH": str(house.root / "site"), "PATH": os.defpath},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        counts.append(json.loads(done.stdout))
    (ours, known), (_, known_to_numba) = counts
    assert ours < 20
    assert known >= known_to_numba


def test_where_nothing_can_be_written_it_starts_all_the_same(house: House) -> None:
    house.lock()
    assert house.start(HOMELESS, NOWHERE) == (3, False, "")


def test_a_read_only_image_uses_the_kernels_it_carries(house: House) -> None:
    house.start()
    house.lock()
    answer, hit, folder = house.start(HOMELESS, NOWHERE)
    assert (answer, hit) == (3, True)
    assert folder.startswith(str(house.package))


def test_a_torn_cache_file_is_compiled_anew(house: House) -> None:
    house.start()
    for torn in ("*.nbc", "*.nbi"):
        for file in (house.package / "__pycache__" / "kernels").rglob(torn):
            file.write_bytes(file.read_bytes()[:40])
        assert house.start()[:2] == (3, False), torn
    assert house.start()[:2] == (3, True)


class Places:
    """The places in which kernels could be kept, each made usable or useless by a test."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = root / "kernels.py"
        self.source.write_text("")
        self.package = root / "package"
        self.package.mkdir()
        self.home = root / "home"
        self.home.mkdir()
        self.temporary = root / "tmp"
        self.temporary.mkdir()
        for variable in ("CALLIOPE_CACHE_DIR", "XDG_CACHE_HOME"):
            monkeypatch.delenv(variable, raising=False)
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setattr(tempfile, "tempdir", str(self.temporary))
        monkeypatch.setattr(kernel_cache, "__file__", str(self.package / "kernel_cache.py"))

    @staticmethod
    def spoil(folder: Path) -> None:
        """Put a file where a folder would have to be: nobody can write into that, not even root."""
        if folder.is_dir():
            folder.rmdir()
        folder.write_text("")

    def choose(self) -> Path | None:
        return kernel_cache.kernel_folder.__wrapped__(self.source)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    return Places(tmp_path, monkeypatch)


def test_the_folder_that_was_chosen_comes_first(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLIOPE_CACHE_DIR", str(tmp_path / "chosen"))
    folder = places.choose()
    assert folder is not None
    assert folder.parent == tmp_path / "chosen" / "kernels"
    assert not (places.package / "__pycache__").exists()


def test_then_the_package_then_the_user_then_a_private_folder_then_none(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parent() -> Path | None:
        folder = places.choose()
        assert folder is None or folder.is_dir()
        return None if folder is None else folder.parent

    assert parent() == places.package / "__pycache__" / "kernels"
    shutil.rmtree(places.package / "__pycache__")
    places.spoil(places.package / "__pycache__")
    assert parent() == places.home / ".cache" / "calliope" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(places.home / "elsewhere"))
    assert parent() == places.home / "elsewhere" / "calliope" / "kernels"
    monkeypatch.setenv("XDG_CACHE_HOME", str(places.source))
    private = places.temporary / f"calliope-{os.getuid()}"
    assert parent() == private
    assert private.stat().st_mode & 0o777 == 0o700
    shutil.rmtree(private)
    places.spoil(places.temporary)
    assert parent() is None


def test_a_temporary_folder_that_others_can_write_is_not_trusted(
    places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.spoil(places.package / "__pycache__")
    monkeypatch.setenv("XDG_CACHE_HOME", str(places.source))
    planted = places.temporary / f"calliope-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert places.choose() is None
    planted.rmdir()
    (tmp_path / "theirs").mkdir(mode=0o700)
    planted.symlink_to(tmp_path / "theirs")
    assert places.choose() is None


def test_settings_and_sources_that_change_the_code_name_another_folder(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = places.choose()
    assert places.choose() == first
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert places.choose() != first
    monkeypatch.delenv("NUMBA_BOUNDSCHECK")
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/somewhere")
    assert places.choose() == first
    monkeypatch.setattr(calliope, "__version__", "99")
    assert places.choose() != first


def test_old_folders_are_pruned_and_others_left_alone(places: Places) -> None:
    folders = places.package / "__pycache__" / "kernels"
    for age in range(1, 6):
        old = folders / f"kernels-{age:032x}"
        old.mkdir(parents=True)
        (old / "walk.nbi").touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    (folders / "kernels-notes").mkdir()
    (folders / f"other-{1:032x}").mkdir()
    folder = places.choose()
    assert folder is not None
    assert {entry.name for entry in folders.iterdir()} == {
        folder.name,
        f"kernels-{1:032x}",
        f"kernels-{2:032x}",
        "kernels-notes",
        f"other-{1:032x}",
    }


def test_a_kernel_runs_as_plain_python_when_the_jit_is_off(house: House) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from calliope.probe_kernels import walk; print(walk(1))"],
        env={"PYTHONPATH": str(house.root / "site"), "NUMBA_DISABLE_JIT": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "3\n"


def test_sources_follow_imports_through_the_package(tmp_path: Path) -> None:
    user = tmp_path / "user.py"
    user.write_text(
        "import calliope.clock\nfrom calliope import (\n    errors,\n    names as n,\n)\n"
        "from calliope.mixer.scene import Tile\nimport numpy\n"
    )
    found = {file.name for file in sources_of(user)}
    assert {"user.py", "clock.py", "errors.py", "names.py", "scene.py", "media.py"} <= found
    assert "http.py" not in found


def test_a_signature_compiles_at_once_and_for_nothing_else() -> None:
    @kernel(signature=["int64(int64)", "float64(float64)"], nogil=False)
    def twice(x: float) -> float:
        return x + x

    assert twice(2) == 4
    assert twice(1.5) == 3.0
    with pytest.raises(TypeError, match="No matching definition"):
        twice(np.zeros(3))  # type: ignore[arg-type]


def test_helpers_can_be_inlined_and_floats_reordered() -> None:
    @kernel(inline=True)
    def square(x: float) -> float:
        return x * x

    @kernel(fastmath=True)
    def length(x: float, y: float) -> float:
        return square(x) + square(y)

    assert length(3.0, 4.0) == 25.0


def test_division_by_zero_follows_numpy() -> None:
    @kernel
    def ratio(a: float, b: float) -> float:
        return a / b

    assert ratio(1.0, 0.0) == np.inf
