"""Which images are for training, validation and testing: a function of their content.

With u = the first 8 bytes of an image's SHA-256 as a fraction in [0, 1):

    no official splits      val  u < 1/20,  test  1/20 <= u < 2/20,  train the rest
    official, but no val    val  the training images with u < 1/12      (MNIST: about 5,000 of 60,000)
    official, but no test   test the training images with u >= 19/20

so an image's split depends on nothing but its pixels, and copies of an image never lie on two sides.  In sets so
small that a split stays empty, the image that comes nearest is moved into it.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

SPLITS = ("train", "val", "test")
RULE = {
    (): "content hash: 18/20 train, 1/20 val, 1/20 test",
    ("test", "train"): "official test; val: content hash, 1/12 of train",
    ("train",): "content hash: 18/20 train, 1/20 val, 1/20 test",
    ("train", "val"): "official val; test: content hash, 1/20 of train",
    ("test", "train", "val"): "official",
}
"""What is done for each set of official splits, as protocols state it."""


def digests(images: Iterable[np.ndarray]) -> np.ndarray:
    """The first 8 bytes of each image's SHA-256, as uint64 (n,)."""
    hashed = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
    return np.frombuffer(hashed, ">u8").astype(np.uint64)


def by_name(names: Iterable[str]) -> np.ndarray:
    """The split of what has a name, whatever it looks like: val u < 1/20, test 1/20 ≤ u < 3/20, train the rest.

    u is the first 8 bytes of the SHA-256 of the name as a fraction.  For pictures of one thing in several styles, which
    must not lie on two sides.
    """
    u = _fractions(names)
    return np.select([u < 1 / 20, u < 3 / 20], ["val", "test"], "train")


def by_combination(first: np.ndarray, *rest: np.ndarray) -> np.ndarray:
    """The split of each row, by combinations of values of which every part is seen in training.

    A value of ``first`` that has k combinations gives one of them to val if u < k/20, to test if k/20 ≤ u < 3k/20, and
    keeps the others in train (and its only one, if k = 1): on average 1/20 and 2/20 of the combinations.  u is the
    value's SHA-256 as in ``by_name``, and the one that goes is the combination with the smallest SHA-256.
    """
    combined = np.array(["\0".join(row) for row in zip(first, *rest, strict=True)])
    names, rows, member = np.unique(combined, return_index=True, return_inverse=True)
    values, owner, k = np.unique(first[rows], return_inverse=True, return_counts=True)
    order = np.argsort(_fractions(names))
    candidate = order[np.unique(owner[order], return_index=True)[1]]
    u = _fractions(values)
    where = np.full(len(names), "train", "<U5")
    where[candidate] = np.select([k == 1, u < k / 20, u < 3 * k / 20], ["train", "val", "test"], "train")
    return where[member]


def _fractions(names: Iterable[str]) -> np.ndarray:
    """The first 8 bytes of each name's SHA-256 as a fraction in [0, 1)."""
    hashed = b"".join(hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return np.frombuffer(hashed, ">u8") / 2.0**64


def present(official: np.ndarray) -> tuple[str, ...]:
    """The official splits that there are, as a key of RULE."""
    return tuple(sorted({name for name in SPLITS if (official == name).any()}))


def assign(digest: np.ndarray, official: np.ndarray) -> np.ndarray:
    """The split of each image; ``official`` holds "" where the source says nothing."""
    u = digest / 2.0**64
    split = np.where(official == "", "train", official).astype("<U5")
    free = split == "train"
    match present(official):
        case () | ("train",):
            split[free & (u < 2 / 20)] = "test"
            split[free & (u < 1 / 20)] = "val"
        case ("test", "train"):
            split[free & (u < 1 / 12)] = "val"
        case ("train", "val"):
            split[free & (u >= 19 / 20)] = "test"
    for name in SPLITS:
        _fill(split, name, digest, free)
    return split


def _fill(split: np.ndarray, name: str, digest: np.ndarray, free: np.ndarray) -> None:
    """Moves one image, with its copies, into an empty split; an earlier one of SPLITS keeps its last for itself."""
    if (split == name).any():
        return
    for donor in sorted(SPLITS, key=lambda other: -int((free & (split == other)).sum())):
        there = free & (split == donor)
        candidates = np.unique(digest[there])
        keeps = SPLITS.index(donor) < SPLITS.index(name)
        if len(candidates) > keeps:
            split[there & (digest == candidates[0])] = name
            return
    if name == "val" and free.sum() > 1:  # copies of one image: even then something must be measured
        split[np.flatnonzero(free)[0]] = name
