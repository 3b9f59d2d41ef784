"""Completes unseen pictures and asks a classifier what they show: python benchmarks/completing.py RUN.

    python benchmarks/completing.py emoji-text --box 16 16 48 48 [--sheet completed.png]

The middle of test pictures is hidden and made anew by the action inpaint, once told nothing, and once told what is
given with each picture (a caption, a style). The classifier of attributes learns from the training pictures and
judges the real test pictures, those with a grey box, and the completed ones. In brackets: how many points fewer or
more than of the real ones, with the standard error of the difference over the same pictures. The mean difference is
to the truth, of values in [-1, 1].
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

import bowerbird
from bowerbird.data.tokenizers import Tokenizer
from bowerbird.eightbit import to_uint8
from bowerbird.media import open_data
from bowerbird.media.image.pictures import sheet
from bowerbird.metrics.attributes import AttributeNet, fit_attributes, right
from bowerbird.metrics.averages import mean
from bowerbird.spec import Classes, Spec, Tokens
from bowerbird.training.rundir import RunDir

GREY = 128


def spoken(spec: Spec, given: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """What is given with each picture, in words."""
    said = {}
    for name, field in spec.given.items():
        if isinstance(field, Classes):
            said[name] = [field.names[number] for number in given[name].tolist()]
        if isinstance(field, Tokens):
            decode = Tokenizer.from_spec(spec).decode
            said[name] = [decode(row) for row in given[name].tolist()]
    return said


def report(judge: AttributeNet, sides: Mapping[str, Tensor], truth: Tensor, given: Mapping[str, Tensor]) -> None:
    """Of each side the share that shows each attribute, and how far it is from the truth."""
    names = list(judge.heads)
    real = right(judge, truth, given)
    print(f"| | {' | '.join(names)} | mean difference |\n|{'---|' * (len(names) + 2)}")
    for side, pictures in sides.items():
        found = right(judge, pictures, given)
        shares = [f"{said(found[name], '{:.1%}')} ({said(found[name] - real[name], '{:+.1%}')})" for name in names]
        print(f"| {side} | {' | '.join(shares)} | {(pictures.float() - truth.float()).abs().mean() / 127.5:.4f} |")


def said(of_each: Tensor, form: str) -> str:
    """The mean and its standard error."""
    value, stderr = mean(of_each.numpy())
    return f"{form.format(value)} ± {stderr:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--box", type=int, nargs=4, default=[16, 16, 48, 48])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--sheet", type=Path)
    a = parser.parse_args()
    torch.set_num_threads(1)
    data = open_data(RunDir.open(Path(a.run)).config().data)
    rows = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(0))[: a.n]
    truth, given = data.test.images[rows], {name: value[rows] for name, value in data.test.given.items()}
    source = [x.permute(1, 2, 0).numpy() for x in truth]
    options = {"box": a.box, "guidance": a.guidance}
    made = {
        f"completed, told {what}": to_uint8(
            bowerbird.edit(a.run, "inpaint", source=source, given=words, options=options).x
        )
        for what, words in (("nothing", {}), ("all", spoken(data.spec, given)))
    }
    left, top, beyond, below = a.box
    inside = torch.zeros(truth.shape[2:], dtype=torch.bool)
    inside[top:below, left:beyond] = True
    for side, x in made.items():
        print(f"{side}: known pixels are as they were:", torch.equal(x[..., ~inside], truth[..., ~inside]))
    hidden = truth.masked_fill(inside, GREY)
    classes = {name: field.names for name, field in data.spec.given.items() if isinstance(field, Classes)}
    train = {name: data.train.given[name] for name in classes}
    judge = fit_attributes(data.train.images, train, classes)
    report(judge, {"the real ones": truth, "a grey box": hidden} | made, truth, given)
    if a.sheet:
        sheet(torch.cat([hidden, *made.values(), truth], 3)[:32], 4, scale=1).save(a.sheet)


if __name__ == "__main__":
    main()
