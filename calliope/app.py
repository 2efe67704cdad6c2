"""The server: builds every object, starts them in order, and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from functools import partial

from aiohttp import web

from calliope.assets import static_dir
from calliope.clock import NS_PER_S, Clock, SystemClock
from calliope.collector import Collector
from calliope.config import Config, MixerConfig
from calliope.errors import ConfigError
from calliope.heap import return_large_blocks
from calliope.metrics import Metrics
from calliope.mixer import layout
from calliope.mixer.audio import AudioMixer
from calliope.mixer.compositor import build_compositor, warm_up
from calliope.mixer.encoder import parse_renditions
from calliope.mixer.glyphs import GlyphAtlas
from calliope.mixer.opus import load_library
from calliope.mixer.own_layout import OwnLayout, allow_local_modules
from calliope.mixer.scene import Fit, TickOutput, ViewName
from calliope.mixer.video import VideoMixer
from calliope.mixer.view import LayoutFunction
from calliope.mixing import AudioDeliver
from calliope.rooms import Rooms
from calliope.tls import build_context, local_address
from calliope.transport import aiortc_seams
from calliope.transport.http import build_runner, build_web_app
from calliope.transport.ice import IceServers
from calliope.transport.probe import Prober
from calliope.transport.session import Sessions

_log = logging.getLogger(__name__)

SWEEP_SPACING_S = 0.2


class _Mixers:
    """Builds the mixers of every room, as the configuration has it."""

    def __init__(self, config: Config, clock: Clock, metrics: Metrics, labels: GlyphAtlas) -> None:
        self._config = config
        self._clock = clock
        self._metrics = metrics
        self._labels = labels

    def video(self, deliver: Callable[[TickOutput], None]) -> VideoMixer:
        mixer = self._config.mixer
        canvas = (mixer.width, mixer.height)
        return VideoMixer(
            fps=mixer.fps,
            canvas=canvas,
            renditions=parse_renditions(mixer.renditions, canvas),
            layouts=_layouts(mixer, self._clock),
            build_compositor=lambda: build_compositor(mixer.backend, self._labels),
            clock=self._clock,
            metrics=self._metrics,
            deliver=deliver,
        )

    def audio(self, deliver: AudioDeliver) -> AudioMixer:
        return AudioMixer(self._config.audio, self._clock, self._metrics, deliver)


def _layouts(config: MixerConfig, clock: Clock) -> dict[ViewName, LayoutFunction]:
    chosen: Fit = "contain" if config.fit == "contain" else "crop"
    grid: LayoutFunction = partial(layout.grid, fit=chosen)
    return {
        "grid": grid if config.layout == "grid" else OwnLayout(config.layout, grid, clock),
        "speaker": partial(layout.speaker, fit=chosen),
        "presenter": partial(layout.presenter, fit=chosen),
    }


class Server:
    """One server: ``start`` returns when calls can be taken, ``stop`` when all is freed."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self.config = config
        self.metrics = Metrics()
        self._clock = clock or SystemClock()
        self._labels = GlyphAtlas(self.metrics)
        self._collector = Collector(self._clock)
        self._prober = Prober(self._own_url, self._clock, self.metrics)
        self._runner: web.AppRunner | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self.rooms: Rooms
        self.sessions: Sessions
        self.port = config.server.port

    async def start(self) -> None:
        """Compile or load the kernels, then open the port. ConfigError, SeamError."""
        config = self.config
        aiortc_seams.check()
        load_library()
        self._tls = build_context(config.server.tls)
        allow_local_modules()
        _layouts(config.mixer, self._clock)  # a layout that cannot be loaded ends the start here
        self._labels.start()
        warm_up(config.mixer.backend)
        loop = asyncio.get_running_loop()

        def post(call: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and this frame with it
                loop.call_soon_threadsafe(call)

        mixers = _Mixers(config, self._clock, self.metrics, self._labels)
        self.rooms = Rooms(config, self._clock, self.metrics, mixers, post)
        self.sessions = Sessions(self.rooms, config, self._clock, self.metrics)
        site = build_web_app(
            self.sessions,
            IceServers(config.ice),
            self._prober,
            config,
            self.metrics,
            static_dir(),
        )
        self._runner = build_runner(site)
        await self._runner.setup()
        await self.sessions.listen()
        listener = _listen(config.server.host, config.server.port)
        self.port = listener.getsockname()[1]
        await web.SockSite(self._runner, listener, ssl_context=self._tls).start()
        self._sweeper = loop.create_task(self._sweep())
        self._collector.start()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + SWEEP_SPACING_S
            await asyncio.sleep(SWEEP_SPACING_S)
            self.metrics.loop_lag_s.observe(max(0.0, loop.time() - due_s))
            self.rooms.sweep()
            self._collector.look(self.sessions.count)

    async def drain(self) -> None:
        """Refuse new calls, tell everybody, wait at most ``server.drain_s`` for calls to end."""
        self.rooms.drain()
        deadline_ns = self._clock.now_ns() + self.config.server.drain_s * NS_PER_S
        await self._prober.close()  # nobody's call: its participants are not waited for
        # sessions end in many ways: looking is simpler than being told
        while self.sessions.count and self._clock.now_ns() < deadline_ns:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """End every session and free everything, also what a start that failed had begun."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        await self._prober.close()
        if self._runner is not None:  # else the start failed before there was a room
            await self.sessions.close()
            self.rooms.close_empty()
            await self._runner.cleanup()
            await asyncio.to_thread(self.rooms.join_mixers)
        await asyncio.to_thread(self._labels.close)
        self._collector.stop()

    def _own_url(self) -> str:
        """Where this very machine reaches the server."""
        host = self.config.server.host
        host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{self.port}"

    def addresses(self) -> list[str]:
        """The URLs to open, the one for this machine first."""
        scheme = "https" if self._tls else "http"
        host = self.config.server.host
        if host not in ("0.0.0.0", "::", ""):
            return [f"{scheme}://{host}:{self.port}"]
        urls = [f"{scheme}://localhost:{self.port}"]
        if (address := local_address()) is not None:
            urls.append(f"{scheme}://{address}:{self.port}")
        return urls


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"server.host and server.port: cannot listen on {host}:{port}: {error.strerror}."
        ) from None
    listener.listen(1024)
    listener.setblocking(False)
    return listener


def _welcome(server: Server) -> str:
    urls = server.addresses()
    lines = [f"Calliope is ready: open {urls[0]}"]
    if urls[0].startswith("https"):
        lines += [f"On your network:   open {url}" for url in urls[1:]]
        if server.config.server.tls == "self-signed":
            lines.append("The certificate is self-signed: browsers ask once before they go on.")
    elif len(urls) > 1:
        lines.append(
            "Browsers give cameras to https or localhost only. For others on your network:\n"
            "  make run ARGS='--server-tls self-signed'"
        )
    return "\n".join(lines)


async def _serve(config: Config) -> None:
    server = Server(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await server.start()
        print(_welcome(server), flush=True)
        await stopping.wait()
        # a second signal ends at once, as the impatient expect
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        print("Stopping: no new calls, telling everybody.", flush=True)
        await server.drain()
    finally:
        await server.stop()


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. ConfigError before the port is open."""
    logging.basicConfig(
        level=config.server.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # aiortc and aioice tell of every packet and check at INFO and DEBUG
    for name in ("aiortc", "aioice", "aiohttp.access"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return_large_blocks()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(config))
    return 0


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it runs: a third less CPU for a loop full of small packets."""
    if sys.platform == "win32":
        return None
    import uvloop

    return uvloop.new_event_loop
