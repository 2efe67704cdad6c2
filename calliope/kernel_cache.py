"""Where compiled kernels are kept between two starts.

numba's own cache lies beside one source file and watches only that file: it does not notice an
edit of a helper or a constant in another one, gives up with an error when nothing is writable,
and refuses to read a folder it cannot write. So each module with kernels gets a folder of its
own, named after everything that went into the machine code: the package's version, the sources of
the module and of all modules of the package that it imports, numba, llvmlite, numba's settings,
the CPU with its features. Other code means another folder, and old folders are pruned.

The folders lie in the first of these places that serves: ``$CALLIOPE_CACHE_DIR``, the package's
``__pycache__``, ``$XDG_CACHE_HOME`` or ``~/.cache``, a private folder for temporary files. A place
that cannot be written still serves when the folder is already there: a container image can carry
its kernels. When no place serves, kernels are compiled anew at each start and nothing fails.
"""

# mypy: allow-untyped-calls
# (numba's caches have no types)

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding
import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

import calliope

_KEPT_FOLDERS = 3
"""Folders kept for one module: this code's, and those of the codes used most lately before it."""

_IMPORT = re.compile(
    r"^\s*(?:from\s+(calliope[\w.]*)\s+import\s+(\([^)]*\)|[^\n]*)|import\s+(calliope[\w.]*))",
    re.MULTILINE,
)
_CODE_NEUTRAL = ("NUMBA_CACHE", "NUMBA_DEBUG_CACHE", "NUMBA_NUM_THREADS")


class KernelCache(FunctionCache):
    """numba's cache of one function, in our folder; trouble with the disk never stops a call."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compiled function, or None where there is none that can be read."""
        try:
            _refresh_once(target_context)
            return super().load_overload(sig, target_context)
        except Exception:  # a torn file can make unpickling raise anything; then compile anew
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep a compiled function; without room or the right to write, go on without."""
        try:
            super().save_overload(sig, data)
        except OSError:
            self.disable()


def _refresh_once(target_context: Any) -> None:
    """Fill numba's context without the refreshes that numba nests in a first one.

    The first kernel that is loaded makes numba register everything it knows, and each of 250
    method templates then refreshes the whole context again, which is a tenth of a second of every
    start. The outermost refresh does all of it but for what the last templates register; for that
    ``load_overload`` refreshes once more, which is quick. May go when numba refreshes once.
    """
    if target_context._registries or "refresh" in vars(target_context):
        return
    target_context.refresh = lambda: None
    try:
        type(target_context).refresh(target_context)
    finally:
        del target_context.refresh


class _Locator(_CacheLocator):
    """Tells numba's cache our folder. Its name stands for the sources, so it is their stamp."""

    def __init__(self, folder: Path, line: int) -> None:
        self._py_file = str(folder)  # numba names it in a warning
        self._folder = folder
        self._line = line

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._folder.name

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> _Locator | None:
        folder = kernel_folder(Path(py_file))
        return None if folder is None else cls(folder, py_func.__code__.co_firstlineno)


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]  # noqa: RUF012 (numba's own form)


KernelCache._impl_class = _CacheImpl


def cache_of(function: Callable[..., object]) -> KernelCache | None:
    """The cache of one kernel; None where nothing can be kept."""
    if kernel_folder(Path(inspect.getfile(function))) is None:
        return None
    return KernelCache(function)


@functools.cache
def kernel_folder(source: Path) -> Path | None:
    """The folder for the kernels of one source file, made if need be; None where none serves."""
    if not source.is_file():
        return None
    name = f"{source.stem}-{_fingerprint(source)}"
    for place in _places():
        folder = place / name
        if folder.is_dir() or _make(folder):
            with contextlib.suppress(OSError):  # in a read-only place nothing needs pruning
                os.utime(folder)
                _prune(place, source.stem)
            return folder
    return None


def _places() -> Iterator[Path]:
    """Folders that may hold kernel folders, best first."""
    chosen = os.environ.get("CALLIOPE_CACHE_DIR")
    if chosen:
        yield Path(chosen).absolute() / "kernels"
    yield Path(__file__).absolute().parent / "__pycache__" / "kernels"
    user_wide = os.environ.get("XDG_CACHE_HOME")
    if user_wide:
        yield Path(user_wide).absolute() / "calliope" / "kernels"
    else:
        with contextlib.suppress(RuntimeError):  # a user without a home
            yield Path.home() / ".cache" / "calliope" / "kernels"
    private = _private_folder()
    if private is not None:
        yield private


def _private_folder() -> Path | None:
    """A folder among the temporary files that nobody else can write into.

    What lies in the cache is executed, so a folder that another user prepared must not be used.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"calliope-{os.getuid()}"
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        state = folder.lstat()
    except OSError:
        return None
    ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
    return folder if ours and not state.st_mode & 0o077 else None


def _make(folder: Path) -> bool:
    """Whether the folder could be made, and a file in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _prune(place: Path, stem: str) -> None:
    """Delete the module's folders that were used longest ago, all but a few."""
    pattern = re.compile(re.escape(stem) + r"-[0-9a-f]{32}")
    folders = [entry for entry in place.iterdir() if pattern.fullmatch(entry.name)]
    folders.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
    for folder in folders[_KEPT_FOLDERS:]:
        shutil.rmtree(folder, ignore_errors=True)


def _fingerprint(source: Path) -> str:
    """A hash of everything that goes into the machine code of one source file's kernels."""
    digest = hashlib.sha256()
    for part in (
        calliope.__version__,
        numba.__version__,
        llvmlite.__version__,
        llvmlite.binding.get_host_cpu_name(),
        llvmlite.binding.get_host_cpu_features().flatten(),
        *(
            f"{name}={value}"
            for name, value in sorted(os.environ.items())
            if name.startswith("NUMBA_") and not name.startswith(_CODE_NEUTRAL)
        ),
    ):
        digest.update(part.encode() + b"\0")
    for file in sources_of(source):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def sources_of(source: Path) -> tuple[Path, ...]:
    """A source file and the package's modules that it imports, directly or not, sorted."""
    package = Path(__file__).absolute().parent
    found: set[Path] = set()
    waiting = [source.absolute()]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for module, names, plain in _IMPORT.findall(file.read_text(encoding="utf-8")):
            dotted = [module, *(f"{module}.{name}" for name in re.findall(r"\w+", names)), plain]
            for name in filter(None, dotted):
                path = package.parent.joinpath(*name.split("."))
                waiting += [
                    file
                    for file in (path.with_suffix(".py"), path / "__init__.py")
                    if file.is_file()
                ]
    return tuple(sorted(found))
