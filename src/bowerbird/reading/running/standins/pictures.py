"""Pictures for data sets that are not here: strokes that differ by class, as bytes, of any size, the same every time.

Digits are drawn from line segments on a 28×28 canvas with small shifts, thick strokes of value 255 on 0, so that they
have MNIST's shape, range and sparsity; clothes are filled outlines; colour pictures are smooth scenes with one object.
"""

import functools

import numpy as np

_A, _B, _C, _D, _E, _F, _G = (
    ((8, 5), (19, 5)), ((19, 5), (19, 13)), ((19, 13), (19, 22)), ((8, 22), (19, 22)),
    ((8, 13), (8, 22)), ((8, 5), (8, 13)), ((8, 13), (19, 13)),
)  # fmt: skip
_STROKES = (
    (_A, _B, _C, _D, _E, _F), (_B, _C), (_A, _B, _G, _E, _D), (_A, _B, _G, _C, _D), (_F, _G, _B, _C),
    (_A, _F, _G, _C, _D), (_A, _F, _G, _E, _D, _C), (_A, _B, _C), (_A, _B, _C, _D, _E, _F, _G),
    (_A, _B, _C, _D, _F, _G),
)  # fmt: skip
VARIANTS = 16


@functools.cache
def digits() -> np.ndarray:
    """``(10, VARIANTS, 28, 28)`` bytes: every class in every variant."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:28, 0:28].astype(np.float64)
    bank = np.zeros((10, VARIANTS, 28, 28), np.uint8)
    for label, strokes in enumerate(_STROKES):
        for variant in range(VARIANTS):
            shift, slant = rng.uniform(-2, 2, 2), rng.uniform(-0.25, 0.25)
            width = rng.uniform(1.0, 1.9)
            near = np.full((28, 28), np.inf)
            for (x0, y0), (x1, y1) in strokes:
                ends = [(px + shift[0] - slant * (py - 14), py + shift[1]) for px, py in ((x0, y0), (x1, y1))]
                near = np.minimum(near, _distance(x, y, *ends))
            bank[label, variant] = (255 * np.clip(width + 0.5 - near, 0, 1)).astype(np.uint8)
    return bank


def _distance(x: np.ndarray, y: np.ndarray, start: tuple[float, float], end: tuple[float, float]) -> np.ndarray:
    dx, dy = end[0] - start[0], end[1] - start[1]
    t = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.hypot(x - start[0] - t * dx, y - start[1] - t * dy)


@functools.lru_cache(maxsize=8)
def scenes(size: int, classes: int = 10) -> np.ndarray:
    """``(classes, VARIANTS, size, size, 3)`` bytes: a sky-to-ground gradient and one coloured shape for each class."""
    rng = np.random.default_rng(11)
    y, x = np.mgrid[0:size, 0:size] / size
    bank = np.zeros((classes, VARIANTS, size, size, 3), np.uint8)
    for label in range(classes):
        for variant in range(VARIANTS):
            top, low, ink = rng.uniform(0, 255, (3, 3))
            picture = top * (1 - y[..., None]) + low * y[..., None]
            cx, cy, r = rng.uniform(0.35, 0.65), rng.uniform(0.35, 0.65), rng.uniform(0.15, 0.3)
            power = 1 + label % 4
            inside = np.abs(x - cx) ** power + np.abs(y - cy) ** power * (1 + label / 10) < r**power
            picture[inside] = ink
            noise = rng.normal(0, 6, picture.shape)
            bank[label, variant] = np.clip(picture + noise, 0, 255).astype(np.uint8)
    return bank


def picture(index: int, *, size: int = 28, channels: int = 1, classes: int = 10) -> tuple[np.ndarray, int]:
    """The picture of an index, ``(size, size)`` or ``(size, size, 3)`` bytes, and its class."""
    label = (index * 7 + index // 10) % classes
    variant = (index // classes) % VARIANTS
    if channels == 1:
        small = digits()[label % 10, variant]
        return (small if size == 28 else _resized(small, size)), label
    return scenes(min(size, 96), 10)[label % 10, variant] if size <= 96 else _resized(
        scenes(64, 10)[label % 10, variant], size
    ), label  # fmt: skip


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    places = np.minimum((np.arange(size) * image.shape[0] / size).astype(int), image.shape[0] - 1)
    return np.ascontiguousarray(image[places][:, places])
