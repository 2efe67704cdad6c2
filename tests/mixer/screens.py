"""Shared screens full of small text, and what a machine reads off a picture of one."""

from __future__ import annotations

import re
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import calliope
from calliope.media import Frame, Plane

TEXT_PX = 12
_LINE_PX = 20
_FONT = Path(calliope.__file__).parent / "fonts" / "NotoSans-Regular.ttf"
_WORDS = re.split(
    " ",
    "the quick brown fox jumps over lazy dogs while seven wizards brew some potion in large copper"
    " kettles under ancient stone bridges and every frozen lake reflects bright winter lanterns",
)
_ENLARGED = 3  # Tesseract is made for scans of 300 dpi


class TextScreen:
    """A source that shows ``lines`` of 12-pixel text, dark on light, and never changes."""

    def __init__(self, width: int, height: int, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        picture = Image.new("L", (width, height), 235)
        pen = ImageDraw.Draw(picture)
        font = ImageFont.truetype(str(_FONT), TEXT_PX)
        self.lines = [" ".join(random.choice(_WORDS, 9)) for _ in range((height - 16) // _LINE_PX)]
        for index, line in enumerate(self.lines):
            pen.text((16, self.top_of(index)), line, font=font, fill=16)
        grey = np.full(((height + 1) // 2, (width + 1) // 2), 128, np.uint8)
        self._frame = Frame(np.asarray(picture), grey, grey, 1, 0)

    def top_of(self, line: int) -> int:
        """The row above a line, in pixels."""
        return 8 + line * _LINE_PX

    def latest(self) -> Frame | None:
        return self._frame


def read_text(luma: Plane) -> list[str]:
    """The words that Tesseract reads off a picture; RuntimeError if it does not run."""
    height, width = luma.shape
    large = Image.fromarray(luma).resize(
        (width * _ENLARGED, height * _ENLARGED), Image.Resampling.LANCZOS
    )
    command = ["tesseract", "-", "-", "--psm", "6", "-l", "eng"]
    try:
        done = subprocess.run(
            command, input=_png(large), capture_output=True, timeout=100, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(
            f"Tesseract failed ({error}); Debian's package is tesseract-ocr"
        ) from error
    return done.stdout.decode().split()


def _png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()
