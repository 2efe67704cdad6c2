"""Compiled kernels: kept between starts, never stale, and never a reason not to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

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


HOMELESS = "/proc/nobody"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    yield made
    made.unlock()


NOWHERE = 'tempfile.tempdir = "/proc/nowhere"'


def test_a_second_start_compiles_nothing(house: House) -> None:
    assert house.start()[:2] == (3, False)
    assert house.start()[:2] == (3, True)


def test_an_edited_helper_in_another_file_is_noticed(house: House) -> None:
    house.start()
    house.set_step(10)
    assert house.start()[:2] == (21, False)
    house.set_step(1)
    assert house.start()[:2] == (3, True), "the code before it is still kept"


def test_settings_that_change_the_code_do_not_share_it(house: House) -> None:
    house.start()
    assert house.start({"NUMBA_OPT": "1"})[1] is False
    assert house.start()[1] is True


def test_old_folders_are_pruned_and_others_left_alone(house: House) -> None:
    folders = house.package / "__pycache__" / "kernels"
    for age in range(1, 6):
        old = folders / f"probe_kernels-{age:032x}"
        old.mkdir(parents=True)
        (old / "walk.nbi").touch()
        os.utime(old, (1e9 - age, 1e9 - age))
    (folders / "probe_kernels-notes").mkdir()
    folder = Path(house.start()[2])
    kept = {entry.name for entry in folders.glob("probe_kernels-*")}
    assert kept == {
        folder.name,
        f"probe_kernels-{1:032x}",
        f"probe_kernels-{2:032x}",
        "probe_kernels-notes",
    }


def test_the_folder_can_be_chosen(house: House, tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    _, _, folder = house.start({"CALLIOPE_CACHE_DIR": str(chosen)})
    assert folder.startswith(str(chosen))
    assert not (house.package / "__pycache__" / "kernels").exists()


def test_a_read_only_package_uses_the_users_cache(house: House, tmp_path: Path) -> None:
    house.lock()
    home = tmp_path / "home"
    home.mkdir()
    for _, warm in ((0, False), (1, True)):
        _, hit, folder = house.start({"HOME": str(home)}, NOWHERE)
        assert (hit, folder.startswith(str(home / ".cache" / "calliope"))) == (warm, True)
    _, _, folder = house.start({"HOME": HOMELESS, "XDG_CACHE_HOME": str(home)}, NOWHERE)
    assert folder.startswith(str(home / "calliope"))


def test_without_a_home_a_private_temporary_folder_serves(house: House, tmp_path: Path) -> None:
    house.lock()
    environ = {"HOME": HOMELESS, "TMPDIR": str(tmp_path)}
    assert house.start(environ)[1] is False
    _, hit, folder = house.start(environ)
    assert hit
    assert folder.startswith(str(tmp_path / f"calliope-{os.getuid()}"))


def test_a_temporary_folder_that_others_can_write_is_not_trusted(
    house: House, tmp_path: Path
) -> None:
    house.lock()
    planted = tmp_path / f"calliope-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    assert house.start({"HOME": HOMELESS, "TMPDIR": str(tmp_path)})[2] == ""
    planted.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    planted.symlink_to(tmp_path / "elsewhere")
    assert house.start({"HOME": HOMELESS, "TMPDIR": str(tmp_path)})[2] == ""


def test_where_nothing_can_be_written_it_starts_all_the_same(house: House) -> None:
    house.lock()
    for _ in range(2):
        assert house.start({"HOME": HOMELESS}, NOWHERE) == (3, False, "")


def test_a_read_only_image_uses_the_kernels_it_carries(house: House) -> None:
    house.start()
    house.lock()
    answer, hit, folder = house.start({"HOME": HOMELESS}, NOWHERE)
    assert (answer, hit) == (3, True)
    assert folder.startswith(str(house.package))


def test_a_torn_cache_file_is_compiled_anew(house: House) -> None:
    house.start()
    for pattern in ("*.nbc", "*.nbi"):
        for file in (house.package / "__pycache__" / "kernels").rglob(pattern):
            file.write_bytes(file.read_bytes()[:40])
        assert house.start()[:2] == (3, False)
        assert house.start()[:2] == (3, True)


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
