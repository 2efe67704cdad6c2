"""Puts what was measured into the README: its table between two marks, and the plots.

``python -m bench.report MEASURED.json`` (``make bench-report`` measures first). The README gets
the goals, ``docs/measured.md`` also every grid.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench import plots
from bench.compositor_goals import Row, cell_table, table
from bench.grids import Cell

INTRODUCTION = """\
### The mixer beside others

CPU time per composed 1280x720 picture, on the same frames in one run; names and marks are drawn by
ours and the BGR way only. OpenCV's is of one thread as ours, ffmpeg's and GStreamer's of all theirs
and without reading the input. [docs/measured.md](docs/measured.md) has every grid.

![CPU milliseconds per picture over the number of tiles](docs/images/cost.svg)

![How long single pictures take, beside the 33 ms until the next one](docs/images/frame-times.svg)

"""

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- measured: begin (make bench-report) -->", "<!-- measured: end -->"


def between_marks(text: str, new: str, begin: str = BEGIN, end: str = END) -> str:
    """``text`` with everything between the marks replaced; ValueError without the marks."""
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no line {begin!r} with {end!r} after it")
    return f"{before}{begin}\n{new}\n{end}{after}"


def goals(measured: dict[str, Any]) -> str:
    rows = [Row(**row) for row in measured["rows"]]
    return f"Measured on: {measured['machine']}.\n\n{table(rows)}"


def grids(measured: dict[str, Any]) -> str:
    cells = [Cell(**cell) for cell in measured["cells"]]
    return (
        "# What the mixer's benchmark measured\n\n"
        "Made by `make bench-report`. Others are given as multiples of our time: above 1 they take"
        f" longer.\n\n{goals(measured)}\n\n## Every grid\n\n{cell_table(cells)}\n"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path)
    options = parser.parse_args()
    measured = json.loads(options.measured.read_text())
    plots.draw(measured, ROOT / "docs" / "images")
    (ROOT / "docs" / "measured.md").write_text(grids(measured), encoding="utf-8")
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    readme.write_text(between_marks(text, INTRODUCTION + goals(measured)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
