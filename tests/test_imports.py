"""Imports point one way: values <- mixer <- room <- transport <- app <- command line."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "calliope"
MODULES = tuple(sorted(PACKAGE.rglob("*.py")))

# From the ground up. A module of the package that stands in no line is ground: it may import
# ground only, so a new one that needs more has to be given its place here.
LAYERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("ground", frozenset()),
    ("mixer", frozenset({"calliope.mixer"})),
    (
        "room",
        frozenset(
            f"calliope.{name}"
            for name in (
                *("control", "uplink", "member", "seat", "mixing", "pictures", "sounds"),
                *("room", "rooms"),
            )
        ),
    ),
    ("transport", frozenset({"calliope.transport"})),
    ("app", frozenset({"calliope.app"})),
    ("command line", frozenset({"calliope.__main__", "calliope.bots"})),
)
NETWORK = {"asyncio", "aiohttp", "aioice", "aiortc", "http", "socket", "ssl", "uvloop"}


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _nodes(tree: ast.AST, everywhere: bool) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        yield node
        for_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if everywhere or not (for_types or isinstance(node, ast.FunctionDef)):
            yield from _nodes(node, everywhere)


@cache
def imports_of(file: Path, everywhere: bool = True) -> frozenset[str]:
    """Full names of what a file imports anywhere in it; of the package, down to the module.

    Without ``everywhere`` only those that run when it is itself imported.
    """
    known = {name_of(module) for module in MODULES}
    found = set()
    for node in _nodes(ast.parse(file.read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}: write imports in full"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in known else node.module)
    return frozenset(found)


def layer_of(module: str) -> int:
    for height, (_, members) in enumerate(LAYERS):
        if any(module == member or module.startswith(member + ".") for member in members):
            return height
    return 0


def edges(everywhere: bool = True) -> Iterator[tuple[str, str]]:
    """Every import of one module of the package by another."""
    for file in MODULES:
        for imported in imports_of(file, everywhere):
            if imported.split(".")[0] == "calliope":
                yield name_of(file), imported


def test_the_walk_sees_imports_that_are_there() -> None:
    found = set(edges())
    assert ("calliope.__main__", "calliope.app") in found, "inside a function"
    assert ("calliope.app", "calliope.transport.http") in found
    assert ("calliope.app", "calliope.mixer.layout") in found, "a module taken from a package"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_no_module_imports_from_above(file: Path) -> None:
    module = name_of(file)
    for imported in imports_of(file):
        if imported.startswith("calliope."):
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}"


def test_only_the_command_line_knows_the_bots() -> None:
    assert {
        module.split(".")[1] for module, imported in edges() if imported.startswith("calliope.bots")
    } == {"__main__", "bots"}


def test_bots_send_like_the_server_but_know_no_room_and_no_mixer() -> None:
    for module, imported in edges():
        if module.startswith("calliope.bots") and not imported.startswith("calliope.bots"):
            server = ("calliope.app", "calliope.transport.session", "calliope.transport.http")
            assert not imported.startswith(server), f"{module} imports {imported}"
            assert LAYERS[layer_of(imported)][0] in ("ground", "transport"), imported


def test_the_mixer_knows_no_network() -> None:
    for file in MODULES:
        if layer_of(name_of(file)) == 1:
            outside = {imported.split(".")[0] for imported in imports_of(file)}
            assert not outside & NETWORK, name_of(file)


def test_the_transport_knows_no_pixels() -> None:
    for module, imported in edges():
        if module.startswith("calliope.transport"):
            assert not imported.startswith("calliope.mixer"), f"{module} imports {imported}"


def test_rooms_need_no_network() -> None:
    for file in MODULES:
        if layer_of(name_of(file)) == 2:
            outside = {imported.split(".")[0] for imported in imports_of(file)}
            assert not outside & NETWORK, name_of(file)


def test_no_module_imports_itself_by_a_detour() -> None:
    graph: dict[str, set[str]] = {}
    for module, imported in edges(everywhere=False):
        graph.setdefault(module, set()).add(imported)

    def reached(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for imported in graph.get(module, ()):
            reached(imported, (*path, module))
        done.add(module)

    done: set[str] = set()
    for module in graph:
        reached(module, ())


def test_every_library_that_is_imported_is_required_and_explained() -> None:
    """What comes along with another library today need not come along tomorrow."""
    imported = {name.partition(".")[0] for file in MODULES for name in imports_of(file)}
    imported -= {*sys.stdlib_module_names, "calliope"}
    providers = importlib.metadata.packages_distributions()
    used = {_plain(providers[module][0]) for module in imported}
    lines = (ROOT / "requirements.in").read_text(encoding="utf-8").splitlines()
    required = {_plain(re.split(r"[^\w-]", line)[0]) for line in lines if line[:1].isalpha()}
    assert used == required
    reasons = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert required == {_plain(name) for name in re.findall(r"^\| `([\w-]+)` \|", reasons, re.M)}


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
