"""What was made: every result has a folder of its own with its files, and goes when many newer ones have come."""

import mimetypes
import re
import secrets
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from bowerbird.data.files import METADATA, SHEET
from bowerbird.data.writing import save_png
from bowerbird.generating import Samples
from bowerbird.media.image.imageset import to_uint8
from bowerbird.media.image.pictures import picture
from bowerbird.spec import Tensors
from bowerbird.studio.shelf import Gone, Shelved

MOST_RESULTS = 300
FILES = (".png", ".wav", ".mid", ".txt", ".jsonl", ".json")


@dataclass
class Result:
    """One call: its files, and what they were made of."""

    token: str
    folder: Path
    run: Shelved
    samples: Samples
    seed: int
    closest: list[Path] | None = None
    """The nearest training pictures, when they have been looked for."""

    def files(self) -> dict[str, Path]:
        """By name; only these can be asked for."""
        return {path.name: path for path in sorted(self.folder.iterdir()) if path.suffix in FILES}

    @property
    def pictures(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".png") and name[:-4].isdigit()]

    @property
    def pieces(self) -> list[str]:
        """Names of pieces of music, without suffix."""
        return [name[:-4] for name in self.files() if name.endswith(".wav")]

    @property
    def texts(self) -> list[str]:
        texts = [str(text) for text in self.samples] if self.samples.spec.medium == "text" else []
        return ["\n".join(re.findall(r"[^，。\s]+[，。]*", text)) for text in texts] if self.is_poem else texts

    @property
    def has_closest(self) -> bool:
        """Whether there are training pictures to lay beside."""
        return self.samples.spec.medium == "image"

    @property
    def is_poem(self) -> bool:
        return self.run.source.startswith("tang")

    @property
    def deterministic(self) -> bool:
        """Whether another seed would make the same again."""
        return self.run.family == "translation"

    def source_files(self) -> list[str]:
        """The pictures that these were made from, one each; none where they were made from none."""
        return sorted(name for name in self.files() if name.startswith("source-"))

    @property
    def words(self) -> list[dict[str, str]]:
        """What each was made from, in words."""
        return [{k: v for k, v in row.items() if isinstance(v, str)} for row in self.samples.rows]


class Results:
    """The results of this studio, in a folder that goes with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._kept: OrderedDict[str, Result] = OrderedDict()

    def keep(self, samples: Samples, run: Shelved, seed: int) -> Result:
        """Writes the samples and remembers them."""
        token = secrets.token_urlsafe(9)
        folder = samples.save(self.folder / token)
        for name, field in samples.spec.given.items():
            if isinstance(field, Tensors) and len(field.shape) == 3 and name in samples.given:
                for i, pixels in enumerate(to_uint8(samples.given[name])):
                    save_png(folder / f"{name}-{i:05d}.png", picture(pixels))
        result = self._kept[token] = Result(token, folder, run, samples, seed)
        while len(self._kept) > MOST_RESULTS:
            shutil.rmtree(self._kept.popitem(last=False)[1].folder, ignore_errors=True)
        return result

    def get(self, token: str) -> Result:
        if token not in self._kept:
            raise Gone("This result is no longer kept; make it again.")
        return self._kept[token]

    def file(self, token: str, name: str) -> Path:
        """One of a result's own files."""
        path = self.get(token).files().get(name)
        if path is None:
            raise Gone(f"This result has no file {name}.")
        return path


def media_type(path: Path) -> str:
    """What a browser is told that a file is."""
    known = {".mid": "audio/midi", ".jsonl": "application/json", ".wav": "audio/wav"}
    return known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def names_to_download(result: Result) -> list[str]:
    """All files; the sheet and the rows of what they were made from last."""
    return sorted(result.files(), key=lambda name: (name in (METADATA, SHEET), name))
