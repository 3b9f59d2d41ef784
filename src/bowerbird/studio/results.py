"""What was made: every result has a folder of its own with its files, and goes when many newer ones have come."""

import mimetypes
import re
import secrets
import shutil
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from bowerbird.data.listing import METADATA, SHEETS
from bowerbird.data.writing import save_png
from bowerbird.eightbit import to_uint8
from bowerbird.generating import Samples
from bowerbird.media.image.pictures import picture
from bowerbird.spec import Tensors
from bowerbird.studio.language import Gone
from bowerbird.studio.shelf import Shelved

MOST_RESULTS = 300
SAMPLES = (".png", ".gif", ".webp", ".mp4", ".wav", ".mid")
FILES = (".png", ".gif", ".webp", ".mp4", ".wav", ".mid", ".txt", ".jsonl", ".json")


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
        return _files(self.folder)

    @property
    def pictures(self) -> list[str]:
        return [name for name in self.files() if name.endswith(".png") and name[:-4].isdigit()]

    @property
    def pieces(self) -> list[str]:
        """Names of pieces of music or of sounds, without suffix."""
        return [name[:-4] for name in self.files() if name.endswith(".wav")]

    @property
    def clips(self) -> list[str]:
        """Names of moving pictures, without suffix."""
        return [name[:-4] for name in self.files() if name.endswith(".gif")]

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

    def verifiable(self) -> list[str]:
        """The files of the samples themselves; all texts are in one."""
        numbered = [name for name in self.files() if name.endswith(SAMPLES) and name.partition(".")[0].isdigit()]
        return numbered or [name for name in self.files() if name.endswith(".txt")]

    @property
    def words(self) -> list[dict[str, str]]:
        """What each was made from, in words."""
        return [{k: v for k, v in row.items() if isinstance(v, str)} for row in self.samples.rows]


class Results:
    """The results of this studio, in a folder that goes with it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._results: dict[str, Result] = {}
        self._folders: OrderedDict[str, Path] = OrderedDict()

    def keep(self, samples: Samples, run: Shelved, seed: int, labelled: bool = True) -> Result:
        """Writes the samples and remembers them; ``labelled`` False is for what is shown and not offered as files."""
        token = secrets.token_urlsafe(9)
        folder = samples.save(self.folder / token, labelled=labelled)
        for name, field in samples.spec.given.items():
            if isinstance(field, Tensors) and len(field.shape) == 3 and name in samples.given:
                for i, pixels in enumerate(to_uint8(samples.given[name])):
                    save_png(folder / f"{name}-{i:05d}.png", picture(pixels))
        result = self._results[token] = Result(token, folder, run, samples, seed)
        self._remember(token, folder)
        return result

    def _remember(self, token: str, folder: Path) -> None:
        self._folders[token] = folder
        while len(self._folders) > MOST_RESULTS:
            oldest, gone = self._folders.popitem(last=False)
            self._results.pop(oldest, None)
            shutil.rmtree(gone, ignore_errors=True)

    def keep_file(self, content: bytes) -> str:
        """Keeps a single picture and returns its address below /results."""
        token = secrets.token_urlsafe(9)
        (self.folder / token).mkdir(parents=True)
        (self.folder / token / "one.png").write_bytes(content)
        self._remember(token, self.folder / token)
        return f"{token}/one.png"

    def get(self, token: str) -> Result:
        if token not in self._results:
            raise Gone("gone.result")
        return self._results[token]

    def file(self, token: str, name: str) -> Path:
        """One of a result's own files."""
        path = _files(self._folders[token]).get(name) if token in self._folders else None
        if path is None:
            raise Gone("gone.file", name=name)
        return path


def media_type(path: Path) -> str:
    """What a browser is told that a file is."""
    known = {".mid": "audio/midi", ".jsonl": "application/json", ".wav": "audio/wav"}
    return known.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def names_to_download(result: Result) -> list[str]:
    """All files; the sheet and the rows of what they were made from last."""
    return sorted(result.files(), key=lambda name: (name in (METADATA, *SHEETS), name))


def _files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.suffix in FILES}
