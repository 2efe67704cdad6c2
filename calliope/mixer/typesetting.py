"""Sets one line of text: any script, several fonts, both directions, cut to fit with an ellipsis.

The way of a line: clusters, a face for each by coverage, runs of one face and one bidi level, runs
put into visual order, each shaped and drawn by Pillow onto one baseline.
"""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from calliope.media import Plane
from calliope.mixer.bidi import BRACKETS, base_level, levels, visual_order
from calliope.mixer.fonts import FontBook, han_language
from calliope.mixer.graphemes import clusters
from calliope.mixer.sfnt import Face

ELLIPSIS = "…"
_EM_SHARE = 0.75  # of the line's height: leaves room for accents above and Arabic tails below
_BASELINE_SHARE = 0.72
_SHRINK_MIN = 0.8  # a run taller than the line is set smaller, at most so much; the rest is cut
_EM_MIN_PX = 5
_MIRRORED = BRACKETS | {closing: opening for opening, closing in BRACKETS.items()}


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a line in one face and one direction; ``pieces`` are its clusters in order."""

    pieces: tuple[str, ...]
    face: Face
    level: int

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Typesetter:
    """Draws lines with the fonts of one book; one thread at a time."""

    def __init__(self, fonts: FontBook) -> None:
        self._fonts = fonts

    def set_line(self, text: str, height_px: int, max_width_px: int | None = None) -> Plane:
        """Coverage of the line, uint8 ``(height_px, width)``, width at least 1, newly made.

        Every line of one height has the same baseline. A line wider than ``max_width_px`` loses
        clusters at its logical end to an ellipsis; where not even that fits, it is blank.
        """
        pieces = clusters(_printable(text))
        base = base_level(text)
        line = self._draw(pieces, base, height_px)
        if max_width_px is None or line.shape[1] <= max_width_px:
            return line
        fitting = np.zeros((height_px, 1), dtype=np.uint8)
        low, high = 0, len(pieces) - 1
        while low <= high:  # the most clusters that fit beside the ellipsis
            kept = (low + high) // 2
            line = self._draw([*_without_end_blanks(pieces[:kept]), ELLIPSIS], base, height_px)
            if line.shape[1] <= max_width_px:
                fitting, low = line, kept + 1
            else:
                high = kept - 1
        return fitting

    def runs(self, pieces: list[str], base: int) -> list[Run]:
        """The clusters in runs, from left to right; clusters that no font covers are left out."""
        language = han_language("".join(pieces))
        shown: list[tuple[str, Face]] = []
        beside: Face | None = None
        for piece in pieces:
            face = self._fonts.face_for(piece, beside, language)
            if face is None and len(piece) > 1:  # rather the letter without its marks than nothing
                piece = piece[0]
                face = self._fonts.face_for(piece, beside, language)
            if face is not None:
                shown.append((piece, face))
                beside = face
        resolved = levels("".join(piece for piece, _ in shown), base)
        found: list[Run] = []
        at = 0
        for piece, face in shown:
            level = resolved[at]
            at += len(piece)
            if found and found[-1].face == face and found[-1].level == level:
                found[-1] = Run((*found[-1].pieces, piece), face, level)
            else:
                found.append(Run((piece,), face, level))
        return visual_order(found, lambda run: run.level)

    def _draw(self, pieces: list[str], base: int, height_px: int) -> Plane:
        while True:
            runs = self.runs(pieces, base)
            if not runs and "".join(pieces).strip():
                runs = self.runs(["?"], base)  # no font has any of it
            try:
                return self._draw_runs(runs, height_px)
            except _UnusableFace as unusable:
                self._fonts.discard(unusable.face)

    def _draw_runs(self, runs: list[Run], height_px: int) -> Plane:
        baseline = math.ceil(height_px * _BASELINE_SHARE)
        placed: list[tuple[float, str, ImageFont.FreeTypeFont, str | None]] = []
        pen = 0.0
        left, right = 0, 0
        for run in runs:
            try:
                font, box, advance = self._fit(run, height_px, baseline)
            except OSError as error:
                if run.face == self._fonts.primary:
                    raise
                raise _UnusableFace(run.face) from error
            text, direction = self._ordered(run)
            placed.append((pen, text, font, direction))
            left = min(left, math.floor(pen + box[0]))
            right = max(right, math.ceil(pen + box[2]), math.ceil(pen + advance))
            pen = round(pen + advance)  # runs begin on whole pixels: sharp stems
        canvas = Image.new("L", (max(1, right - left), height_px))
        draw = ImageDraw.Draw(canvas)
        for x, text, font, direction in placed:
            draw.text((x - left, baseline), text, 255, font, "ls", direction=direction)
        return np.array(canvas, dtype=np.uint8)

    def _fit(
        self, run: Run, height_px: int, baseline: int
    ) -> tuple[ImageFont.FreeTypeFont, tuple[float, float, float, float], float]:
        """Font, ink box and advance of a run, set smaller where its ink would leave the line."""
        text, direction = self._ordered(run)
        em = max(_EM_MIN_PX, math.floor(height_px * _EM_SHARE + 0.5))
        smallest = max(_EM_MIN_PX, round(em * _SHRINK_MIN))
        while True:
            font = self._fonts.open(run.face, em)
            box = font.getbbox(text, direction=direction, anchor="ls")
            if em <= smallest or (-box[1] <= baseline and box[3] <= height_px - baseline):
                return font, box, font.getlength(text, direction=direction)
            em -= 1

    def _ordered(self, run: Run) -> tuple[str, str | None]:
        """The text and direction to hand to Pillow; without Raqm the order is made here."""
        if self._fonts.shaping:
            return run.text, "rtl" if run.level % 2 else "ltr"
        if run.level % 2:
            return "".join(_MIRRORED.get(piece, piece) for piece in reversed(run.pieces)), None
        return run.text, None


class _UnusableFace(Exception):
    def __init__(self, face: Face) -> None:
        super().__init__(face)
        self.face = face


def _printable(text: str) -> str:
    """NFC, without what has no shape in a line."""
    normal = unicodedata.normalize("NFC", text)
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in normal)


def _without_end_blanks(pieces: list[str]) -> list[str]:
    end = len(pieces)
    while end and pieces[end - 1].isspace():
        end -= 1
    return pieces[:end]
