"""A watermark in the pixels: a pattern that the eye does not see and that its key finds again.

The pattern is a tile of ``SIDE`` × ``SIDE`` pixels, repeated over the picture and added to its luminance.  In a band of
frequencies its spectrum is P_k = exp(i phi_k), with phases phi_k that follow from the key, and 0 elsewhere.  The
detector takes a blur away from the picture, folds the rest onto one tile, and compares the phases of its spectrum
X_k with those of the pattern, at every shift s of the tile:

    u_k = X_k / (|X_k| + noise),        z(s) = sum_k Re(u_k conj(P_k) exp(2 pi i k·s)) / sqrt(sum_k |u_k|²)

A crop moves the tile and a mirror turns it, so the largest z counts, of all shifts, both reflections and a few scales.

False alarms.  X_k and X_-k are conjugates, so z is a sum over half the k of 2 |u_k| cos(theta_k), theta_k = arg X_k -
phi_k + 2 pi k·s.  For any picture whatever, if the key's phases are uniform and independent of it, so are the theta_k.
As E exp(a cos theta) = I_0(a) <= exp(a²/4), E exp(t z) <= exp(t²/2), and by Chernoff's bound and the union bound

    P(some z > tau) <= n_looks exp(-tau²/2),        n_looks = shifts · reflections · scales.

``threshold`` solves this for tau; nothing was tuned on pictures.

Embedding maximises z(0) at a given distance, most of the change where the picture is busy and hides it: a few steps
along its gradient, projected on pictures of 8 bits at ``PSNR_DB``; every second step sees a crop, which would
otherwise cost most.  Large pictures have many tiles, and the pattern alone is enough.  Below ``SMALLEST`` pixels there
are too few frequencies, and nothing is marked (benchmarks/bench_watermark.py), but a crop of a marked picture may be
smaller.  A picture of n × n pixels has about pi (HIGHEST² - LOWEST²) n² different frequencies in the band, so z is near
the root of that at most, the pattern alone included: below ``SMALLEST_READ`` pixels that is less than tau, and nothing
is looked for.  (The bound on false alarms holds for every size.)  Cf. Cox et al. 1997 (spread spectrum) and Kutter 1998
(a repeated tile).
"""

import hashlib
import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Complex128, Float64, UInt8
from scipy.ndimage import gaussian_filter, zoom

from bowerbird.samplers.greenlist import PUBLIC_KEY

SIDE = 64
SMALLEST = 64
"""Pixels of the shorter side of pictures that are marked."""
LARGEST = 1024
"""Pixels of a side that are looked at."""
PSNR_DB = 35.2
"""How far the marked picture is from the other: 10 log10(255² / mean squared difference)."""
LOWEST, HIGHEST = 0.05, 0.30
"""Cycles per pixel: below lie the colours of surfaces, above what JPEG and halving take away."""
NOISE = 2.0
"""Standard deviation of what attacks add to a pixel: fainter frequencies count less."""
SMOOTHED = 3.0
"""Pixels: standard deviation of the Gaussian whose result is taken away."""
SCALES = (1.0, 1 / 0.9, 2.0, 4.0, 0.5, 0.75, 1.5)
"""By how much the picture may have been enlarged; a crop of 10 % that was enlarged again is the second."""
FALSE_ALARMS = 1e-6
"""Of one picture, over all looks."""
REFINED = 2 * SIDE * SIDE
"""Pictures with at most so many pixels are marked with ``STEPS`` steps along the gradient."""
STEPS, STEP, INNER = 16, 0.3, 0.05
"""Each ``STEP`` times the distance long; every second one does not see the outer ``INNER`` on each side."""

NEAR, BUSY, PLAIN = 2.0, 10.0, 0.15
"""The spread, in levels, of the pixels ``NEAR`` a pixel hides a change: ``BUSY`` all of it, 0 ``PLAIN`` of it."""

Pixels = UInt8[np.ndarray, "h w c"]
Plane = Float64[np.ndarray, "h w"]
Spectrum = Complex128[np.ndarray, "side side"]


class Detection(NamedTuple):
    """What the detector saw."""

    z: float
    """The largest over all looks."""
    threshold: float
    """A picture without the mark exceeds it with probability ``FALSE_ALARMS`` at most."""

    @property
    def found(self) -> bool:
        return self.z > self.threshold


def fits(width: int, height: int) -> bool:
    """Whether pictures of this size get a mark."""
    return min(width, height) >= SMALLEST


def threshold(false_alarms: float = FALSE_ALARMS) -> float:
    """tau with n_looks exp(-tau²/2) = false_alarms."""
    return math.sqrt(2 * math.log(SIDE * SIDE * 2 * len(SCALES) / false_alarms))


SMALLEST_READ = math.ceil(threshold() / math.sqrt(math.pi * (HIGHEST**2 - LOWEST**2)))
"""Pixels of the shorter side of pictures in which the mark is looked for."""


@lru_cache(maxsize=8)
def pattern(key: str) -> Spectrum:
    """P_k: unit numbers in the band and 0 outside, P_-k = conj P_k, so that the tile is real."""
    frequency = np.fft.fftfreq(SIDE)
    distance = np.hypot(frequency[:, None], frequency[None, :])
    numbers = np.frombuffer(hashlib.shake_256(key.encode()).digest(SIDE * SIDE * 4), "<u4").reshape(SIDE, SIDE)
    phase = 2 * np.pi * numbers / 2**32
    mirrored = np.roll(phase[::-1, ::-1], (1, 1), (0, 1))
    half = np.where(np.arange(SIDE * SIDE).reshape(SIDE, SIDE) < _mirror_index(), phase, -mirrored)
    return np.exp(1j * half) * ((distance >= LOWEST) & (distance <= HIGHEST))


def _mirror_index() -> np.ndarray:
    """The number of -k at the place of k."""
    return np.roll(np.arange(SIDE * SIDE).reshape(SIDE, SIDE)[::-1, ::-1], (1, 1), (0, 1))


# ----------------------------------------------------------------------------------------------------------- detecting


def detect(pixels: Pixels, key: str = PUBLIC_KEY) -> Detection:
    """Looks for the pattern of a key."""
    grey = _luminance(pixels)
    return Detection(max(_largest(_scaled(grey, 1 / scale), key) for scale in SCALES), threshold())


def middle(pixels: np.ndarray, most: int = LARGEST) -> np.ndarray:
    """At most so many pixels a side; ``LARGEST`` is enough for any mark."""
    h, w = pixels.shape[:2]
    top, left = max(0, h - most) // 2, max(0, w - most) // 2
    return pixels[top : top + most, left : left + most]


def _largest(grey: Plane, key: str) -> float:
    """The largest z of a picture and of its mirror image."""
    if min(grey.shape) < 8:
        return 0.0
    folded, noise = _folded(_rest(grey)), NOISE * math.sqrt(grey.size)
    return max(float(_shifts(np.fft.fft2(one), noise, key).max()) for one in (folded, folded[:, ::-1]))


def _shifts(spectrum: Spectrum, noise: float, key: str) -> Float64[np.ndarray, "side side"]:
    """z(s) of all shifts."""
    u = spectrum / (np.abs(spectrum) + noise) * (pattern(key) != 0)
    return np.fft.ifft2(u * pattern(key).conj()).real * SIDE * SIDE / max(float(np.linalg.norm(u)), 1e-9)


def _rest(grey: Plane) -> Plane:
    return grey - gaussian_filter(grey, SMOOTHED)


def _folded(plane: Plane) -> Float64[np.ndarray, "side side"]:
    """The sum of all tiles."""
    h, w = plane.shape
    padded = np.pad(plane, ((0, -h % SIDE), (0, -w % SIDE)))
    return padded.reshape(-1, SIDE, padded.shape[1] // SIDE, SIDE).sum((0, 2))


def _unfolded(tile: Float64[np.ndarray, "side side"], h: int, w: int) -> Plane:
    """The tile over a picture."""
    return np.tile(tile, (-(-h // SIDE), -(-w // SIDE)))[:h, :w]


def _colours(pixels: np.ndarray) -> slice:
    """Every channel but alpha."""
    return slice(0, pixels.shape[2] - (pixels.shape[2] in (2, 4)))


def _luminance(pixels: np.ndarray) -> Plane:
    colours = pixels[..., _colours(pixels)].astype(np.float64)
    return colours @ np.array([0.299, 0.587, 0.114]) if colours.shape[2] == 3 else colours[..., 0]


def _scaled(grey: Plane, scale: float) -> Float64[np.ndarray, "H W"]:
    """Not larger than ``LARGEST``, whatever the scale."""
    part = middle(grey, int(LARGEST / max(1.0, scale)))
    return part if scale == 1 else zoom(part, scale, order=1, grid_mode=True, mode="nearest")


# ----------------------------------------------------------------------------------------------------------- embedding


def marked(pixels: Pixels, key: str = PUBLIC_KEY) -> Pixels:
    """The picture with the pattern, ``PSNR_DB`` away; alpha stays as it is."""
    h, w, _ = pixels.shape
    colours = pixels[..., _colours(pixels)].astype(np.float64)
    hides = _hiding(_luminance(pixels))
    change = _at_distance(colours, hides * _unfolded(np.fft.ifft2(pattern(key)).real, h, w))
    for step in range(STEPS if h * w <= REFINED else 0):
        gradient = hides**2 * _gradient(_luminance(_with(colours, change)), key, INNER if step % 2 else 0.0)
        length = math.sqrt(float(np.square(gradient).mean()))
        if length == 0:
            break
        change = _at_distance(colours, change + STEP * _distance() / length * gradient)
    made = pixels.copy()
    made[..., _colours(pixels)] = _with(colours, change)
    return made


def _hiding(grey: Plane) -> Plane:
    """How much of a change the eye misses at each pixel, at most 1: little on a plain surface, more beside edges."""
    mean = gaussian_filter(grey, NEAR)
    spread = np.sqrt(np.maximum(gaussian_filter(grey**2, NEAR) - mean**2, 0))
    return np.clip(spread / BUSY, PLAIN, 1)


def _distance() -> float:
    """Root of the mean squared difference at ``PSNR_DB``."""
    return 255 / 10 ** (PSNR_DB / 20)


def _with(colours: np.ndarray, change: Plane) -> np.ndarray:
    return np.clip(np.round(colours + change[..., None]), 0, 255)


def _at_distance(colours: np.ndarray, change: Plane) -> Plane:
    """The change times the largest factor that keeps the distance; what no pixel can show is taken away first."""
    change = np.clip(change * _distance() / max(float(change.std()), 1e-9), -colours.max(2), 255 - colours.min(2))
    low, high = 0.0, 16.0
    for _ in range(12):
        factor = (low + high) / 2
        near = np.square(_with(colours, factor * change) - colours).mean() <= _distance() ** 2
        low, high = (factor, high) if near else (low, factor)
    return low * change


def _gradient(grey: Plane, key: str, outside: float) -> Plane:
    """Of sum_k Re(u_k conj(P_k)) by the pixels.

    With v = X / |X|, d Re(u conj P) has the direction (P - v Re(v conj P) |X| / (|X| + noise)) / (|X| + noise).
    """
    h, w = grey.shape
    window = np.zeros((h, w))
    top, left = int(outside * h), int(outside * w)
    window[top : h - top, left : w - left] = 1
    spectrum = np.fft.fft2(_folded(_rest(grey) * window))
    size, noise, wanted = np.abs(spectrum), NOISE * math.sqrt(grey.size), pattern(key)
    along = spectrum / np.maximum(size, 1e-9)
    rising = (wanted - along * (along * wanted.conj()).real * size / (size + noise)) / (size + noise) * (wanted != 0)
    return _rest(_unfolded(np.fft.ifft2(rising).real, h, w) * window)
