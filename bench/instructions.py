"""Instructions and cycles of the mixer's hottest loops, read from the assembly.

``python -m bench.instructions [--assembly FILE]`` compiles the kernel that paints a tile (about a
minute; kernels from the cache have no assembly) and prints, for every innermost loop over vectors,
its instructions and the bytes it loads and stores each time round. Where llvm-mca is installed
(Debian: llvm) it adds the cycles that this CPU needs for it if memory were free: set beside the
memory's share of a measured time, that tells which of the two is the limit.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding

_LABEL = re.compile(r"^(\.L\w+):")
_JUMP = re.compile(r"^\tj\w+\s+(\.L\w+)$")
_FUNCTION = re.compile(r"^_ZN8calliope\w*?\d+(?:scaling|ratios|kernels)\d+([a-z_]+?)B\d+v\d+")
_INSTRUCTION = re.compile(r"^\t[a-z]")
_MEMORY = re.compile(r"\([^)]*\)")
ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Loop:
    """One innermost loop; ``cycles`` is None without llvm-mca."""

    function: str
    instructions: int
    loaded: int
    stored: int
    cycles: float | None


def functions(assembly: str) -> Iterator[tuple[str, list[str]]]:
    """Name and lines of every kernel in one module's assembly."""
    name, lines = "", list[str]()
    for line in assembly.splitlines():
        found = _FUNCTION.match(line)
        if found or line.startswith(".Lfunc_end"):
            if name:
                yield name, lines
            name, lines = (found[1] if found else ""), []
        elif name:
            lines.append(line)


def innermost(lines: Sequence[str]) -> Iterator[list[str]]:
    """The instructions of every loop that holds no other one."""
    labels: dict[str, int] = {}
    last_begin = -1
    for at, line in enumerate(lines):
        if label := _LABEL.match(line):
            labels[label[1]] = at
        jump = _JUMP.match(line)
        if jump and jump[1] in labels:
            begin = labels[jump[1]]
            if begin > last_begin:
                yield [part for part in lines[begin : at + 1] if _INSTRUCTION.match(part)]
            last_begin = max(last_begin, begin)


def traffic(loop: Sequence[str]) -> tuple[int, int]:
    """Bytes that vector instructions load and store in one turn of a loop."""
    loaded = stored = 0
    for line in loop:
        operands = line.split("\t")[-1]
        memory = _MEMORY.search(operands)
        if memory is None or "mm" not in operands:
            continue
        size = 32 if "ymm" in operands else 16
        size = 8 if "movq" in line else 4 if "movd\t" in line else size
        if memory.end() == len(operands):
            stored += size
        else:
            loaded += size
    return loaded, stored


def cycles(loop: Sequence[str]) -> float | None:
    """Cycles a turn by llvm-mca's model of this CPU, with every load a hit."""
    if shutil.which("llvm-mca") is None:
        return None
    cpu = llvmlite.binding.get_host_cpu_name()
    text = "\n".join(line for line in loop if not _JUMP.match(line)) + "\n"
    said = subprocess.run(
        ["llvm-mca", f"-mcpu={cpu}", f"-iterations={ITERATIONS}"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    total = re.search(r"Total Cycles:\s+(\d+)", said.stdout)
    return int(total[1]) / ITERATIONS if total else None


def loops_of(assembly: str) -> list[Loop]:
    """Every innermost loop that loads or stores vectors."""
    found = []
    for name, lines in functions(assembly):
        for loop in innermost(lines):
            loaded, stored = traffic(loop)
            if loaded and stored:
                found.append(Loop(name, len(loop), loaded, stored, cycles(loop)))
    return found


def compiled() -> str:
    """The assembly of ``paint_tile`` and all it calls, compiled anew."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CALLIOPE_CACHE_DIR"] = folder
        from calliope.mixer import scaling

        (assembly,) = scaling.paint_tile.inspect_asm().values()  # type: ignore[attr-defined]
    return str(assembly)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--assembly", type=Path, help="read this instead of compiling")
    options = parser.parse_args()
    assembly = options.assembly.read_text() if options.assembly else compiled()
    print("| kernel | instructions | bytes loaded | stored | cycles | loaded a cycle |")
    print("|---|---|---|---|---|---|")
    for loop in loops_of(assembly):
        turn = "" if loop.cycles is None else f"{loop.cycles:.1f}"
        rate = "" if loop.cycles is None else f"{loop.loaded / loop.cycles:.1f}"
        print(
            f"| {loop.function} | {loop.instructions} | {loop.loaded} | {loop.stored} | {turn} |"
            f" {rate} |"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
