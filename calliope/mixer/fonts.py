"""The fonts of this machine, and which of their faces draws a cluster.

The bundled Noto Sans draws what it covers; for everything else the installed fonts are searched by
coverage, plain sans-serif faces first. Not thread-safe: one rasteriser owns a book.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from PIL import ImageFont, features

from calliope.mixer.sfnt import Face, SfntError, read_faces

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent.parent / "fonts" / "NotoSans-Regular.ttf"
_FC_LIST_TIMEOUT_S = 20
_OPEN_FONTS_MAX = 64
_HAN_SUFFIXES = {"zh": " SC", "ja": " JP", "ko": " KR", "tw": " TC", "hk": " HK"}
_SUFFIXES = frozenset({".ttf", ".otf", ".ttc", ".otc"})


def shaping_available() -> bool:
    """Whether Pillow can shape text: it brings Raqm, but loads FriBiDi from the system."""
    return bool(features.check("raqm"))


def installed_font_files() -> list[Path]:
    """Every font file fontconfig knows; without fontconfig those in the usual folders."""
    program = shutil.which("fc-list")
    if program is not None:
        try:
            listing = subprocess.run(
                [program, "--format", "%{file}\n"],
                capture_output=True,
                check=True,
                timeout=_FC_LIST_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("fc-list failed (%s); looking in the usual folders for fonts", error)
        else:
            names = {os.fsdecode(line) for line in listing.stdout.splitlines() if line}
            return sorted(path for path in map(Path, names) if path.suffix.lower() in _SUFFIXES)
    return [path for folder in _usual_folders() for path in _font_files_below(folder)]


def _usual_folders() -> list[Path]:
    data = os.environ.get("XDG_DATA_HOME", "")
    folders = [Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    if data:
        folders.append(Path(data) / "fonts")
    elif home := os.environ.get("HOME", ""):
        folders += [Path(home) / ".local/share/fonts", Path(home) / ".fonts"]
    return folders


def _font_files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)


class FontBook:
    """Chooses a face for every cluster, and opens faces at pixel sizes.

    ``find_files`` lists the installed font files; it is called once, by :meth:`discover` or when
    the bundled font first lacks something.
    """

    def __init__(
        self,
        find_files: Callable[[], Iterable[Path]] = installed_font_files,
        *,
        shaping: bool | None = None,
    ) -> None:
        self.primary = read_faces(BUNDLED)[0]
        self.shaping = shaping_available() if shaping is None else shaping
        self._find_files = find_files
        self._installed: list[Face] | None = None
        self._unusable: set[Face] = set()
        self._chosen: dict[tuple[str, str], Face | None] = {}
        self._open: OrderedDict[tuple[Face, int], ImageFont.FreeTypeFont] = OrderedDict()

    def discover(self) -> list[Face]:
        """The installed faces, best first; looked for on the first call only."""
        if self._installed is None:
            faces: list[Face] = []
            for path in self._find_files():
                try:
                    faces += read_faces(path)
                except (SfntError, OSError) as error:
                    log.debug("font passed over: %s", error)
            self._installed = sorted(faces, key=_preference)
        return self._installed

    def face_for(self, cluster: str, beside: Face | None, language: str) -> Face | None:
        """The face that draws the cluster; None if no font has it.

        ``beside`` is the face of the cluster before: blanks, digits and punctuation stay in it.
        ``language`` is "ja", "ko" or "zh": whose shapes Han characters take.
        """
        needed = [ord(character) for character in cluster if not _is_invisible(character)]
        if beside is not None and not cluster[0].isalpha() and _covers(beside, needed):
            return beside
        if _covers(self.primary, needed):
            return self.primary
        if beside is not None and _covers(beside, needed):
            return beside
        key = (cluster, language)
        if key not in self._chosen:
            self._chosen[key] = self._search(needed, language)
        return self._chosen[key]

    def _search(self, needed: list[int], language: str) -> Face | None:
        first = next(self._covering(needed), None)
        if first is None or not first.family.endswith(tuple(_HAN_SUFFIXES.values())):
            return first
        wanted = _HAN_SUFFIXES[language]
        siblings = (
            face
            for face in self._covering(needed)
            if face.family.endswith(wanted) and face.weight == first.weight
        )
        return next(siblings, first)

    def _covering(self, needed: list[int]) -> Iterator[Face]:
        """Best first, and no further than asked: reading every font's characters takes a second."""
        for face in self.discover():
            if face not in self._unusable and _covers(face, needed):
                yield face

    def open(self, face: Face, size_px: int) -> ImageFont.FreeTypeFont:
        """The face at a size of ``size_px`` to the em; OSError if FreeType cannot use it."""
        key = (face, size_px)
        if key not in self._open:
            engine = ImageFont.Layout.RAQM if self.shaping else ImageFont.Layout.BASIC
            self._open[key] = ImageFont.truetype(
                str(face.path), size_px, index=face.index, layout_engine=engine
            )
            if len(self._open) > _OPEN_FONTS_MAX:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key]

    def discard(self, face: Face) -> None:
        """Never choose this face again: FreeType could not use it."""
        log.warning("font %s (face %d) cannot be drawn and is left out", face.path, face.index)
        self._unusable.add(face)
        self._chosen.clear()


def han_language(text: str) -> str:
    """Whose shapes the Han characters of a name take: by the kana or hangul beside them."""
    for character in text:
        if "\u3040" <= character <= "\u30ff" or "\uff66" <= character <= "\uff9f":
            return "ja"
        if "\uac00" <= character <= "\ud7a3" or "\u1100" <= character <= "\u11ff":
            return "ko"
    return "zh"


def _covers(face: Face, needed: list[int]) -> bool:
    return all(code_point in face.coverage for code_point in needed)


def _is_invisible(character: str) -> bool:
    """Joiners, selectors and other format characters ask for no glyph of their own."""
    return (
        unicodedata.category(character) == "Cf"
        or "\ufe00" <= character <= "\ufe0f"
        or "\U000e0100" <= character <= "\U000e01ef"
    )


def _preference(face: Face) -> tuple[object, ...]:
    family = face.family
    return (
        face.italic,
        "Mono" in family or "Condensed" in family or "Display" in family,
        "Sans" not in family,
        not family.startswith("Noto Sans"),
        abs(face.weight - 400),
        family,
        str(face.path),
        face.index,
    )
