"""The mixer's goals, measured beside its rivals on the same frames in the same run.

``python -m bench.compositor_goals [--quick] [--json FILE]`` prints every goal with what was
measured, and every grid. Times are CPU milliseconds per composed 1280x720 picture, of one thread
for what runs in this process and of all threads for other programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

from bench import rooms, start
from bench.grids import COUNTS, IN_PROCESS, PEERS, SOURCES, Cell, Size, measure_grids
from bench.machine import Bandwidth, bandwidth, describe
from bench.peers import programs
from bench.pictures import rotation
from bench.special import FPS, HD, SEATS, Special, frame_times, measure_special
from calliope.media import Frame
from calliope.mixer.compositor import warm_up

HEADLINE_GOALS = {"opencv-bgr": 14.0, "ffmpeg": 8.0, "gstreamer": 12.0, "opencv-bilinear": 2.0}
PEER_NAMES = {
    "opencv-bilinear": "OpenCV `resize` bilinear on planes",
    "opencv-area": "OpenCV `resize` area on planes",
    "opencv-bgr": "the OpenCV-BGR way",
    "ffmpeg": "ffmpeg `scale` + `xstack`",
    "gstreamer": "GStreamer `compositor`",
}
PACKAGES = {
    "ffmpeg": "ffmpeg",
    "gst-launch-1.0": "gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good",
}
QUICK_COUNTS = (2, 9, 25)
ROOMS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One goal: what is measured, the figure, the goal in words, and whether it is met."""

    case: str
    figure: str
    goal: str
    met: bool | None
    """None where there is no goal, only a figure."""


def headline_rows(cell: Cell) -> list[Row]:
    """25 sources of 640x360, a new frame each tick."""
    ours = cell.ms["calliope"]
    rows = [Row("25 of 640x360, all new", f"{ours:.2f} ms", "at most 1.0 ms", ours <= 1.0)]
    for peer, goal in HEADLINE_GOALS.items():
        if peer in cell.ms:
            case = f"... beside {PEER_NAMES[peer]} ({cell.ms[peer]:.1f} ms)"
            ratio = cell.ratio(peer)
            rows.append(Row(case, f"{ratio:.1f}x", f"at least {goal:g}x", ratio >= goal))
        else:
            rows.append(Row(f"... beside {PEER_NAMES[peer]}", "not installed", "", None))
    read = cell.ms["plain-read"]
    rows.append(
        Row(
            f"... beside only reading the pictures, once each ({read:.2f} ms)",
            f"{ours / read:.2f} times as long",
            "",
            None,
        )
    )
    return rows


def has_to_beat(cell: Cell, peer: str) -> bool:
    """Bilinear only samples: it has to be beaten where a tile shrinks from at most 640x360."""
    small = cell.source[0] * cell.source[1] <= 640 * 360
    return peer != "opencv-bilinear" or (cell.shrinks and small)


def grid_rows(cells: Sequence[Cell], speed: Bandwidth) -> list[Row]:
    """What all grids of each source size have in common."""
    cells = [cell for cell in cells if cell.count > 1]  # one alone is no grid, and has no goal
    rows = []
    error, psnr_db = max(c.error for c in cells), min(c.psnr_db for c in cells)
    rows.append(
        Row("every grid: exact", f"{error:.2f} grey levels", "within 1 of the area", error <= 1)
    )
    rows.append(Row("... PSNR", f"{psnr_db:.1f} dB", "at least 45 dB", psnr_db >= 45))
    for source in dict.fromkeys(cell.source for cell in cells):
        of_size = [cell for cell in cells if cell.source == source]
        title = f"{len(of_size)} grids of {source[0]}x{source[1]}"
        for peer in PEERS:
            measured = [cell for cell in of_size if peer in cell.ms]
            goals = [cell for cell in measured if has_to_beat(cell, peer)]
            if goals:
                rows.append(_beaten(f"{title}, {PEER_NAMES[peer]}", goals, peer))
        rest = [cell for cell in of_size if not has_to_beat(cell, "opencv-bilinear")]
        if rest:
            low, high = (pick(c.ratio("opencv-bilinear") for c in rest) for pick in (min, max))
            share = [cell.gb_s / speed.copy_gb_s for cell in rest]
            rows.append(
                Row(
                    f"{title}, bilinear where it need not be beaten ({len(rest)} grids)",
                    f"{low:.2f}x to {high:.2f}x; {100 * min(share):.0f}% to {100 * max(share):.0f}%"
                    f" of the copy bandwidth ({speed.copy_gb_s:.1f} GB/s)",
                    "",
                    None,
                )
            )
    return rows


def _beaten(case: str, cells: Sequence[Cell], peer: str) -> Row:
    slower = [cell.count for cell in cells if cell.ratio(peer) <= 1]
    low = min(cells, key=lambda cell: cell.ratio(peer))
    figure = f"{low.ratio(peer):.2f}x at least (with {low.count})"
    if slower:
        figure += f"; not with {', '.join(map(str, slower))}"
    return Row(case, figure, f"faster in all {len(cells)}", not slower)


def special_rows(found: Special) -> list[Row]:
    copies = found.fitting_ms / found.canvas_copy_ms
    share, names = found.one_ms / found.all_ms, found.names
    return [
        Row(
            "25 sources of their tile's size",
            f"{found.fitting_ms:.2f} ms, {copies:.1f} copies of the canvas"
            f" ({found.canvas_copy_ms:.3f} ms)",
            "at most 4",
            copies <= 4,
        ),
        Row("nothing new", f"{found.nothing_us:.1f} us", "at most 5 us", found.nothing_us <= 5),
        Row(
            "... pictures encoded in a still second",
            f"{found.encoded_when_still} of {FPS}; a whole tick costs"
            f" {found.nothing_tick_us:.0f} us",
            "the encoder is told",
            found.encoded_when_still <= 1,
        ),
        Row("one new frame of 25", f"{share:.3f} of all", "its share: 0.04", share <= 0.08),
        Row(
            "25 names in ten scripts, all new: the worst tick",
            f"{names.worst_tick_ms:.2f} ms more ({names.changing_ms:.2f} ms until all stand)",
            "at most 1 ms",
            names.worst_tick_ms <= 1,
        ),
        Row("... a tick after", f"{names.after_ms:.2f} ms more", "nothing", names.after_ms < 0.05),
    ]


def start_rows(found: start.Starts) -> list[Row]:
    cold = "not measured" if found.cold_s is None else f"{found.cold_s:.0f} s"
    return [
        Row("second start, kernels cached", f"{found.warm_s:.2f} s", "under 2 s", found.warm_s < 2),
        Row("... first start, kernels compiled before the port opens", cold, "", None),
        Row(
            "functions compiled in the first tick",
            f"{found.compiled}; it takes {found.first_tick_ms:.1f} ms",
            "none",
            found.compiled == 0,
        ),
    ]


def room_rows(held: Sequence[rooms.Held]) -> list[Row]:
    rows = []
    for one in held:
        work = f"encoded at {one.rendition}" if one.rendition else "mixed at 720p"
        beyond = one.beyond_percent
        rows.append(
            Row(
                f"{one.rooms} rooms of {rooms.PEOPLE}, {work}, {one.seconds:g} s",
                f"{one.late_percent:.2f}% late, an empty ticker {one.empty_percent:.2f}%;"
                f" {one.cores:.2f} cores",
                "at most 0.1% beyond the ticker",
                beyond <= 0.1,
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    met = {True: "yes", False: "no", None: ""}
    lines = ["| case | measured | goal | met |", "|---|---|---|---|"]
    lines += [f"| {row.case} | {row.figure} | {row.goal} | {met[row.met]} |" for row in rows]
    return "\n".join(lines)


def cell_table(cells: Sequence[Cell]) -> str:
    """Every grid: our milliseconds, the others as multiples of them."""
    lines = ["| sources | tiles | ours, ms | GB/s |" + "".join(f" {peer} |" for peer in PEERS)]
    lines.append("|---" * (4 + len(PEERS)) + "|")
    for cell in cells:
        ratios = "".join(f" {cell.ratio(peer):.2f}x |" for peer in PEERS)
        size = f"{cell.source[0]}x{cell.source[1]}"
        lines.append(
            f"| {size} | {cell.count} | {cell.ms['calliope']:.2f} | {cell.gb_s:.1f} |{ratios}"
        )
    return "\n".join(lines)


def measure_all(quick: bool) -> tuple[list[Row], dict[str, object]]:
    """Every row, and all that was measured as plain values."""
    said = _Progress()
    warm_up()
    speed = bandwidth()
    said("25 of 640x360")
    cameras = [rotation(seed, *HD) for seed in range(SEATS)]
    (headline,) = measure_grids(
        HD, (SEATS,), 8 if quick else 16, cameras=cameras, rivals=(*IN_PROCESS, "plain-read")
    )
    special = measure_special(cameras, 8 if quick else 16)
    times = frame_times(100 if quick else 600)
    said("starts")
    starts = start.measure(2, cold=False) if quick else start.measure()
    cells: list[Cell] = []
    for source in SOURCES:
        said(f"grids of {source[0]}x{source[1]}")
        cells += _grids(source, cameras if source == HD else (), quick)
    seconds = 4.0 if quick else 60.0
    said(f"{ROOMS} rooms, three times {seconds:g} s")
    held = [rooms.hold(ROOMS, rendition, seconds) for rendition in (None, "360p", "720p")]
    said("")
    rows = headline_rows(headline) + grid_rows(cells, speed) + special_rows(special)
    rows += start_rows(starts) + room_rows(held)
    return rows, {
        "machine": describe(),
        "quick": quick,
        "bandwidth": asdict(speed),
        "rows": [asdict(row) for row in rows],
        "headline": asdict(headline),
        "cells": [asdict(cell) for cell in cells],
        "special": asdict(special),
        "starts": asdict(starts),
        "rooms": [asdict(one) for one in held],
        "frame_ms": times,
    }


def _grids(source: Size, cameras: Sequence[Sequence[Frame]], quick: bool) -> list[Cell]:
    if quick:
        hd = source == HD
        return measure_grids(source, QUICK_COUNTS, 2, cameras=cameras, with_programs=hd)
    return measure_grids(source, COUNTS, 2 if source[0] > 641 else 3, cameras=cameras)


class _Progress:
    """Says on the terminal's side channel what is being measured, and how long it took so far."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, what: str) -> None:
        print(f"{time.monotonic() - self._begin:5.0f} s  {what}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer grids, shorter rooms")
    parser.add_argument("--json", type=Path, help="write all that was measured there")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    for program, packages in PACKAGES.items():
        if not programs.installed(program):
            print(f"{program} is not installed: apt-get install {packages}", file=sys.stderr)
    rows, measured = measure_all(options.quick)
    print(f"{measured['machine']}\n\n{table(rows)}\n")
    print(cell_table([Cell(**cell) for cell in measured["cells"]]))  # type: ignore[attr-defined]
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
