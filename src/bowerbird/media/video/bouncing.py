"""Bouncing digits: one or two handwritten digits that move in a box at a constant speed and are reflected by its walls.

The truth of the motion is known: with ``s`` = side - size, the room that a digit has, and its place p₀ and velocity v
in pixels and pixels per frame,

    p_k = reflected(p₀ + k v),        reflected(q) = s - |(q mod 2s) - s|,

rounded to whole pixels; where two digits overlap, the brighter pixel is seen (the idea of Srivastava et al. 2015,
arXiv:1502.04681, section 4.1).  All of it follows from the split and a number: nothing is stored.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

SIDE, DIGIT, FRAMES, RATE_HZ = 32, 16, 16, 8.0
SLOWEST, FASTEST = 1.0, 3.0
"""Pixels per frame."""
CLIPS = {"train": 4000, "val": 200, "test": 400}
LABELS = ("one", "two")
"""How many digits a clip shows."""
Motion = Float[np.ndarray, "digits 2"]


def reflected(q: Float[np.ndarray, "*n"], s: float) -> Float[np.ndarray, "*n"]:
    """Where a point that left [0, s] is after it was reflected as often as need be."""
    return s - np.abs(np.mod(q, 2 * s) - s)


def places(start: Motion, velocity: Motion, n_frames: int) -> Int[np.ndarray, "f digits 2"]:
    """Top and left of every digit at every time."""
    free = start + np.arange(n_frames)[:, None, None] * velocity
    return reflected(free, SIDE - DIGIT).round().astype(np.int64)


def motion(generator: np.random.Generator, n_digits: int) -> tuple[Motion, Motion]:
    """Places at the beginning and velocities, at random."""
    angle = generator.uniform(0, 2 * np.pi, n_digits)
    speed = generator.uniform(SLOWEST, FASTEST, n_digits)
    start = generator.uniform(0, SIDE - DIGIT, (n_digits, 2))
    return start, speed[:, None] * np.stack([np.sin(angle), np.cos(angle)], 1)


def drawn(digits: UInt8[np.ndarray, "digits size size"], at: Int[np.ndarray, "f digits 2"]) -> UInt8[np.ndarray, "..."]:
    """The clip (f, side, side, 1) of digits that stand at these places."""
    frames = np.zeros((len(at), SIDE, SIDE, 1), np.uint8)
    for frame, tops in zip(frames[..., 0], at, strict=True):
        for digit, (top, left) in zip(digits, tops, strict=True):
            seen = frame[top : top + DIGIT, left : left + DIGIT]
            np.maximum(seen, digit, out=seen)
    return frames


def clips(
    pack: dict[str, np.ndarray], split: str, n_frames: int = FRAMES
) -> Iterator[tuple[UInt8[np.ndarray, "f h w 1"], str]]:
    """All clips of a split, each with its label, up to a frame; they show only digits of that split of ``pack``."""
    images = pack["images"][_of_split(pack["split"], split)][..., 0]
    generator = np.random.default_rng([*split.encode()])
    for _ in range(CLIPS[split]):
        chosen = images[generator.integers(len(images), size=generator.integers(1, len(LABELS) + 1))]
        digits = np.stack(
            [np.asarray(Image.fromarray(one).resize((DIGIT, DIGIT), Image.Resampling.BOX)) for one in chosen]
        )
        at = places(*motion(generator, len(digits)), n_frames)
        yield drawn(digits, at), LABELS[len(digits) - 1]


def _of_split(splits: np.ndarray, wanted: str) -> np.ndarray:
    """The digits have no official val: every eighth training digit is kept for it."""
    training = splits == "train"
    held = training & (np.cumsum(training) % 8 == 0)
    return {"train": training & ~held, "val": held, "test": splits == "test"}[wanted]
