"""What a server process costs and says, read from outside: ``/proc`` and ``/metrics``."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_METRIC = re.compile(r"^(\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
_METRICS_TIMEOUT_S = 10


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at a process. ``loop_cpu_s`` is its main thread's share of ``cpu_s``."""

    at_s: float
    cpu_s: float
    loop_cpu_s: float
    rss_mb: float
    threads: int
    files: int
    metrics: dict[str, float]

    def counted(self, name: str, since: Reading) -> float:
        """How far a counter went from another reading to this one; ``name`` with its labels."""
        return self.metrics.get(name, 0.0) - since.metrics.get(name, 0.0)

    def cores(self, since: Reading) -> float:
        """Cores used since another reading: CPU seconds a second."""
        return (self.cpu_s - since.cpu_s) / (self.at_s - since.at_s)

    def loop_cores(self, since: Reading) -> float:
        """The same of the main thread alone."""
        return (self.loop_cpu_s - since.loop_cpu_s) / (self.at_s - since.at_s)


def read_gauge(pid: int, url: str | None = None) -> Reading:
    """Look at process ``pid``, and at ``/metrics`` of the server at ``url`` if there is one.

    To be called off the event loop; raises OSError when the process or the server is gone.
    """
    metrics: dict[str, float] = {}
    if url is not None:
        with urllib.request.urlopen(f"{url}/metrics", timeout=_METRICS_TIMEOUT_S) as answer:
            text = answer.read().decode()
        metrics = {name: float(value) for name, value in _METRIC.findall(text)}
    process = Path(f"/proc/{pid}")
    status = dict(re.findall(r"^(\w+):\s+(\d+)", (process / "status").read_text(), re.MULTILINE))
    return Reading(
        at_s=time.monotonic(),
        cpu_s=_cpu_s(process),
        loop_cpu_s=_cpu_s(process / "task" / str(pid)),
        rss_mb=int(status["VmRSS"]) / 1024,
        threads=int(status["Threads"]),
        files=len(list((process / "fd").iterdir())),
        metrics=metrics,
    )


def _cpu_s(process: Path) -> float:
    """User and system time (proc(5), fields 14 and 15 behind the name in brackets)."""
    fields = (process / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
