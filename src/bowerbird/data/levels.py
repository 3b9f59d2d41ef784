"""Which folders are classes: the level of the path that tells images apart.

The last folder is the class if no two folders share their last name.  If some do, as in ``2023/01`` and ``2024/01`` or
in ``cat/images`` and ``dog/images``, the class is the path, without the levels that are the same for all.  Folders that
name the split do not count, and images of val and test may lie in no folder of a class.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from bowerbird.data.listing import SPLITS, n_common_folders

Place = tuple[str, ...]
"""The folders of a file, from that of its split on."""


def folder_labels(names: list[str], splits: np.ndarray) -> list[str]:
    """The class of each image, "" for none; an empty list if the folders tell no classes apart."""
    depth = n_common_folders(names) + 1 if splits.any() else 0
    places = [tuple(name.split("/")[depth:-1]) for name in names]
    training = {place for place, split in zip(places, splits, strict=True) if split in ("", "train")}
    name_of = _naming(training)
    if () in training or len({name_of(place) for place in training}) < 2:
        return []
    if {place[-1].lower() for place in training} <= SPLITS.keys():
        return []
    known = training | _of_their_own(places, splits, training)
    return [name_of(place) if place in known else "" for place in places]


def _naming(places: set[Place]) -> Callable[[Place], str]:
    """The name of the class of a folder."""
    if len({place[-1:] for place in places}) == len(places):
        return lambda place: place[-1] if place else ""
    depth = max(map(len, places))
    levels = [{place[level : level + 1] for place in places} for level in range(depth)]
    telling = [level for level in range(depth) if len(levels[level]) > 1]
    return lambda place: "/".join(place[level] for level in telling if level < len(place))


def _of_their_own(places: list[Place], splits: np.ndarray, training: set[Place]) -> set[Place]:
    """Folders of val and test that are classes although training lacks them: several, as deep as those of training."""
    depths = {len(place) for place in training}
    others = defaultdict(set)
    for place, split in zip(places, splits, strict=True):
        others[split].add(place)
    return {place for some in others.values() if len(some) > 1 for place in some if len(place) in depths}
