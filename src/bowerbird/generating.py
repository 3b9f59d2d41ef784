"""Drawing samples: the only loop that asks models for them, and the results, in memory or as files.

Sample number i of a seed is the same whatever else is drawn with it: its random numbers depend only on (seed, i).
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bowerbird.data.listing import METADATA
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.data.writing import write_lines
from bowerbird.draws import Draws
from bowerbird.errors import BowerbirdError
from bowerbird.media.medium import Medium, Opened, medium
from bowerbird.metrics.progress_bar import progress_bar
from bowerbird.models.base import GenerativeModel, counting_evaluations, evaluating, options_from
from bowerbird.provenance.labelling import UNSIGNED, Labeller, labelling
from bowerbird.spec import NO_TOKEN, Classes, Spec, Tensors, Tokens

PICTURES_AT_ONCE, SEQUENCES_AT_ONCE = 256, 64


@dataclass(frozen=True)
class Drawn:
    """Samples of a model as tensors on the CPU, and what drawing them cost."""

    x: Tensor
    """In the range of ``Batch.x``; sequences padded at the end."""
    given: dict[str, Tensor]
    """What each was made from."""
    evaluations: float
    """Network evaluations per sample."""
    seconds: float
    """Wall-clock seconds per sample.  The first batch counts like every other: it is what a user waits for."""


class Asked(NamedTuple):
    """Samples number ``first`` … ``first`` + n - 1 of a seed."""

    n: int
    seed: int = 0
    first: int = 0
    given: Mapping[str, Tensor] = {}
    """n rows each; classes that are left out are drawn as often as in the training data."""


@torch.no_grad()
def draw_together(
    model: GenerativeModel, asked: Sequence[Asked], options: Any
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Samples of several seeds in one batch, and what each was made from: the numbers that each would have alone.

    All are given the same fields.  Rows of tokens are as wide as the longest of their own request.
    """
    draws = [Draws(one.seed, one.first) for one in asked]
    parts = [model.requested(one.n, one.given, rows) for one, rows in zip(asked, draws, strict=True)]
    given = {name: _joined([part[name] for part in parts], model.spec.given[name], name) for name in parts[0]}
    counts = [one.n for one in asked]
    joined = draws[0] if len(asked) == 1 else Draws.joined(zip(draws, counts, strict=True))
    x = model.sample(sum(counts), given, options, joined).cpu()
    pieces = [_trimmed(piece, model.spec.target) if len(asked) > 1 else piece for piece in x.split(counts)]
    return [(piece, {name: part[name].cpu() for name in part}) for piece, part in zip(pieces, parts, strict=True)]


def _trimmed(rows: Tensor, field: Any) -> Tensor:
    """Without columns at the end that are padding in every row."""
    if not isinstance(field, Tokens):
        return rows
    used = (rows != field.pad).any(0).nonzero()
    return rows[:, : int(used.max()) + 1 if len(used) else 0]


def draw(
    model: GenerativeModel,
    n: int,
    *,
    seed: int = 0,
    first: int = 0,
    given: Mapping[str, Tensor] | None = None,
    options: Any = None,
    batch_size: int | None = None,
    shown: bool = True,
) -> Drawn:
    """Samples number ``first`` … ``first`` + n - 1 of a seed.

    ``given`` has n rows; classes that are left out are drawn as often as in the training data.  ``options`` are the
    family's own, as an ``Options`` object or a mapping; BowerbirdError for an option that it does not have.
    """
    if n < 1:
        raise BowerbirdError(f"The number of samples must be at least 1, not {n}.")
    options = options if is_dataclass(options) else options_from(model, options)
    at_once = batch_size or at_once_of(model.spec)
    made: list[tuple[Tensor, dict[str, Tensor]]] = []
    with progress_bar("sampling", n, shown) as progress, evaluating(model), counting_evaluations(model) as rows:
        began = time.perf_counter()
        for start in range(0, n, at_once):
            count = min(at_once, n - start)
            part = {name: value[start : start + count] for name, value in (given or {}).items()}
            made += draw_together(model, [Asked(count, seed, first + start, part)], options)
            progress(count)
        seconds = time.perf_counter() - began
    fields = model.spec.given
    together = {name: _joined([part[name] for _, part in made], fields[name], name) for name in made[0][1]}
    return Drawn(_joined([x for x, _ in made], model.spec.target), together, rows[0] / n, seconds / n)


def at_once_of(spec: Spec) -> int:
    """Samples of one batch; of clips as many as have so many frames."""
    if not isinstance(spec.target, Tensors):
        return SEQUENCES_AT_ONCE
    shape = spec.target.shape
    return max(1, PICTURES_AT_ONCE // (shape[1] if len(shape) == 4 else 1))


def _joined(parts: list[Tensor], field: Any, name: str = "") -> Tensor:
    """All rows; rows of tokens are padded to the longest."""
    if not isinstance(field, Tokens) or len(parts) == 1:
        return torch.cat(parts)
    rows = [row for part in parts for row in part]
    pad = NO_TOKEN if name == "prompt" else field.pad
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)


# -------------------------------------------------------------------------------------------------- samples in memory


@dataclass(frozen=True)
class Samples(Sequence[Any]):
    """Samples in memory: ``samples[i]`` is an array of pixels (h, w, c), a text, or a piece of music.

    A notebook shows them; ``save`` writes them with what they were made from.
    """

    x: Tensor
    """As the model made them."""
    given: dict[str, Tensor]
    """What each was made from, as tensors."""
    spec: Spec
    origin: dict[str, Any]
    """Where they come from: run, seed, options."""
    names: list[str] = field(default_factory=list)
    """Names of their files, without suffix; empty: numbered."""
    labeller: Labeller = UNSIGNED
    """Labels their files as generated."""

    @property
    def medium(self) -> Medium:
        return medium(self.spec.medium)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What each was made from and where it comes from, as ``metadata.jsonl`` has it."""
        words = _words(self.spec, self.given)
        return [{name: said[i] for name, said in words.items() if said[i]} | self.origin for i in range(len(self))]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> Any:
        return self.medium.decoded(self.x, self.spec)[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.medium.decoded(self.x, self.spec))

    def save(self, folder: Path | str, *, labelled: bool = True) -> Path:
        """Writes every sample, a sheet, and ``metadata.jsonl``; returns the folder.

        All of it is labelled as generated.  ``labelled`` False leaves the labels out, which ``metadata.jsonl`` says.
        """
        folder = Path(folder)
        names = self.names or [f"{i:05d}" for i in range(len(self))]
        with labelling(self.labeller if labelled else None):
            written = self.medium.write(self.x, self.given, self.spec, folder, names)
        rows = [file | row for file, row in zip(written, self.rows, strict=True)]
        write_lines(folder / METADATA, [self._labelled(row) if labelled else row | {"labelled": False} for row in rows])
        return folder

    def _labelled(self, row: dict[str, Any]) -> dict[str, Any]:
        """A line that holds the sample itself, with its label; a file has its own."""
        return row if "file_name" in row else self.labeller.row(row)

    def files(self) -> list[dict[str, bytes]]:
        """The labelled files of each sample in memory, by suffix: what ``save`` would write, without a folder.

        A picture is ``{".png": …}``, a text ``{".txt": …, ".txt.aigc.json": …}`` (its label lies in a sidecar), a piece
        of music ``{".mid": …, ".wav": …, ".png": …}``.
        """
        with labelling(self.labeller, files=False):
            encoded = self.medium.encoded(self.x, self.given, self.spec)
        parts = ([self.labeller.files(data, suffix) for suffix, data in sample.items()] for sample in encoded)
        return [{suffix: data for part in sample for suffix, data in part.items()} for sample in parts]

    def _repr_html_(self) -> str:
        return self.medium.html(self.x, self.given, self.spec)

    def _repr_png_(self) -> bytes | None:
        with labelling(self.labeller):
            png = self.medium.png(self.x, self.given, self.spec)
        return png and self.labeller.files(png, ".png")[".png"]


def require_own(folder: Path) -> None:
    """BowerbirdError for a folder with files of somebody else; a new or empty one and one of samples may be written."""
    if not folder.is_dir() or _drew(folder / METADATA):
        return
    if strange := next(iter(sorted(folder.iterdir())), None):
        raise BowerbirdError(
            f"{folder} holds files that are no samples ({strange.name}); choose a new or empty folder for --out."
        )


def _drew(metadata: Path) -> bool:
    """Whether a file of metadata is ours, by what its first line says."""
    with suppress(OSError, ValueError):
        return "generated_by" in json.loads(metadata.read_text(encoding="utf-8").partition("\n")[0])
    return False


def _words(spec: Spec, given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What each sample was made from, in words: names of classes, and captions."""
    said: dict[str, list[str]] = {}
    for name, kind in spec.given.items():
        if isinstance(kind, Classes) and name in given:
            said[name] = [(*kind.names, "")[int(number)] for number in given[name]]
        if isinstance(kind, Tokens) and isinstance(spec.target, Tensors) and name in given:
            tokenizer = Tokenizer.from_spec(spec)
            said[name] = [tokenizer.decode(row.tolist()) for row in given[name]]
    return said


def generate(
    model: GenerativeModel,
    n: int,
    *,
    seed: int = 0,
    given: Mapping[str, Tensor] | None = None,
    options: Any = None,
    origin: Mapping[str, Any] | None = None,
    names: list[str] | None = None,
    labeller: Labeller = UNSIGNED,
    batch_size: int | None = None,
) -> Samples:
    """n samples in memory, see ``draw``; ``labeller`` says in their labels what made them."""
    chosen: Any = options if is_dataclass(options) else options_from(model, options)
    drawn = draw(model, n, seed=seed, given=given, options=chosen, batch_size=batch_size)
    about = {**(origin or {}), **drawn_with(seed, chosen)}
    return Samples(drawn.x, drawn.given, model.spec, about, names or [], labeller)


def drawn_with(seed: int, options: Any) -> dict[str, Any]:
    """Seed and options, as far as they are not the defaults: what draws the same samples again."""
    said = {name: value for name, value in asdict(options).items() if value != type(options).__dict__.get(name)}
    return {"seed": seed} | ({"options": said} if said else {})


# ----------------------------------------------------------------------------------------------------------- previews


def previewer(data: Opened, seed: int) -> Callable[[GenerativeModel, Path], None]:
    """The function with which the trainer shows a model's samples."""
    return lambda model, stem: preview(model, data, stem, seed=seed)


def preview(model: GenerativeModel, data: Opened, stem: Path, *, seed: int = 0) -> None:
    """Writes a few samples to files whose names begin with ``stem``.

    What cannot be drawn at random (a sentence or a picture to translate, a caption) is taken from the validation split,
    and the true target is shown beside the sample.
    """
    one = medium(data.spec.medium)
    wanted = [name for name, field in model.spec.given.items() if not isinstance(field, Classes) and name != "prompt"]
    given: dict[str, Tensor] = dict(one.preview_given(model.spec))
    n = len(next(iter(given.values()))) if given else one.n_preview
    beside = {}
    if wanted:
        n = min(n, len(data.val))
        batch = data.val.batch(torch.arange(n))
        given = {name: value[:n] for name, value in batch["given"].items() if name in model.spec.given}
        beside = {} if getattr(data.val, "unpaired", False) else {"truth": batch["x"]}
    drawn = draw(model, n, seed=seed, given=given, shown=False)
    with labelling(Labeller({"data_fingerprint": data.fingerprint})):
        one.preview(drawn.x, drawn.given | beside, model.spec, stem)
