"""What the figures were measured on, and how fast its memory is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import llvmlite.binding
import numpy as np

MEGABYTE = 1_000_000
BLOCK_BYTES = 64 * MEGABYTE
"""More than any cache holds."""


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Gigabytes a second of one thread; a copied byte counts twice, as read and as written."""

    copy_gb_s: float
    read_gb_s: float


def describe() -> str:
    """CPU, cores, and the versions that matter, on one line."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return (
        f"{model} ({llvmlite.binding.get_host_cpu_name()}), {os.cpu_count()} cores,"
        f" {platform.system()},"
        f" Python {platform.python_version()}, OpenCV {cv2.__version__}"
    )


def cpu_ms(call: Callable[[int], object], calls: int) -> float:
    """CPU milliseconds of this thread a call, over so many calls in a row."""
    begin = time.thread_time_ns()
    for index in range(calls):
        call(index)
    return (time.thread_time_ns() - begin) / calls / 1e6


def bandwidth(rounds: int = 5) -> Bandwidth:
    """The best of some rounds over blocks that no cache holds."""
    source = np.ones(BLOCK_BYTES // 8, np.uint64)
    target = np.zeros_like(source)
    copy_ms = min(cpu_ms(lambda _: np.copyto(target, source), 2) for _ in range(rounds))
    read_ms = min(cpu_ms(lambda _: np.bitwise_or.reduce(source), 2) for _ in range(rounds))
    return Bandwidth(2 * BLOCK_BYTES / copy_ms / 1e6, BLOCK_BYTES / read_ms / 1e6)
