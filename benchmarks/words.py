"""Measures a run that draws from captions, and shows it beside the truth and beside copying.

    python benchmarks/words.py RUN [--n 200] [--steps 20] [--guidance 2] [--sheet words.png]

Three things draw what is asked for: the run; "same words", which copies the training picture of the nearest caption in
whatever style it has; "same style", which copies that of the nearest caption in the style asked for: another thing.
They are compared on combinations of caption and style that training never saw, and the run also on those that it saw.
Retrieval is that of the metric ``caption_retrieval``, L1 and SSIM are to the truth, and "copied" is the share that lies
less than a third as far from one training picture as from any other, in pixels of 16×16.

The sheet has 40 captions, half of unseen combinations: the run's picture, the truth, the nearest training picture.
"""

import argparse
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from bowerbird import api
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.eightbit import to_uint8
from bowerbird.generating import draw
from bowerbird.measuring.shipped.obedience import matcher_of
from bowerbird.media import open_data
from bowerbird.media.image.imageset import ImageSet
from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.matcher import Captioned, Matcher, nearest_captions, retrieved
from bowerbird.metrics.neighbours import copies, nearest
from bowerbird.metrics.pixelwise import ssim
from bowerbird.metrics.truth import l1
from bowerbird.spec import Classes, Spec, Tokens
from bowerbird.training.rundir import RunDir

ON_SHEET, COLUMNS, LONGEST = 40, 5, 30


class Known(NamedTuple):
    """What samples are judged by."""

    train: ImageSet
    spec: Spec
    name: str
    """The field that is the caption."""
    matcher: Matcher

    @property
    def field(self) -> Tokens:
        field = self.spec.given[self.name]
        assert isinstance(field, Tokens)
        return field

    def words(self, given: Mapping[str, Tensor]) -> list[str]:
        """Each caption with its classes."""
        tokenizer = Tokenizer.from_spec(self.spec)
        kept = [(name, field) for name, field in self.spec.given.items() if isinstance(field, Classes)]
        return [
            " · ".join(
                [tokenizer.decode(given[self.name][i].tolist()), *(f.names[int(given[k][i])] for k, f in kept[:1])]
            )
            for i in range(len(given[self.name]))
        ]


def copied_pictures(known: Known, given: Mapping[str, Tensor], *, same_classes: bool) -> Tensor:
    """The training picture of the nearest caption; of ``same_classes`` only among those with the classes asked for."""
    captions, field, classes = known.train.given[known.name], known.field, _classes(known, given)
    if not same_classes:
        return known.train.images[nearest_captions(given[known.name], captions, field.vocab_size, field.pad)]
    theirs = _classes(known, known.train.given)
    made = torch.empty(len(classes), *known.train.images.shape[1:], dtype=torch.uint8)
    for one in classes.unique(dim=0):
        mine, rows = (classes == one).all(1), (theirs == one).all(1).nonzero()[:, 0]
        near = nearest_captions(given[known.name][mine], captions[rows], field.vocab_size, field.pad)
        made[mine] = known.train.images[rows[near]]
    return made


def _classes(known: Known, given: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([given[name] for name, field in known.spec.given.items() if isinstance(field, Classes)], 1)


def figures(known: Known, made: Tensor, truth: Tensor, given: Mapping[str, Tensor]) -> str:
    """One row of the table."""
    right = retrieved(known.matcher, made, given[known.name]).mean()
    copied = copies(samples=small(made), training=small(known.train.images)).double().mean()
    distance, likeness = l1(made, truth)[0], float(ssim(truth, made).mean())
    return f"{right:.1%} | {distance:.4f} | {likeness:.4f} | {copied:.1%}"


def small(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images.float(), 16).flatten(1)


def in_threes(known: Known, made: Tensor, truth: Tensor, words: list[str]) -> Image.Image:
    """The run's picture, the truth and the training picture that is nearest to the run's, side by side."""
    beside = known.train.images[nearest(queries=small(made), points=small(known.train.images))[1]]
    return sheet(torch.cat([made, truth, beside], 3), COLUMNS, [plain(one)[:LONGEST] for one in words], scale=1)


def plain(words: str) -> str:
    """Without accents, for which the sheet's letters have no glyphs."""
    return "".join(one for one in unicodedata.normalize("NFKD", words) if not unicodedata.combining(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=200, help="combinations of each kind")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--sheet", type=Path)
    a = parser.parse_args()
    model, data = api.load(a.run), open_data(RunDir.open(Path(a.run)).config().data)
    name = next(key for key, field in data.spec.given.items() if isinstance(field, Tokens))
    field = data.spec.given[name]
    pairs = Captioned(data.train.images, data.train.wordings.get(name, data.train.given[name][:, None]))
    assert isinstance(field, Tokens)
    known = Known(data.train, data.spec, name, matcher_of(pairs, field, data.fingerprint))
    shown: list[tuple[Tensor, Tensor, list[str]]] = []
    print("| what draws | combinations | retrieval | L1 | SSIM | copied |\n|---|---|---|---|---|---|")
    for kind, real in (("unseen", data.test), ("seen", data.train)):
        rows = torch.randperm(len(real), generator=torch.Generator().manual_seed(0))[: a.n]
        truth, given = real.images[rows], {key: value[rows] for key, value in real.given.items()}
        drawn = draw(model, len(rows), given=given, options={"steps": a.steps, "guidance": a.guidance})
        made = to_uint8(drawn.x)
        by = {"the run": made, "the truth": truth}
        if kind == "unseen":
            by |= {f"copying, same {what}": copied_pictures(known, given, same_classes=what == "style")
                   for what in ("words", "style")}  # fmt: skip
        for who, pictures in by.items():
            print(f"| {who} | {kind} | {figures(known, pictures, truth, given)} |", flush=True)
        shown.append((made[: ON_SHEET // 2], truth[: ON_SHEET // 2], known.words(given)[: ON_SHEET // 2]))
    if a.sheet:
        (one, true_one, said), (other, true_other, also) = shown
        in_threes(known, torch.cat([one, other]), torch.cat([true_one, true_other]), said + also).save(a.sheet)


if __name__ == "__main__":
    main()
