"""What a call costs and how good it is: the goals, measured against a server of its own.

``make load``, or ``python -m bench.load [--quick] [--only ROW,ROW] [--minutes N]``. Clients are
real (ICE, DTLS, SRTP, data channels) and play what was encoded beforehand. Server and clients have
a core each, as far as there are two. CPU is that of the server's process, by /proc. A figure that
the clients' own core limited is marked so: then it says less than it could.

Printed, and kept in ``artefacts/load.json`` and ``load.svg`` beside it. What was not measured this
time stays in the file, if it is of the same machine: the table can be made in pieces.
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
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeAlias

from bench import load_plot
from bench.load_goals import Row
from bench.load_rows import FULL, QUICK, ROWS, Bench, Plan
from bench.machine import describe
from calliope.bots import Studio, new_loop

PRIORITY = -11
Measured: TypeAlias = dict[str, Any]
"""``machine``, ``rows`` by group, and what was ``found``: figures for the plot, by name."""


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


async def run(plan: Plan, groups: Sequence[str], kept: Path) -> list[Row]:
    """Measure these rows, one group after the other; print and keep each as it is there."""
    launcher = place_apart()
    results: list[Row] = []
    with Studio() as studio:
        bench = Bench(plan, studio, launcher)
        if not launcher:
            print("One core only: server and clients share it, and the figures are worse for it.")
        for name in groups:
            begun_s = time.monotonic()
            try:
                made = await ROWS[name](bench)
            except Exception as error:  # the others are measured all the same
                traceback.print_exc()
                made = [Row(name, f"not measured: {error}", "", False)]
            results += made
            for row in made:
                print(row.text(), flush=True)
            print(f"  [{name}: {time.monotonic() - begun_s:.0f} s]", flush=True)
            keep(kept, merged(load(kept), describe(), {name: made}, bench.found))
    return results


def load(path: Path) -> Measured:
    """What was kept, nothing if there is none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def merged(
    before: Measured, machine: str, rows: dict[str, list[Row]], found: dict[str, object]
) -> Measured:
    """What was measured now, beside what was before on the same machine, in the usual order."""
    if before.get("machine") != machine:
        before = {}
    fresh = {name: [asdict(row) for row in made] for name, made in rows.items()}
    groups = {**before.get("rows", {}), **fresh}
    return {
        "machine": machine,
        "rows": {name: groups[name] for name in ROWS if name in groups},
        "found": {**before.get("found", {}), **found},
    }


def keep(path: Path, measured: Measured) -> None:
    """Write it and draw it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(measured, indent=1))
    load_plot.draw(load(path)["found"], path.with_suffix(".svg"))


def main() -> int:
    """Exit status 0 when every goal that was measured is met."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few minutes, coarser")
    parser.add_argument("--only", metavar="ROW,ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--minutes", type=float, help="joins and leaves for so long")
    parser.add_argument("--json", type=Path, help="default: artefacts/load.json")
    args = parser.parse_args()
    chosen = args.only.split(",") if args.only else list(ROWS)
    if unknown := [name for name in chosen if name not in ROWS]:
        parser.error(f"no row {', '.join(unknown)}")
    plan = QUICK if args.quick else FULL
    if args.minutes is not None:
        plan = replace(plan, soak_minutes=args.minutes)
    usual = "artefacts/load-quick.json" if args.quick else "artefacts/load.json"
    print(describe())
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        results = runner.run(run(plan, chosen, args.json or Path(usual)))
    return 1 if any(row.met is False for row in results) else 0


if __name__ == "__main__":
    sys.exit(main())
