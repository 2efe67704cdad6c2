"""One synthetic participant: joins over real WebRTC, plays its loops, counts what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiortc import RTCDataChannel, RTCRtpCodecCapability, RTCRtpReceiver, RTCSessionDescription

from calliope.bots.loops import SoundPacket
from calliope.bots.microphone import Microphone
from calliope.bots.tally import Tally
from calliope.clock import NS_PER_S, Clock
from calliope.errors import CalliopeError
from calliope.media import AUDIO_BLOCK_SAMPLES, AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ, EncodedFrame
from calliope.metrics import Metrics
from calliope.transport.aioice_seams import IceSettings, media_addresses
from calliope.transport.aiortc_seams import MediaReceiver, MediaSender, PeerConnection
from calliope.transport.fanout import VideoOut

log = logging.getLogger(__name__)

CONNECT_S = 15.0
_LOSS_S = 8.0
_GOODBYE_S = 2.0

PictureLoop = tuple[tuple[bytes, ...], ...]
RecordPicture = Callable[[int], Awaitable[PictureLoop]]
"""Asks for the loop that is so many times smaller than the full size (1 or 2)."""


class JoinError(CalliopeError):
    """The server refused a bot or could not be reached; the message says why, for a person."""


@dataclass(frozen=True, slots=True)
class Call:
    """Where bots go: the server's address, the room, and how many pictures a second they send."""

    url: str
    room: str
    fps: int
    width: int


class Bot:
    """Join it, let it play, leave. Audience (no loops) only receives.

    Runs on one event loop. ``joined_s`` is how long POST to connection took. ``ended`` is set when
    the connection is lost or the server ended it. ``secret`` is its session's; as the ``previous``
    of another bot it takes over the seat.
    """

    def __init__(
        self,
        name: str,
        call: Call,
        clock: Clock,
        metrics: Metrics,
        sound: tuple[SoundPacket, ...] = (),
        picture: RecordPicture | None = None,
        previous: str | None = None,
    ) -> None:
        self.name = name
        self.video = Tally(clock)
        self.audio = Tally(clock)
        self.messages: dict[str, int] = {}
        self.joined_s: float | None = None
        self.ended = asyncio.Event()
        self._call = call
        self._clock = clock
        self._metrics = metrics
        self._sound = sound
        self._record = picture
        self._previous = previous
        self.secret: str | None = None
        self._shrink = 1
        self._paused = False
        self._position = 0
        self._played = 0
        self._camera = VideoOut(metrics, self._restart)
        self._microphone = Microphone()
        self._pc: PeerConnection | None = None
        self._location: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()

    @property
    def connected(self) -> bool:
        return self._connected.is_set() and not self.ended.is_set()

    @property
    def pictures_sent(self) -> int:
        """How many frames of its loops it has played."""
        return self._played

    # -- joining and leaving ----------------------------------------------------------------------

    async def join(self, http: aiohttp.ClientSession) -> None:
        """Offer, connect, begin to play; JoinError if that fails, and nothing is left behind."""
        begun_ns = self._clock.now_ns()
        try:
            async with asyncio.timeout(CONNECT_S):
                await self._negotiate(http)
                await self._wait_connected()
        except TimeoutError:
            await self.leave(http)
            raise JoinError(f"{self.name} did not connect within {CONNECT_S:g} s.") from None
        except aiohttp.ClientError as error:
            await self.leave(http)
            raise JoinError(f"{self._call.url} cannot be reached: {error}.") from error
        except BaseException:
            await self.leave(http)
            raise
        self.joined_s = (self._clock.now_ns() - begun_ns) / NS_PER_S
        if self._record is not None:
            self._start(self._play_sound())
            self._start(self._play_picture(self._record))

    async def _negotiate(self, http: aiohttp.ClientSession) -> None:
        settings = IceSettings(_own_addresses(self._call.url), None, _LOSS_S, self._drop)
        pc = self._pc = PeerConnection(settings, self._clock)
        pc.on("connectionstatechange", self._follow)
        self._add_media(pc)
        channel = pc.createDataChannel("calliope")
        channel.on("message", self._hear)
        channel.on("open", lambda: self._greet(channel))
        await pc.setLocalDescription(await pc.createOffer())
        answer = await self._post(http, pc.localDescription.sdp)
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def _add_media(self, pc: PeerConnection) -> None:
        direction = "recvonly" if self._record is None else "sendrecv"
        for kind, tally in (("audio", self.audio), ("video", self.video)):
            transceiver = pc.addTransceiver(kind, direction)
            transceiver.setCodecPreferences(_codecs(kind))
            tally.attach(cast(MediaReceiver, transceiver.receiver))
            if self._record is not None:
                out = self._microphone if kind == "audio" else self._camera
                out.attach(cast(MediaSender, transceiver.sender))

    async def _post(self, http: aiohttp.ClientSession, offer: str) -> str:
        target = f"{self._call.url.rstrip('/')}/api/rooms/{self._call.room}/sessions"
        headers = {"Content-Type": "application/sdp"}
        if self._previous is not None:
            headers["Calliope-Session"] = self._previous
        async with http.post(
            target,
            params={"name": self.name},
            data=offer.encode(),
            headers=headers,
        ) as response:
            text = await response.text()
            if response.status != 201:
                raise JoinError(f"{self.name} was refused ({response.status}): {_detail(text)}")
            self._location = urljoin(target, response.headers["Location"])
            self.secret = self._location.rpartition("/")[2]
            return text

    async def _wait_connected(self) -> None:
        connected = asyncio.ensure_future(self._connected.wait())
        ended = asyncio.ensure_future(self.ended.wait())
        try:
            await asyncio.wait((connected, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
            ended.cancel()
        if self.ended.is_set():
            raise JoinError(f"{self.name} could not connect: the media way to the server failed.")

    async def leave(self, http: aiohttp.ClientSession, *, goodbye: bool = True) -> None:
        """Free everything; say goodbye, or keep the seat for a while. Harmless when repeated."""
        self.ended.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._camera.close()
        self._microphone.close()
        location, self._location = self._location, None
        if location is not None and goodbye:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(_GOODBYE_S), http.delete(location):
                    pass
        if self._pc is not None:
            pc, self._pc = self._pc, None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GOODBYE_S):
                    await pc.close()

    def _follow(self) -> None:
        state = self._pc.connectionState if self._pc is not None else "closed"
        if state == "connected":
            self._connected.set()
        elif state in ("failed", "closed"):
            self.ended.set()

    # -- the control channel ----------------------------------------------------------------------

    def _greet(self, channel: RTCDataChannel) -> None:
        if self._record is not None:
            channel.send(json.dumps({"type": "state", "muted": False, "camera": True}))

    def _hear(self, text: str | bytes) -> None:
        message = json.loads(text)
        kind = str(message.get("type"))
        self.messages[kind] = self.messages.get(kind, 0) + 1
        if kind == "uplink" and message.get("source") == "camera":
            self._follow_uplink(message)

    def _follow_uplink(self, uplink: Mapping[str, object]) -> None:
        """Pause where the server asks for nothing; half the size where the tile is so small.

        Frame rate and bitrate stay as recorded: what is encoded already cannot be thinned.
        """
        kbps, width = uplink.get("kbps"), uplink.get("width")
        self._paused = kbps == 0
        if isinstance(width, int | float) and not self._paused:
            self._shrink = 2 if 2 * width <= self._call.width else 1

    # -- playing ----------------------------------------------------------------------------------

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(self._finish)
        self._tasks.add(task)

    def _finish(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s stopped playing", self.name, exc_info=error)
            self.ended.set()

    def _restart(self) -> None:
        """The server asks for a keyframe: the loop has one at its beginning."""
        self._position = 0

    async def _play_picture(self, record: RecordPicture) -> None:
        loops: dict[int, PictureLoop] = {}
        shown = 0
        beats = _Beats(self._clock, self._call.fps, 1)
        while True:
            shrink = self._shrink
            if shrink not in loops:
                loops[shrink] = await record(shrink)
            if shrink != shown or self._paused:
                self._position, shown = 0, shrink  # what comes next must be a keyframe
            index = await beats.next()
            if self._paused:
                continue
            frame = EncodedFrame(
                payloads=loops[shrink][self._position],
                keyframe=self._position == 0,
                pts_90k=index * VIDEO_CLOCK_HZ // self._call.fps,
            )
            self._position = (self._position + 1) % len(loops[shrink])
            self._camera.push(frame)
            self._played += 1

    async def _play_sound(self) -> None:
        beats = _Beats(self._clock, AUDIO_CLOCK_HZ, AUDIO_BLOCK_SAMPLES)
        while True:
            index = await beats.next()
            packet = self._sound[index % len(self._sound)]
            self._microphone.push(packet, index * AUDIO_BLOCK_SAMPLES)

    def _drop(self, why: str) -> None:
        self._metrics.drops.labels(queue="network", why=why).inc()


class _Beats:
    """Beat ``n`` is due ``n * step / rate`` seconds after the first; missed ones are skipped."""

    def __init__(self, clock: Clock, rate: int, step: int) -> None:
        self._clock = clock
        self._rate = rate
        self._step = step
        self._start_ns = clock.now_ns()
        self._index = -1

    async def next(self) -> int:
        """Wait for the next beat; its number."""
        passed_ns = self._clock.now_ns() - self._start_ns
        current = passed_ns * self._rate // (self._step * NS_PER_S)
        self._index = max(self._index + 1, current)
        due_ns = self._index * self._step * NS_PER_S // self._rate
        await asyncio.sleep(max(0, due_ns - passed_ns) / NS_PER_S)
        return self._index


def _own_addresses(url: str) -> tuple[str, ...]:
    """Every address of this machine; also loopback where the server is reached by it.

    A server that listens on loopback only cannot be reached from another address, and one that
    listens on all others cannot be reached from loopback.
    """
    host = urlsplit(url).hostname or ""
    found = media_addresses("0.0.0.0")
    if host == "localhost" or host.startswith("127."):
        found = (*found, "127.0.0.1")
    return tuple(dict.fromkeys(found))


def _codecs(kind: str) -> list[RTCRtpCodecCapability]:
    """What bots speak: Opus, VP8 and its retransmission."""
    wanted = ("audio/opus",) if kind == "audio" else ("video/vp8", "video/rtx")
    capabilities = RTCRtpReceiver.getCapabilities(kind)
    known = capabilities.codecs if capabilities is not None else []
    return [codec for codec in known if codec.mimeType.lower() in wanted]


def _detail(problem: str) -> str:
    """The sentence for people in a problem document (RFC 9457), or what else was said."""
    try:
        return str(json.loads(problem)["detail"])
    except (ValueError, KeyError, TypeError):
        return problem[:200]
