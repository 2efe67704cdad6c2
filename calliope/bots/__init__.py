"""Synthetic participants: ``calliope bots`` fills a room, so that one person sees a full call.

They are real clients: HTTP signalling, ICE, DTLS and SRTP, the control channel. Their pictures and
sounds are made and encoded once, then played over and over; what they receive is only counted, but
for one who decodes where delays are measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from calliope.bots.crowd import BotReport, Crowd, Options, Report, run_bots
from calliope.bots.studio import Studio

__all__ = [
    "BotReport", "Crowd", "Options", "Report", "Studio", "add_arguments", "main", "new_loop",
    "run_bots",
]  # fmt: skip

_COUNT_MAX = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``calliope bots``."""
    default = Options()
    parser.add_argument("--url", default=default.url, help="the server [default: %(default)s]")
    parser.add_argument("--room", default=default.room, help="the room [default: %(default)s]")
    parser.add_argument(
        "--count", type=_count, default=default.count, metavar="N",
        help="participants with camera and microphone [default: %(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--audience", type=_count, default=default.audience, metavar="N",
        help="audience members, who only receive [default: %(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=_seconds, metavar="N", help="how long [default: until Ctrl-C]"
    )
    parser.add_argument(
        "--settle", type=_seconds, metavar="N",
        help="count, and the --seconds, from N seconds after all have joined",
    )  # fmt: skip
    parser.add_argument(
        "--fps", type=_fps, default=default.fps, metavar="N",
        help="pictures a second that each sends, 1 to 30 [default: %(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=_size, default=(default.width, default.height), metavar="WxH",
        help=f"size of the pictures sent [default: {default.width}x{default.height}]",
    )  # fmt: skip
    parser.add_argument(
        "--joins-per-second",
        type=_seconds,
        metavar="N",
        help="how fast they join [default: all at once]",
    )
    parser.add_argument(
        "--watch", action="store_true",
        help="measure delays: numbers drawn into the pictures, pips in the sound, one who decodes",
    )  # fmt: skip
    parser.add_argument(
        "--json", metavar="FILE", help="write the report there as well; -: there alone, to stdout"
    )
    parser.add_argument("--insecure", action="store_true", help="accept a self-signed certificate")


def main(args: argparse.Namespace) -> int:
    """Run bots as the command line says; 0 if every one of them joined, else 1."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    options = Options(
        url=args.url,
        room=args.room,
        count=args.count,
        audience=args.audience,
        seconds=args.seconds,
        settle_s=args.settle,
        fps=args.fps,
        width=args.size[0],
        height=args.size[1],
        insecure=args.insecure,
        joins_per_s=args.joins_per_second,
        watched=args.watch,
    )
    quiet = args.json == "-"
    with asyncio.Runner(loop_factory=new_loop()) as runner:
        report = runner.run(run_bots(options, show=None if quiet else _show))
    if quiet:
        print(json.dumps(asdict(report)))
    else:
        print("\n".join(report.lines()))
    if args.json is not None and not quiet:
        Path(args.json).write_text(json.dumps(asdict(report), indent=1))
    for failure in report.failures:
        print(f"calliope: {failure}", file=sys.stderr)
    return 0 if report.joined == options.count + options.audience else 1


def _show(line: str) -> None:
    print(line, flush=True)


def new_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's factory where it runs: bots compete with the server for the machine."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop


def _count(text: str) -> int:
    return _number(text, 0, _COUNT_MAX)


def _fps(text: str) -> int:
    return _number(text, 1, 30)


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {least} to {most}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds above 0")
    return seconds


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width + height).isascii() or not width.isdigit() or not height.isdigit():
        raise argparse.ArgumentTypeError(f"'{text}' is not a size like 640x360")
    size = int(width), int(height)
    if not all(64 <= side <= 1920 and side % 4 == 0 for side in size):
        raise argparse.ArgumentTypeError(f"'{text}': sides are multiples of 4 from 64 to 1920")
    return size
