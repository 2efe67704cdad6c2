"""ffmpeg's scale + xstack and GStreamer's compositor, as their users would call them.

A program is charged user and system time of all its threads. It runs for two lengths, and the
difference is what its frames cost, without start-up; what reading the same input costs the same
program is taken off. That is measured for one and for all inputs, once, for it grows by the input.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np

from calliope.media import Frame, Plane
from calliope.mixer.scene import Tile

Size: TypeAlias = tuple[int, int]
TIMEOUT_S = 120
SHORT = 1
"""How many times the shorter run goes through the frames of each input."""
FRAMES = 800
"""About how many input frames the longer run handles more than the shorter one, all inputs
together; at least 24 composed ones."""


class Program(Protocol):
    """Command lines that go ``times`` times through the frames of the first inputs."""

    def compose(self, areas: Sequence[Tile], times: int) -> list[str]: ...

    def read(self, inputs: int, times: int) -> list[str]: ...


class Run:
    """One program with its inputs."""

    def __init__(self, program: Program, inputs: int, frames: int) -> None:
        self._program = program
        self._frames = frames
        one = self._read_ms(1)
        each = (self._read_ms(inputs) - one) / (inputs - 1) if inputs > 1 else 0.0
        self._reading_ms = [0.0] + [one + each * more for more in range(inputs)]

    def _longer(self, inputs: int) -> int:
        return SHORT + max(3, round(FRAMES / inputs / self._frames))

    def _read_ms(self, inputs: int) -> float:
        longer = self._longer(inputs)
        spent = _cpu_s(self._program.read(inputs, longer)) - _cpu_s(
            self._program.read(inputs, SHORT)
        )
        return spent * 1000 / ((longer - SHORT) * self._frames)

    def ms_per_frame(self, areas: Sequence[Tile]) -> float:
        """CPU milliseconds per composed frame, net of reading."""
        longer = self._longer(len(areas))
        spent = _cpu_s(self._program.compose(areas, longer)) - _cpu_s(
            self._program.compose(areas, SHORT)
        )
        composed = (longer - SHORT) * self._frames
        return max(0.0, spent * 1000 / composed - self._reading_ms[len(areas)])


def prepare(folder: Path, cameras: Sequence[Sequence[Frame]], canvas: Size) -> dict[str, Run]:
    """Write the cameras' frames as each program reads them; the programs that are installed."""
    size = cameras[0][0].width, cameras[0][0].height
    runs = {}
    if installed("ffmpeg"):
        paths = write_cameras(folder / "tight", cameras, 1)
        runs["ffmpeg"] = Run(Ffmpeg(paths, size), len(cameras), len(cameras[0]))
    if installed("gst-launch-1.0"):
        if size[0] % 8 or size[1] % 2:  # GStreamer's I420 has rows of whole words
            paths = write_cameras(folder / "wide", cameras, 4)
        elif "ffmpeg" not in runs:
            paths = write_cameras(folder / "tight", cameras, 1)
        runs["gstreamer"] = Run(Gstreamer(paths, size, canvas), len(cameras), len(cameras[0]))
    return runs


def installed(program: str) -> bool:
    return shutil.which(program) is not None


def write_cameras(folder: Path, cameras: Sequence[Sequence[Frame]], word: int) -> list[Path]:
    """One raw I420 file for each camera, its frames one after another.

    Rows are padded to whole words of so many bytes; with more than one also the planes to even
    numbers of rows.
    """
    folder.mkdir()
    paths = []
    for index, frames in enumerate(cameras):
        path = folder / f"camera{index}.yuv"
        with path.open("wb") as file:
            for frame in frames:
                for plane, rows in (
                    (frame.y, 2 * frame.u.shape[0]),
                    (frame.u, frame.u.shape[0]),
                    (frame.v, frame.v.shape[0]),
                ):
                    file.write(_padded(plane, rows, word).tobytes())
        paths.append(path)
    return paths


def _padded(plane: Plane, rows: int, word: int) -> Plane:
    if word == 1:
        return plane
    return np.pad(plane, ((0, rows - plane.shape[0]), (0, -plane.shape[1] % word)), mode="edge")


def _cpu_s(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


class Ffmpeg:
    """``scale`` (bilinear) for each input and one ``xstack``, as large as its inputs need."""

    def __init__(self, paths: Sequence[Path], source: Size) -> None:
        self._paths = paths
        self._source = source

    def _inputs(self, count: int, times: int) -> list[str]:
        width, height = self._source
        command = ["ffmpeg", "-nostdin", "-loglevel", "error"]
        for path in self._paths[:count]:
            command += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{width}x{height}"]
            command += ["-r", "30", "-stream_loop", str(times - 1), "-i", str(path)]
        return command

    def compose(self, areas: Sequence[Tile], times: int) -> list[str]:
        scaled = [
            f"[{index}:v]scale={area.w}:{area.h}:flags=bilinear[s{index}]"
            for index, area in enumerate(areas)
        ]
        names = "".join(f"[s{index}]" for index in range(len(areas)))
        layout = "|".join(f"{area.x}_{area.y}" for area in areas)
        stack = f"{names}xstack=inputs={len(areas)}:layout={layout}:fill=black[out]"
        if len(areas) == 1:  # xstack takes two or more
            stack = f"{names}null[out]"
        graph = ";".join([*scaled, stack])
        inputs = self._inputs(len(areas), times)
        return [*inputs, "-filter_complex", graph, "-map", "[out]", "-f", "null", "-"]

    def read(self, inputs: int, times: int) -> list[str]:
        maps = [part for index in range(inputs) for part in ("-map", f"{index}:v")]
        return [*self._inputs(inputs, times), *maps, "-c", "copy", "-f", "null", "-"]


class Gstreamer:
    """One ``compositor`` that scales its inputs itself."""

    def __init__(self, paths: Sequence[Path], source: Size, canvas: Size) -> None:
        self._paths = paths
        self._source = source
        self._canvas = canvas

    def _reader(self, path: Path, times: int) -> str:
        width, height = self._source
        return (
            f"multifilesrc location={path} loop=true num-buffers={times} ! "
            f"rawvideoparse format=i420 width={width} height={height} framerate=30/1"
        )

    def compose(self, areas: Sequence[Tile], times: int) -> list[str]:
        pads = " ".join(
            f"sink_{index}::{key}={value}"
            for index, area in enumerate(areas)
            for key, value in (
                ("xpos", area.x),
                ("ypos", area.y),
                ("width", area.w),
                ("height", area.h),
            )
        )
        width, height = self._canvas
        caps = f"video/x-raw,format=I420,width={width},height={height},framerate=30/1"
        feeds = " ".join(
            f"{self._reader(path, times)} ! c.sink_{index}"
            for index, path in enumerate(self._paths[: len(areas)])
        )
        pipeline = f"compositor name=c {pads} ! {caps} ! fakesink sync=false {feeds}"
        return ["gst-launch-1.0", "-q", *pipeline.split()]

    def read(self, inputs: int, times: int) -> list[str]:
        pipeline = " ".join(
            f"{self._reader(path, times)} ! fakesink sync=false" for path in self._paths[:inputs]
        )
        return ["gst-launch-1.0", "-q", *pipeline.split()]
