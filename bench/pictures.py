"""Camera-like I420 pictures for benchmarks: soft light, a person's shape, texture and noise."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from calliope.media import Frame, Plane


def camera(seed: int, width: int, height: int, count: int = 8) -> list[Frame]:
    """``count`` consecutive frames of one moving, noisy camera; serials count from 1.

    Each seed has its own colours and pace. Every frame owns its memory.
    """
    rng = np.random.default_rng(seed)
    hue = seed * 0.381966 % 1.0
    wall = np.array(colorsys.hsv_to_rgb(hue, 0.35, 0.75)) * 255
    shirt = np.array(colorsys.hsv_to_rgb((hue + 0.45) % 1, 0.6, 0.55)) * 255
    skin = np.array([226.0, 182.0, 150.0]) * (0.45 + 0.55 * rng.random())
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    across, down = (x - width / 2) / height, (y - height / 2) / height
    frames = []
    for index in range(count):
        sway = 0.05 * np.sin(2 * np.pi * index / count + seed)
        light = 0.8 + 0.3 * np.exp(-((across + 0.5) ** 2 + (down + 0.4) ** 2) * 3)
        books = 1 + 0.12 * np.sign(np.sin(across * 40 + seed)) * (down < -0.1)
        rgb = wall * (light * books)[..., None]
        head = ((across - sway) / 0.17) ** 2 + ((down + 0.05) / 0.22) ** 2 < 1
        body = ((across - sway) / 0.42) ** 2 + ((down - 0.55) / 0.36) ** 2 < 1
        rgb[body] = shirt * light[body][:, None]
        rgb[head] = skin * light[head][:, None]
        hair = head & (down < -0.16 + 0.04 * np.sin(across * 30))
        rgb[hair] = 40 + 20 * np.sin(across[hair] * 90)[:, None]
        for side in (-0.06, 0.06):
            eye = ((across - sway - side) / 0.02) ** 2 + ((down + 0.05) / 0.012) ** 2 < 1
            rgb[eye] = 25
        rgb += rng.normal(0, 4, (height, width, 1))
        frames.append(from_rgb(np.clip(rgb, 0, 255), index + 1))
    return frames


def rotation(seed: int, width: int, height: int, count: int = 8) -> list[Frame]:
    """``count`` different frames of one camera, quickly made: one picture, panned.

    Planes lie in one I420 buffer where the size is even, as decoders and OpenCV like it.
    """
    (still,) = camera(seed, width, height, count=1)
    frames = []
    for index in range(count):
        planes = [
            np.roll(plane, index * 6 // part, axis=1)
            for plane, part in ((still.y, 1), (still.u, 2), (still.v, 2))
        ]
        if width % 2 == 0 and height % 2 == 0:
            buffer = np.concatenate([plane.reshape(-1) for plane in planes])
            whole = buffer.reshape(height * 3 // 2, width)
            luma = width * height
            half = (height // 2, width // 2)
            planes = [
                whole[:height],
                buffer[luma : luma * 5 // 4].reshape(half),
                buffer[luma * 5 // 4 :].reshape(half),
            ]
        frames.append(Frame(planes[0], planes[1], planes[2], index + 1, index))
    return frames


def from_rgb(rgb: npt.NDArray[np.floating], serial: int) -> Frame:
    """A float RGB picture ``(h, w, 3)``, 0..255, as limited-range BT.601 I420."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    u = 128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255
    v = 128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255
    return Frame(_plane(luma), _plane(_halved(u)), _plane(_halved(v)), serial, 0)


def _halved(plane: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    height, width = plane.shape
    padded = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    blocks = padded.reshape((height + 1) // 2, 2, (width + 1) // 2, 2)
    halved: npt.NDArray[np.floating] = blocks.mean(axis=(1, 3))
    return halved


def _plane(samples: npt.NDArray[np.floating]) -> Plane:
    plane: Plane = np.rint(samples).astype(np.uint8)
    return plane
