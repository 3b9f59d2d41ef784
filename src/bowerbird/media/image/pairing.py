"""Sources and targets of image-to-image models: which picture belongs to which.

    a style to another    --data.from flat --data.to 3d: two values of a column; what two pictures share in another
                          column (a name, a code point) makes them a pair
    two folders           source/ and target/, equal file names
    a column              metadata.jsonl with a column ``source`` that names the file to start from
    halves                one file holds both, side by side (the layout of pix2pix)
    itself, smaller       --data.shrink 4: what is enlarged again
    two domains           trainA, trainB, testA, testB (the layout of CycleGAN), or --data.no-paired: no picture
                          belongs to another

Pictures without a partner are left out and counted.
"""

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np

from bowerbird import config
from bowerbird.data import split
from bowerbird.data.metadata import Index, composed
from bowerbird.data.packing import Packed
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels
from bowerbird.media.image.sources import Pictures, chosen

FOLDERS = ("source", "target")
DOMAINS = {f"{part}{domain}": (part, domain) for part in ("train", "val", "test") for domain in "AB"}
"""Top folders of unpaired data, as in CycleGAN's repository: A becomes B, and test is never trained on."""
STYLE = "style"
FILE = "file"


@dataclass
class Sources:
    """What pictures are made from."""

    images: Packed
    """uint8 (n, h, w, c): one for each target or, if unpaired, as many as there are."""
    split: np.ndarray
    """Unpaired: the split of each."""
    paired: bool


def with_sources(found: Pictures, data: config.Data) -> tuple[Pictures, Sources | None]:
    """The targets, and what they are made from; None where nothing says that there is such a thing.

    Styles that the data do not have give way to a layout that speaks for itself, so that a recipe for two styles takes
    a user's own pairs as well.
    """
    if data.shrink is not None:
        return found, _smaller(found, data.shrink)
    if data.halves != "none":
        return _halves(found, data.halves)
    if (data.from_ is None) != (data.to is None):
        raise BowerbirdError("--data.from and --data.to go together: say from what, and to what.")
    styles = (data.from_, data.to) if data.from_ is not None and data.to is not None else None
    if styles is not None and (column := _column_of(found, *styles)) is not None:
        return _two_values(found, column, *styles, data.paired)
    folders = set(found.columns.get("folder", ()))
    if (domains := _domain_folders(found.names)) is not None:
        return _domains(found, domains)
    if folders == set(FOLDERS):
        return _two_values(found, "folder", *FOLDERS, data.paired)
    if "source" in found.columns:
        return _by_column(found)
    if styles is not None:
        raise _no_styles(found, *styles)
    return found, None


def _smaller(found: Pictures, factor: int) -> Sources:
    """The pictures themselves with 1/factor of their pixels each way, brought back to their size as a user's are."""
    _, height, width, _ = found.images.shape
    if min(height, width) < factor:
        raise BowerbirdError(f"Pictures of {width}x{height} cannot become {factor} times smaller; lower --data.shrink.")
    large = (part.transpose(0, 2, 3, 1) for part in found.images.chunks())
    small = (pixels.fit_array(part, height // factor, width // factor) for part in large)
    again = np.concatenate([pixels.fit_array(part, height, width) for part in small])
    return Sources(Packed.of(again), found.split, True)


def _halves(found: Pictures, which: str) -> tuple[Pictures, Sources]:
    middle = found.images.shape[2] // 2
    left, right = found.images.between(0, middle), found.images.between(-middle, None)
    source, target = (left, right) if which == "source-left" else (right, left)
    return replace(found, images=target), Sources(source, found.split, True)


def _domain_folders(names: list[str]) -> list[str] | None:
    """CycleGAN's folder that holds each file, at any depth; None if one has none, or there is one domain alone."""
    folders = [next((one for part in name.split("/")[:-1] if (one := _domain(part)) in DOMAINS), "") for name in names]
    both = {DOMAINS[folder][1] for folder in set(folders) - {""}} == {"A", "B"}
    return folders if both and "" not in folders else None


def _domain(folder: str) -> str:
    """Its name as ``DOMAINS`` has it, whatever the case of its letters."""
    return folder[:-1].lower() + folder[-1:].upper()


def _domains(found: Pictures, folders: list[str]) -> tuple[Pictures, Sources]:
    part, domain = (np.array([DOMAINS[folder][i] for folder in folders]) for i in (0, 1))
    columns = {name: values for name, values in found.columns.items() if name != "folder"}  # which are no classes
    found = replace(found, split=part, columns=columns)
    return _unpaired(found, domain == "A", domain == "B")


def _column_of(found: Pictures, *values: str) -> str | None:
    """The column of which these are values."""
    return next((name for name, column in found.columns.items() if set(values) <= set(column)), None)


def _no_styles(found: Pictures, *values: str) -> BowerbirdError:
    """Says which style there is instead, or what pairs can look like."""
    column = found.columns.get(STYLE, found.columns.get("folder"))
    known = sorted(set(column)) if column is not None else []
    if missing := [value for value in values if known and value not in known]:
        return unknown(f"style of {found.name}", missing[0], known)
    return BowerbirdError(
        f"{found.name} has no pictures in the styles {' and '.join(values)}; bring folders source/ and target/ with "
        "equal file names, or metadata.jsonl with a column source."
    )


def _two_values(found: Pictures, column: str, source: str, target: str, paired: bool) -> tuple[Pictures, Sources]:
    if source == target:
        raise BowerbirdError(f"--data.from and --data.to are both '{source}'; choose two different ones.")
    is_source, is_target = found.columns[column] == source, found.columns[column] == target
    if not paired:
        return _unpaired(found, is_source, is_target)
    others = {name: values for name, values in found.columns.items() if name != column}
    if found.names:
        others = {FILE: np.array([composed(PurePosixPath(name).stem) for name in found.names])} | others
    matches = {name: _partners(values, is_source, is_target) for name, values in others.items()}
    if not any(len(targets) for targets, _ in matches.values()):
        raise BowerbirdError(f"No picture of '{source}' in {found.name} has the name of one of '{target}'.")
    targets, sources = max(matches.values(), key=lambda match: len(match[0]))
    alone = int(is_source.sum() + is_target.sum()) - 2 * len(targets)
    note = "; ".join(filter(None, [found.note, f"left out: {alone} without a partner" if alone else ""]))
    return chosen(replace(found, note=note), targets), Sources(found.images[sources], found.split[targets], True)


def _partners(key: np.ndarray, is_source: np.ndarray, is_target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the targets whose key exactly one target and one source have, and those of the sources."""
    sources = _once(key, np.flatnonzero(is_source))
    targets = _once(key, np.flatnonzero(is_target))
    both = [value for value in targets if value in sources]
    return np.array([targets[value] for value in both], int), np.array([sources[value] for value in both], int)


def _once(key: np.ndarray, rows: np.ndarray) -> dict[str, int]:
    values, counts = np.unique(key[rows], return_counts=True)
    single = set(values[counts == 1])
    return {str(key[row]): int(row) for row in rows if key[row] in single}


def _by_column(found: Pictures) -> tuple[Pictures, Sources | None]:
    """Rows of metadata that name their source, relative to the folder or to their own file."""
    index, place = Index(found.names), {name: row for row, name in enumerate(found.names)}
    pairs = []
    for row, wanted in enumerate(map(str, found.columns["source"])):
        other = index.find("", wanted) or index.find(str(PurePosixPath(found.names[row]).parent), wanted)
        if other is not None:
            pairs.append((row, place[other]))
    if not pairs:
        said = "the values of the column source name no images, so it makes no pairs"
        return replace(found, note="; ".join(filter(None, [found.note, said]))), None
    targets, sources = np.array(pairs).T
    missing = len(found.names) - len({*targets.tolist(), *sources.tolist()})
    note = "; ".join(filter(None, [found.note, f"left out: {missing} of no pair" if missing else ""]))
    return chosen(replace(found, note=note), targets), Sources(found.images[sources], found.split[targets], True)


def _unpaired(found: Pictures, is_source: np.ndarray, is_target: np.ndarray) -> tuple[Pictures, Sources]:
    images = found.images[is_source]
    where = split.assign(images.digests, found.split[is_source])
    return chosen(found, np.flatnonzero(is_target)), Sources(images, where, False)
