"""Cameras and microphones of our own making, as files that Chromium plays as its fake devices."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, FPS = 320, 180, 15
RATE_HZ = 48_000


def write_camera(path: Path, yuv: tuple[int, int, int]) -> None:
    """Two seconds of one colour with a light patch that wanders, as Y4M."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F{FPS}:1 Ip A1:1 C420jpeg\n".encode())
        for index in range(2 * FPS):
            luma = np.full((HEIGHT, WIDTH), yuv[0], np.uint8)
            left = 20 + index * 8
            luma[20:44, left : left + 24] = 220
            chroma = np.full((HEIGHT // 2, WIDTH // 2), 0, np.uint8)
            file.write(b"FRAME\n" + luma.tobytes())
            file.write((chroma + np.uint8(yuv[1])).tobytes())
            file.write((chroma + np.uint8(yuv[2])).tobytes())


def write_microphone(path: Path, pitch_hz: float) -> None:
    """Four seconds of a tone in short notes, as WAV: steady tones are taken for noise."""
    time_s = np.arange(4 * RATE_HZ) / RATE_HZ
    notes = np.clip(np.sin(2 * np.pi * 2.5 * time_s) * 8 + 4, 0, 1)
    tone = np.sin(2 * np.pi * pitch_hz * time_s) + 0.3 * np.sin(4 * np.pi * pitch_hz * time_s)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((tone * notes * 9000).astype(np.int16).tobytes())


UNPLUG = """(async () => {
    // The next camera comes through a connection of the page with itself, and ends with it as one
    // does that is pulled out: an event made by a script reaches no listener of a track in Firefox.
    const { mediaDevices } = navigator;
    const [camera] = (await mediaDevices.getUserMedia({ video: true })).getVideoTracks();
    const near = new RTCPeerConnection(), far = new RTCPeerConnection();
    near.onicecandidate = ({ candidate }) => candidate && far.addIceCandidate(candidate);
    far.onicecandidate = ({ candidate }) => candidate && near.addIceCandidate(candidate);
    near.addTrack(camera);
    await near.setLocalDescription();
    await far.setRemoteDescription(near.localDescription);
    await far.setLocalDescription();
    await near.setRemoteDescription(far.localDescription);
    window.unplug = () => {
        far.close();
        near.close();
        camera.stop();
    };
    mediaDevices.getUserMedia = async () => {
        delete mediaDevices.getUserMedia;
        return new MediaStream([far.getReceivers()[0].track]);
    };
})()"""
"""For a page in a browser: its next ``getUserMedia`` gives a camera that ``unplug()`` ends."""
