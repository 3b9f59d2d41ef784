"""From the name or path of a source to ``Pictures``: pixels of one shape, and what is known about each image."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from bowerbird import config, machine
from bowerbird.data import builtin, catalogue, fetch, files, packs
from bowerbird.data.columns import no_column
from bowerbird.data.listing import image_files, official_splits
from bowerbird.data.metadata import CAPTION, FOLDER, MISSING, described
from bowerbird.data.names import printable
from bowerbird.data.packing import Packed
from bowerbird.data.unused import Unused, not_used
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.media.image import pixels
from bowerbird.media.image import published as fetched
from bowerbird.media.image.collecting import Collecting


@dataclass
class Pictures:
    """A source after decoding, before labels and splits are chosen."""

    name: str
    images: Packed
    """uint8 (n, h, w, c)."""
    columns: dict[str, np.ndarray]
    """What is known about each image, as strings (n,)."""
    split: np.ndarray
    """The official split of each image, "" where there is none."""
    names: list[str] = field(default_factory=list)
    """Files, where the images come from files."""
    skipped: int = 0
    """Images that cannot be read."""
    unused: Unused = field(default_factory=Unused)
    """Everything that was seen and not used."""
    note: str = ""
    origins: dict[str, str] = field(default_factory=dict)
    """Where each column comes from, in words."""
    thing = "image"

    def column(self, name: str) -> np.ndarray:
        """BowerbirdError where there is none of this name."""
        if name not in self.columns:
            raise no_column(self, name)
        return self.columns[name]


def pictures(data: config.Data) -> Pictures:
    """The images of ``data.source`` in the wanted size and colour; errors say what is wrong with the source."""
    known = {record.name: record for record in catalogue.RECORDS if record.kind == "data"}
    if data.source in known:
        record = known[data.source]
        return _packed(record, data) if record.built_in else _fetched(record.name, data)
    path = Path(data.source).expanduser()
    if path.exists():
        return _from_files(path, data)
    if path.name == data.source and not path.suffix:
        raise unknown("data set, folder or zip", data.source, known)
    raise BowerbirdError(f"The data {data.source} do not exist; give a folder, a zip or one of: {', '.join(known)}.")


# ------------------------------------------------------------------------------------- arrays that exist already


def _packed(record: catalogue.Record, data: config.Data) -> Pictures:
    """What ships in the package, or the whole of it if that has been built; a note says which."""
    path = fetch.needed(record.name)
    pack = packs.read(path)
    note = ""
    if record.packages:
        part = f"the part that ships (bowerbird data get {record.name} builds the whole)"
        note = part if path.parent == builtin.FOLDER else "the whole set, from the cache"
    images = _reshaped(record.name, pack.pop("images"), data)
    return Pictures(record.name, images, split=pack.pop("split"), columns=pack, note=note)


def _fetched(name: str, data: config.Data) -> Pictures:
    folder = fetch.needed(name)
    parts = fetched.READERS[name](folder)
    return Pictures(
        name,
        _reshaped(name, np.concatenate([images for _, images, _ in parts]), data),
        {"label": np.concatenate([labels for _, _, labels in parts])},
        np.concatenate([np.full(len(images), split) for split, images, _ in parts]),
    )


def _reshaped(name: str, images: np.ndarray, data: config.Data) -> Packed:
    """In the wanted size and colour; BowerbirdError before more memory is taken than there is."""
    n_channels = {"auto": images.shape[-1], "grey": 1, "rgb": 3}[data.channels]
    if data.size is not None:
        n_bytes = 2 * len(images) * data.size**2 * images.shape[-1]
        free = machine.available_memory(torch.device("cpu"))
        if free is not None and n_bytes > free:
            raise BowerbirdError(
                f"At {data.size}x{data.size} the {len(images):,} images of {name} take {n_bytes / 2e9:.1f} GB, but "
                f"{free / 1e9:.1f} GB of memory are free for them and a copy; choose a smaller --data.size."
            )
        images = pixels.fit_array(images, data.size, data.size)
    return Packed.of(pixels.with_channels(images, n_channels) if n_channels != images.shape[-1] else images)


# ---------------------------------------------------------------------------------------------- folders and zips


def _from_files(path: Path, data: config.Data) -> Pictures:
    source = files.open_files(path, data.names)
    listing = image_files(source)
    if not listing.names:
        raise no_images(path, listing.unused)
    collecting = Collecting(path, source, listing.names, data)
    images = collecting.packed()
    names = [name for name in listing.names if name not in images.problems]
    splits = official_splits(names)
    said = described(source, listing, names, splits, CAPTION in (*data.given, data.label))
    notes = [source.note, images.note, *said.notes, _lost_colour(images, data.channels), collecting.note]
    unused = listing.unused + not_used(images.problems) + said.unused
    found = Pictures(
        printable(path.resolve().name), images, said.columns, splits, names, len(images.problems), unused,
        "; ".join(filter(None, notes)), said.origins,
    )  # fmt: skip
    return _in_classes(found, data)


def _in_classes(found: Pictures, data: config.Data) -> Pictures:
    """Without the images of val and test that lie in no folder of a class, where folders are the classes."""
    without = found.columns.get(FOLDER, np.empty(0)) == ""
    if not without.any():
        return found
    if data.given or data.label not in (None, FOLDER):
        found.columns[FOLDER] = np.where(without, MISSING, found.columns[FOLDER])
        return found
    for row in np.flatnonzero(without):
        found.unused.add("image{s} of val or test outside the class folders", found.names[row])
    found = chosen(found, np.flatnonzero(~without))
    return replace(found, split=official_splits(found.names))


def chosen(found: Pictures, rows: np.ndarray) -> Pictures:
    """These pictures alone."""
    return replace(
        found,
        images=found.images[rows],
        columns={name: values[rows] for name, values in found.columns.items()},
        split=found.split[rows],
        names=[found.names[row] for row in rows] if found.names else [],
    )


def no_images(path: Path, unused: Unused) -> BowerbirdError:
    """What to say of a place without images."""
    seen = f"; what is there: {unused}" if unused else ""
    return BowerbirdError(f"{path} holds no images (PNG, JPEG, WebP, GIF, TIFF and others){seen}.")


def _lost_colour(images: Packed, wanted: str) -> str:
    """A note where the majority's grey gives up somebody's colour."""
    if wanted != "auto" or images.shape[-1] == 3 or not images.in_colour:
        return ""
    return f'{images.in_colour} of the images are in colour and become grey (channels = "rgb" keeps the colour)'
