"""ffmpeg's scale + xstack and GStreamer's compositor, as their users would call them.

A program is charged user and system time of all its threads. It runs for two lengths, and the
difference is what its frames cost, without start-up; the same program reading the same input
without composing anything is taken off.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from calliope.media import Frame
from calliope.mixer.scene import Tile

Command: TypeAlias = Callable[[int], list[str]]
"""The command line that handles each input's frames so many times."""
TIMEOUT_S = 120
SHORT, LONG = 2, 22


def write_cameras(folder: Path, cameras: Sequence[Sequence[Frame]]) -> list[Path]:
    """One raw I420 file for each camera, its frames one after another."""
    paths = []
    for index, frames in enumerate(cameras):
        path = folder / f"camera{index}.yuv"
        with path.open("wb") as file:
            for frame in frames:
                for plane in (frame.y, frame.u, frame.v):
                    file.write(plane.tobytes())
        paths.append(path)
    return paths


def installed(program: str) -> bool:
    return shutil.which(program) is not None


def ms_per_frame(compose: Command, read: Command, frames: int) -> float:
    """CPU milliseconds per composed frame, net of reading; ``frames`` are in each file."""
    longer = (LONG - SHORT) * frames
    composing = _cpu_s(compose(LONG)) - _cpu_s(compose(SHORT))
    reading = _cpu_s(read(LONG)) - _cpu_s(read(SHORT))
    return max(0.0, composing - reading) * 1000 / longer


def _cpu_s(command: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def ffmpeg(
    paths: Sequence[Path], tiles: Sequence[Tile], source: tuple[int, int]
) -> tuple[Command, Command]:
    """``scale`` (bilinear) for each input and one ``xstack``; and a plain read of the inputs."""

    def inputs(times: int) -> list[str]:
        command = ["ffmpeg", "-nostdin", "-loglevel", "error"]
        for path in paths:
            command += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{source[0]}x{source[1]}"]
            command += ["-r", "30", "-stream_loop", str(times - 1), "-i", str(path)]
        return command

    scaled = [
        f"[{index}:v]scale={tile.w}:{tile.h}:flags=bilinear[s{index}]"
        for index, tile in enumerate(tiles)
    ]
    names = "".join(f"[s{index}]" for index in range(len(tiles)))
    layout = "|".join(f"{tile.x}_{tile.y}" for tile in tiles)
    graph = ";".join(
        [*scaled, f"{names}xstack=inputs={len(tiles)}:layout={layout}:fill=black[out]"]
    )

    def compose(times: int) -> list[str]:
        return [*inputs(times), "-filter_complex", graph, "-map", "[out]", "-f", "null", "-"]

    def read(times: int) -> list[str]:
        maps = [part for index in range(len(paths)) for part in ("-map", f"{index}:v")]
        return [*inputs(times), *maps, "-c", "copy", "-f", "null", "-"]

    return compose, read


def gstreamer(
    paths: Sequence[Path],
    tiles: Sequence[Tile],
    source: tuple[int, int],
    size: tuple[int, int],
) -> tuple[Command, Command]:
    """One ``compositor`` that scales its inputs itself; and a plain read of the inputs."""

    def read_one(path: Path, times: int) -> str:
        return (
            f"multifilesrc location={path} loop=true num-buffers={times} ! "
            f"rawvideoparse format=i420 width={source[0]} height={source[1]} framerate=30/1"
        )

    pads = " ".join(
        f"sink_{i}::xpos={t.x} sink_{i}::ypos={t.y} sink_{i}::width={t.w} sink_{i}::height={t.h}"
        for i, t in enumerate(tiles)
    )
    caps = f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate=30/1"

    def compose(times: int) -> list[str]:
        feeds = " ".join(f"{read_one(p, times)} ! c.sink_{i}" for i, p in enumerate(paths))
        pipeline = f"compositor name=c {pads} ! {caps} ! fakesink sync=false {feeds}"
        return ["gst-launch-1.0", "-q", *pipeline.split()]

    def read(times: int) -> list[str]:
        pipeline = " ".join(f"{read_one(path, times)} ! fakesink sync=false" for path in paths)
        return ["gst-launch-1.0", "-q", *pipeline.split()]

    return compose, read
