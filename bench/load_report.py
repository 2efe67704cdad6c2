"""Puts what ``make load`` measured into the README: its table between two marks, and the plot.

``python -m bench.load_report [artefacts/load.json]``, or ``make load-report``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench import load_plot
from bench.load import Measured, load
from bench.load_goals import Row
from bench.report import ROOT, between_marks

BEGIN, END = "<!-- load: begin (make load-report) -->", "<!-- load: end -->"
PLOT = "docs/images/load.svg"
INTRODUCTION = f"""\
### A whole call, and a bad network

Server and clients have a core each; the clients are real (ICE, DTLS, SRTP) and play what was
encoded beforehand. CPU is that of the server's process.

![Cores of the server over participants, and over packets sent to an audience]({PLOT})
"""


def table(measured: Measured) -> str:
    """Every row in Markdown, the machine before it."""
    lines = [
        f"Measured on: {measured['machine']}.\n",
        "| what | measured | goal | |",
        "|---|---|---|---|",
    ]
    for made in measured["rows"].values():
        for row in (Row(**row) for row in made):
            case = row.case.strip() if row.case == row.case.lstrip() else f"... {row.case.strip()}"
            lines.append(f"| {case} | {row.figure} | {row.goal} | {row.verdict} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path, nargs="?", default=Path("artefacts/load.json"))
    measured = load(parser.parse_args().measured)
    if not measured:
        parser.error("nothing was measured yet: make load")
    load_plot.draw(measured["found"], ROOT / PLOT)
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    block = f"{INTRODUCTION}\n{table(measured)}"
    readme.write_text(between_marks(text, block, BEGIN, END), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
