"""Draws what ``bench.compositor_goals --json`` measured.

``python -m bench.plots MEASURED.json FOLDER`` writes ``cost.svg``, what a picture costs over the
number of tiles, a line for each way to compose it, and ``frame-times.svg``, how long single
pictures take beside the 33 ms in which the next one is due.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

SOURCE = [640, 360]
BUDGET_MS = 1000 / 30
LINES = {
    "calliope": ("Calliope (exact area average, names drawn)", "#0f766e", "o"),
    "opencv-bilinear": ("OpenCV resize, bilinear (samples only)", "#9ca3af", "s"),
    "opencv-area": ("OpenCV resize, area", "#7c3aed", "D"),
    "opencv-bgr": ("OpenCV in BGR, names drawn", "#c2410c", "^"),
    "ffmpeg": ("ffmpeg scale + xstack", "#2563eb", "v"),
    "gstreamer": ("GStreamer compositor", "#be185d", "P"),
}
_STYLE: Any = {
    "svg.hashsalt": "calliope",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "legend.frameon": False,
}


def draw_cost(measured: dict[str, Any], target: Path) -> None:
    """CPU milliseconds a picture over the number of tiles, sources of 640x360."""
    cells = [cell for cell in measured["cells"] if list(cell["source"]) == SOURCE]
    figure, axes = plt.subplots(figsize=(8, 4.8), layout="constrained")
    for peer, (label, colour, marker) in LINES.items():
        points = [(cell["count"], cell["ms"][peer]) for cell in cells if peer in cell["ms"]]
        if not points:
            continue
        ours = peer == "calliope"
        axes.plot(
            *zip(*points, strict=True),
            label=label,
            color=colour,
            marker=marker,
            markersize=4,
            linewidth=2.5 if ours else 1.4,
            zorder=3 if ours else 2,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlim(1, 26)
    axes.set_xticks([2, 4, 6, 9, 12, 16, 20, 25])
    axes.set_xlabel("tiles, each from a source of 640x360 with a new picture every time")
    axes.set_ylabel("CPU milliseconds per 1280x720 picture")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    _save(figure, axes, measured, target)


def draw_frame_times(measured: dict[str, Any], target: Path) -> None:
    """How long single pictures of a room of 25 take, as a distribution with its percentiles."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    everything = [ms for times in measured["frame_ms"].values() for ms in times]
    bins = np.geomspace(min(everything) * 0.9, max(*everything, BUDGET_MS) * 1.3, 70)
    colours = ("#0f766e", "#2563eb")
    for (name, times), colour in zip(measured["frame_ms"].items(), colours, strict=True):
        middle, late = np.percentile(times, (50, 99))
        label = f"{name}: p50 {middle:.1f} ms, p99 {late:.1f} ms"
        axes.hist(times, bins=bins.tolist(), color=colour, alpha=0.55, label=label)
        axes.axvline(float(middle), color=colour, linewidth=1.5)
        axes.axvline(float(late), color=colour, linewidth=1.5, linestyle=":")
    axes.axvline(BUDGET_MS, color="#b91c1c", linewidth=2, label="the next one is due: 33 ms")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("milliseconds for one picture of 25 cameras of 640x360, each with a new frame")
    axes.set_ylabel("pictures")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17))
    _save(figure, axes, measured, target)


def _save(figure: Any, axes: Axes, measured: dict[str, Any], target: Path) -> None:
    axes.set_title(measured["machine"], fontsize=8, color="#6b7280")
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def draw(measured: dict[str, Any], folder: Path) -> None:
    """Both plots."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(_STYLE):
        draw_cost(measured, folder / "cost.svg")
        draw_frame_times(measured, folder / "frame-times.svg")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("measured", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    draw(json.loads(options.measured.read_text()), options.folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
