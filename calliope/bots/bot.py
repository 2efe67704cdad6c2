"""One synthetic participant: joins over real WebRTC, plays its loops, counts what it gets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol, cast
from urllib.parse import urljoin, urlsplit

import aiohttp
from aiortc import RTCDataChannel, RTCRtpCodecCapability, RTCRtpReceiver, RTCSessionDescription

from calliope.bots.loops import SoundPacket
from calliope.bots.microphone import Microphone
from calliope.bots.observer import Observer
from calliope.bots.sink import Sink
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
_SETTLE_S = 0.4
"""A size that is asked for holds for so long before a bot follows: filling rooms pass many."""
SIZES = (Fraction(1), Fraction(2, 3), Fraction(1, 2), Fraction(2, 5), Fraction(1, 4))
"""The shares of its full width that a bot can send: a canvas of the same width, in columns."""
_SIZE_SLACK = 1.03

PictureLoop = tuple[tuple[bytes, ...], ...]
RecordPicture = Callable[[Fraction], Awaitable[PictureLoop]]
"""Asks for the loop of one of ``SIZES``."""


class JoinError(CalliopeError):
    """The server refused a bot or could not be reached; the message says why, for a person."""


class Way(Protocol):
    """A network of one's own between a bot and the server, such as a relay that loses packets."""

    def hide(self, offer: str) -> str:
        """The offer without the bot's own addresses."""

    async def lead(self, answer: str) -> str:
        """The answer with this way as the only one."""


@dataclass(frozen=True, slots=True)
class Call:
    """Where bots go: the server's address, the room, and how many pictures a second they send.

    ``width`` is their full width; they begin with ``first_size`` of it. ``sound`` False: audience
    takes the picture only.
    """

    url: str
    room: str
    fps: int
    width: int
    first_size: Fraction = SIZES[0]
    sound: bool = True


class Bot:
    """Join it, let it play, leave. Audience (no loops) only receives, into a cheap sink.

    Runs on one event loop. ``joined_s`` is how long POST to connection took, ``first_frame_s`` POST
    to the first whole keyframe. ``ended`` is set when the connection is lost or the server ended
    it. ``secret`` is its session's; as the ``previous`` of another bot it takes over the seat. An
    ``observer`` takes the media in place of the tallies. ``on_welcome`` gets the bot and the id
    that the server calls it by. ``way`` is what its media takes, None: straight to the server.
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
        observer: Observer | None = None,
        on_welcome: Callable[[Bot, str], None] | None = None,
        way: Way | None = None,
    ) -> None:
        self.name = name
        self.video = Tally(clock)
        self.audio = Tally(clock)
        self.messages: dict[str, int] = {}
        self.joined_s: float | None = None
        self.pip_ns: int | None = None
        self.ended = asyncio.Event()
        self._observer = observer
        self._on_welcome = on_welcome
        self._way = way
        self._begun_ns = 0
        self._sent_ns: dict[int, int] = {}
        self._call = call
        self._clock = clock
        self._metrics = metrics
        self._sound = sound
        self._record = picture
        self._previous = previous
        self.secret: str | None = None
        self._size = call.first_size
        self._asked_size = self._size
        self._asked_ns = 0
        self._paused = False
        self._position = 0
        self._played = 0
        self._marked = clock.now_ns(), 0
        self._camera = VideoOut(metrics, self._restart)
        self._microphone = Microphone(metrics)
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

    @property
    def first_frame_s(self) -> float | None:
        """Seconds from POST to the first picture; None before it, and for an observer."""
        first_ns = self.video.first_frame_ns
        return None if first_ns is None else (first_ns - self._begun_ns) / NS_PER_S

    def mark(self) -> None:
        """Count anew from here on."""
        self.video.mark()
        self.audio.mark()
        self._marked = self._clock.now_ns(), self._played

    def sent_fps(self) -> float:
        """Pictures sent a second since the last mark."""
        since_ns, played = self._marked
        return (self._played - played) * NS_PER_S / max(1, self._clock.now_ns() - since_ns)

    def sent_ns(self, number: int) -> int | None:
        """When the frame of this number of its loop left last; None: never."""
        return self._sent_ns.get(number)

    # -- joining and leaving ----------------------------------------------------------------------

    async def join(self, http: aiohttp.ClientSession) -> None:
        """Offer, connect, begin to play; JoinError if that fails, and nothing is left behind."""
        self._begun_ns = self._clock.now_ns()
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
        if self._observer is None and self.video.receiver is not None:
            Sink(self.video.receiver.media_transport, self.video, self.audio)
        self.joined_s = (self._clock.now_ns() - self._begun_ns) / NS_PER_S
        if self._observer is not None:
            self._start(self._observer.watch())
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
        offer, way = pc.localDescription.sdp, self._way
        answer = await self._post(http, offer if way is None else way.hide(offer))
        if way is not None:
            answer = await way.lead(answer)
        await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    def _add_media(self, pc: PeerConnection) -> None:
        direction = "recvonly" if self._record is None else "sendrecv"
        receivers: dict[str, MediaReceiver] = {}
        for kind in ("audio", "video"):
            if kind == "audio" and self._record is None and not self._call.sound:
                continue
            transceiver = pc.addTransceiver(kind, direction)
            transceiver.setCodecPreferences(_codecs(kind))
            receivers[kind] = cast(MediaReceiver, transceiver.receiver)
            if self._record is not None:
                out = self._microphone if kind == "audio" else self._camera
                out.attach(cast(MediaSender, transceiver.sender))
        if self._observer is not None:
            self._observer.attach(receivers["video"], receivers.get("audio"))
            return
        self.video.attach(receivers["video"])
        if "audio" in receivers:
            self.audio.attach(receivers["audio"])

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
        if self._observer is not None:
            await self._observer.close()
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
        elif kind == "welcome" and self._on_welcome is not None:
            self._on_welcome(self, str(message["you"]))
        if self._observer is not None:
            layout = message if kind == "layout" else message.get("layout")
            if isinstance(layout, dict):
                self._observer.take_layout(layout)

    def _follow_uplink(self, uplink: Mapping[str, object]) -> None:
        """Pause where the server asks for nothing; else send the size that covers the tile.

        Frame rate and bitrate stay as recorded: what is encoded already cannot be thinned.
        """
        kbps, width = uplink.get("kbps"), uplink.get("width")
        self._paused = kbps == 0
        if isinstance(width, int | float) and not self._paused:
            sizes = [size for size in SIZES if size * self._call.width * _SIZE_SLACK >= width]
            self._asked_size = sizes[-1] if sizes else SIZES[0]
            self._asked_ns = self._clock.now_ns()

    def _settled_size(self) -> Fraction:
        """The size to send: what is asked for, once that has settled."""
        if self._clock.now_ns() - self._asked_ns > _SETTLE_S * NS_PER_S:
            self._size = self._asked_size
        return self._size

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
        loops: dict[Fraction, PictureLoop] = {}
        shown: Fraction | None = None
        beats = _Beats(self._clock, self._call.fps, 1)
        while True:
            size = self._settled_size()
            if size not in loops:
                loops[size] = await record(size)
            if size != shown or self._paused:
                self._position, shown = 0, size  # what comes next must be a keyframe
            index = await beats.next()
            if self._paused:
                continue
            frame = EncodedFrame(
                payloads=loops[size][self._position],
                keyframe=self._position == 0,
                pts_90k=index * VIDEO_CLOCK_HZ // self._call.fps,
            )
            self._sent_ns[self._position] = self._clock.now_ns()
            self._position = (self._position + 1) % len(loops[size])
            self._camera.push(frame)
            self._played += 1

    async def _play_sound(self) -> None:
        beats = _Beats(self._clock, AUDIO_CLOCK_HZ, AUDIO_BLOCK_SAMPLES)
        while True:
            index = await beats.next()
            packet = self._sound[index % len(self._sound)]
            if packet.pip:
                self.pip_ns = self._clock.now_ns()
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
