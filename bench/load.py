"""What a call costs and how good it is: the goals, measured against a server of its own.

``make load``, or ``python -m bench.load [--quick] [--only ROW,ROW] [--minutes N] [--netns]``.
Clients are real (ICE, DTLS, SRTP, data channels) and play what was encoded beforehand. Server and
clients have a core each, as far as there are two. CPU is that of the server's process, by /proc.
A figure that the clients' own core limited is marked so: then it says less than it could.

Printed, and kept in ``artefacts/load.json`` and ``artefacts/load.svg``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench import load_network, load_plot
from bench.load_rows import EXTRA, FULL, QUICK, ROWS, Bench, Plan, Row
from bench.machine import describe
from calliope.bots import Studio, new_loop

PRIORITY = -11


def place_apart() -> tuple[str, ...]:
    """Keep this process off the server's core; what starts a server on that core.

    As root also: both before other programs, also those of other sessions (autogroup).
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        Path("/proc/self/autogroup").write_text(str(PRIORITY))
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or shutil.which("taskset") is None:
        return ()
    os.sched_setaffinity(0, set(cores[1:]))
    return "taskset", "-c", str(cores[0])


async def run(plan: Plan, rows: Sequence[str]) -> tuple[list[Row], dict[str, object]]:
    """Measure these rows, one after the other, and print each as it is there."""
    launcher = place_apart()
    results: list[Row] = []
    with Studio() as studio:
        bench = Bench(plan, studio, launcher)
        if not launcher:
            print("One core only: server and clients share it, and the figures are worse for it.")
        for name in rows:
            begun_s = time.monotonic()
            try:
                made = await {**ROWS, **EXTRA}[name](bench)
            except (TimeoutError, load_network.Unavailable) as error:
                made = [Row(name, f"not measured: {error}", "", False)]
            results += made
            for row in made:
                print(row.text(), flush=True)
            print(f"  [{name}: {time.monotonic() - begun_s:.0f} s]", flush=True)
    return results, bench.found


def main() -> int:
    """Exit status 0 when every goal that was measured is met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about two minutes, coarser")
    parser.add_argument("--only", metavar="ROW,ROW", help=f"of {', '.join([*ROWS, *EXTRA])}")
    parser.add_argument("--minutes", type=float, default=0.0, help="joins and leaves for so long")
    parser.add_argument("--netns", action="store_true", help="lossy network namespaces too (root)")
    parser.add_argument("--json", type=Path, default=Path("artefacts/load.json"))
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(ROWS)
    if unknown := [name for name in chosen if name not in {**ROWS, **EXTRA}]:
        parser.error(f"no row {', '.join(unknown)}")
    if args.minutes and "soak" not in chosen:
        chosen.append("soak")
    if args.netns and "network" not in chosen:
        chosen.append("network")
    base = QUICK if args.quick else FULL
    plan = Plan(**{**asdict(base), "soak_minutes": args.minutes or 2.0})
    print(describe())
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        results, found = runner.run(run(plan, chosen))
    args.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [asdict(row) for row in results]
    args.json.write_text(
        json.dumps({"machine": describe(), "rows": rows, "found": found}, indent=1)
    )
    load_plot.draw(found, args.json.with_suffix(".svg"))
    return 1 if any(row.met is False for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
