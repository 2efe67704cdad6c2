"""The command line: ``calliope serve``, ``calliope bots``, ``calliope options``."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import calliope
from calliope.config import OPTIONS, load
from calliope.errors import ConfigError
from calliope.options import Option, as_markdown, as_text, as_toml, unknown

# aiortc, av and numba take most of a second to import: each command imports what it needs itself.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status. A bad option or value: one sentence, and 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        chosen, surplus = _build_parser(arguments[:1]).parse_known_args(arguments)
        if surplus:
            raise ConfigError(_surplus(surplus[0], chosen.command))
        if chosen.command == "serve":
            return _serve(vars(chosen), os.environ)
        if chosen.command == "bots":
            from calliope import bots

            return bots.main(chosen)
        print(as_markdown(OPTIONS) if chosen.markdown else as_toml(OPTIONS), end="")
        return 0
    except ConfigError as error:
        print(f"calliope: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # while starting; a running server ends in order
        return 130


def _serve(chosen: Mapping[str, str], environ: Mapping[str, str]) -> int:
    path = chosen["config"] or environ.get("CALLIOPE_CONFIG")
    names = {knob.name for knob in OPTIONS}
    overrides = {name: text for name, text in chosen.items() if name in names}
    config = load(overrides, environ, Path(path) if path else None)
    # Imports leave nothing for the collector: without its passes they take 0.3 s less of 2 s.
    gc.disable()
    from calliope import app

    gc.freeze()
    gc.enable()
    return app.run(config)


def _build_parser(command: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="calliope", description=calliope.__doc__, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"calliope {calliope.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run the server",
        usage="calliope serve [--config FILE] [--OPTION VALUE ...]",
        description="Run the server. Each option can also be given in the environment"
        " (--mixer-fps as CALLIOPE_MIXER_FPS) or in a TOML file ([mixer] fps =); the command line"
        " wins over the environment, the environment over the file. Lists are written with commas.",
        allow_abbrev=False,
    )
    _add_options(serve)
    bots = commands.add_parser(
        "bots",
        help="join a room with synthetic participants",
        description="Join a room with synthetic participants: moving pictures, names, tones.",
        allow_abbrev=False,
    )
    if "bots" in command:
        from calliope.bots import add_arguments

        add_arguments(bots)
    options = commands.add_parser(
        "options",
        help="print every option with its default, as a TOML file to start from",
        allow_abbrev=False,
    )
    options.add_argument("--markdown", action="store_true", help="as the table in docs/options.md")
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="TOML file with options (or CALLIOPE_CONFIG)"
    )
    for section, knobs in groupby(OPTIONS, key=lambda knob: knob.section):
        group = parser.add_argument_group(section)
        for knob in knobs:
            group.add_argument(
                knob.flag,
                dest=knob.name,
                default=argparse.SUPPRESS,
                metavar=_metavar(knob),
                help=_help(knob).replace("%", "%%"),
            )


def _metavar(knob: Option) -> str:
    if knob.is_list:
        return "LIST"
    return "N" if isinstance(knob.default, int) else "TEXT"


def _help(knob: Option) -> str:
    words = f"each {knob.rule.words}" if knob.is_list else knob.rule.words
    return f"{knob.doc[:-1]} [{words}; default: {as_text(knob.default) or 'empty'}]"


def _surplus(argument: str, command: str) -> str:
    flag = argument.partition("=")[0]
    if command == "serve" and flag.startswith("--"):
        return unknown(flag, "command line", [knob.flag for knob in OPTIONS])
    return f"'{argument}' is no argument of calliope {command}; see calliope {command} --help."


if __name__ == "__main__":
    sys.exit(main())
