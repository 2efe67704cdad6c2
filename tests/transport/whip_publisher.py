"""A WHIP publisher that is no browser: ffmpeg's own muxer, by way of PyAV. Run as a program.

    python -m tests.transport.whip_publisher URL X264_PROFILE CERTIFICATE.pem

Sends grey pictures (640x360, ever brighter) and silence until its standard input is closed, then
ends the session. A process of its own, since the muxer connects without letting go of the GIL.
"""

from __future__ import annotations

import sys
import threading
import time
from fractions import Fraction

import av
import numpy as np

FPS = 30


def publish(url: str, profile: str, certificate: str, stop: threading.Event) -> None:
    # the GnuTLS in PyAV's wheels makes a secp224r1 certificate, which OpenSSL 4 does not take
    options = {"cert_file": certificate, "key_file": certificate}
    with av.open(url, "w", format="whip", options=options) as container:
        encoding = {"profile": profile, "preset": "ultrafast", "tune": "zerolatency", "bf": "0"}
        video = container.add_stream("libx264", rate=FPS, options=encoding)
        video.width, video.height, video.pix_fmt, video.gop_size = 640, 360, "yuv420p", FPS
        audio = container.add_stream("libopus", rate=48_000, layout="stereo")
        start_s = None
        number = block = 0
        while not stop.is_set():
            picture = np.full((540, 640), 16 + number % 200, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(video.encode(frame))
            while block * 960 <= number * 1600:
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1920), np.int16), format="s16", layout="stereo"
                )
                silence.rate, silence.pts = 48_000, block * 960
                container.mux(audio.encode(silence))
                block += 1
            number += 1
            start_s = start_s or time.monotonic()  # the first packet connects, which takes a while
            time.sleep(max(0.0, start_s + number / FPS - time.monotonic()))


def main() -> None:
    url, profile, certificate = sys.argv[1:]
    stop = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        stop.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    publish(url, profile, certificate, stop)


if __name__ == "__main__":
    main()
