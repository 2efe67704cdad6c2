"""The page's icon as PNGs of the sizes that installed pages want, drawn from ``static/icon.svg``.

``python -m tests.icons`` writes them anew; a test holds that they are what is drawn here.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from PIL import Image, ImageColor, ImageDraw

from calliope.assets import static_dir

FINER = 8
"""Drawn so many times larger, then averaged: smooth edges."""

COLOURS = 32
"""Enough for the steps between three flat colours, and a third of the bytes of all 16 million."""

ICONS = {"icon-192.png": 192, "icon-maskable.png": 512}
"""Besides ``icon.svg``, which serves at any size; the maskable one is what iPhones want too."""


def draw(name: str) -> Image.Image:
    """One of :data:`ICONS`, with a palette.

    A maskable one has its ground up to the edge, for the system cuts out its own shape (W3C
    manifest, "icon masks"); what stands on it lies within the inner 80 % all the same.
    """
    size = ICONS[name]
    root = ElementTree.parse(static_dir() / "icon.svg").getroot()
    scale = size * FINER / float(root.attrib["viewBox"].split()[2])
    picture = Image.new("RGBA", (size * FINER, size * FINER))
    for parent in (root, *root):
        for rect in parent.findall("{*}rect"):
            whole = parent is root
            colour = ImageColor.getrgb(rect.get("fill", parent.get("fill", "")))
            layer = Image.new("RGBA", picture.size, (*colour[:3], 0))
            sides = ("x", "y", "width", "height")
            x, y, w, h = (float(rect.get(side, "0")) * scale for side in sides)
            radius = 0.0 if whole and "maskable" in name else float(rect.attrib["rx"]) * scale
            opacity = round(255 * float(rect.get("opacity", "1")))
            ImageDraw.Draw(layer).rounded_rectangle(
                (x, y, x + w - 1, y + h - 1), radius, (*colour[:3], opacity)
            )
            picture.alpha_composite(layer)
    small = picture.resize((size, size), Image.Resampling.BOX)
    return small.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)


def main() -> None:
    for name in ICONS:
        path: Path = static_dir() / name
        draw(name).save(path, optimize=True)


if __name__ == "__main__":
    main()
