"""Labels everything that is written inside ``labelling(labeller)``: nothing that a medium writes can be forgotten.

A file that has room for a label gets it inside.  Any other gets a sidecar ``FILE.aigc.json``, which names the file's
SHA-256, so that it belongs to no other.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bowerbird.data.writing import finishing, write_text
from bowerbird.provenance import containers, spectrum, visible, written
from bowerbird.provenance.record import Record, make
from bowerbird.provenance.signing import Identity
from bowerbird.samplers.greenlist import own_key

if TYPE_CHECKING:
    from PIL import Image

SIDECAR = ".aigc.json"


@dataclass(frozen=True)
class Labeller:
    """What labels say, and which marks pictures get."""

    origin: Mapping[str, Any] = field(default_factory=dict)
    """Of which model and data, see ``origins.origin``; no path of this machine."""
    identity: Identity | None = None
    """Signs each label, and each file of a kind that C2PA knows."""

    watermark: bool = True
    """Whether pictures that are large enough get the watermark of ``spectrum``."""
    visible: bool = False
    """Whether every picture gets the mark that people see; sheets always do."""

    def record(self, content: bytes) -> Record:
        """The label of this content."""
        if self.identity is None:
            return make(content, self.origin)
        return make(content, self.origin, producer=self.identity.producer, sign=self.identity.sign)

    def files(self, data: bytes, suffix: str) -> dict[str, bytes]:
        """The labelled file by its suffix, and its sidecar, if it needs one, by a longer one."""
        inside = containers.labelled(data, suffix, self.record)
        if inside is not None:
            kind = containers.kind_of(inside)
            return {suffix: self.identity.with_manifest(inside, kind) if self.identity and kind else inside}
        return {suffix: data, suffix + SIDECAR: (json.dumps(self.record(data), indent=2) + "\n").encode()}

    def row(self, row: dict[str, Any]) -> dict[str, Any]:
        """A line of metadata that holds a sample itself, with its label."""
        return written.labelled_row(row, self.record)

    def _finish(self, path: Path, data: bytes) -> bytes:
        """What is written to ``path`` in place of ``data``; writes the sidecar."""
        if path.name.endswith(SIDECAR):
            return data
        files = self.files(data, path.suffix.lower())
        for suffix, sidecar in files.items():
            if suffix.endswith(SIDECAR):
                write_text(path.with_name(path.name + SIDECAR), sidecar.decode())
        return files[path.suffix.lower()]


UNSIGNED = Labeller()
"""Says no more than that Bowerbird made it."""
_current: ContextVar[Labeller | None] = ContextVar("labeller", default=None)


@contextlib.contextmanager
def labelling(labeller: Labeller | None, *, files: bool = True) -> Iterator[None]:
    """Inside, pictures that a medium draws get the labeller's marks, and files their labels unless ``files`` is False.

    None: nothing is labelled.
    """
    token = _current.set(labeller)
    try:
        with finishing(labeller._finish) if labeller and files else contextlib.nullcontext():
            yield
    finally:
        _current.reset(token)


def marked(picture: "Image.Image") -> "Image.Image":
    """A picture that a model made, with the marks in its pixels that are asked for; as it is outside."""
    labeller = _current.get()
    if labeller is None:
        return picture
    return _with_watermark(visible.with_corner(picture) if labeller.visible else picture, labeller)


def marked_sheet(sheet: "Image.Image") -> "Image.Image":
    """A sheet of such pictures, with the same watermark, and below it the mark that people see; as it is outside."""
    labeller = _current.get()
    return sheet if labeller is None else visible.with_strip(_with_watermark(sheet, labeller))


def _with_watermark(picture: "Image.Image", labeller: Labeller) -> "Image.Image":
    from PIL import Image

    if not (labeller.watermark and spectrum.fits(*picture.size)):
        return picture
    pixels = np.asarray(picture)
    made = spectrum.marked(pixels if pixels.ndim == 3 else pixels[..., None], own_key())
    return Image.fromarray(made if pixels.ndim == 3 else made[..., 0])
