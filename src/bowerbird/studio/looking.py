"""The child that looks at a data source before anything is trained: what it holds, what suits it, what that costs.

    python -m bowerbird.studio.looking SOURCE [RECIPE [BUDGET]]

Answers with one JSON object on standard output.  Exit status as of the command line, with one sentence.
"""

import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.spec import Classes, Spec, Tensors, Tokens
from bowerbird.training.budget import only, parse_budget
from bowerbird.training.resolving import resolved
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer

PAIRS = "emoji-3d"
"""The recipe of pairs of pictures, whatever they show."""
MOST_COMPARED = 64
CHANCE = 3.5


def recipes_for(spec: Spec) -> list[str]:
    """The recipes that suit such data, the best first choice in front."""
    if isinstance(spec.given.get("source"), Tensors):
        return [PAIRS, "flow", "gan", "vae", "diffusion"]
    if isinstance(spec.target, Tensors):
        return ["flow", "gan", "vae", "diffusion"]
    if isinstance(spec.given.get("source"), Tokens):
        return ["translator"]
    return {"music": ["chorales"], "text": ["shakespeare", "poet"]}.get(spec.medium, ["shakespeare"])


def run_for(recipe: str, data: config.Data, budget: str | None) -> config.Run:
    """The recipe on these data; what it says of its own data does not apply to others."""
    run = config.load(recipe)
    if data.source != run.data.source:
        run = replace(run, data=data)
    return replace(run, train=replace(run.train, **only(parse_budget(budget)))) if budget else run


def pairs_in(data: Any, source: str) -> tuple[config.Data, Any] | None:
    """The same pictures as pairs: two folders with the same file names, whose pictures of one name are alike."""
    label = data.spec.given.get("label")
    if data.spec.medium != "image" or not isinstance(label, Classes) or len(label.names) != 2:
        return None
    settings = config.Data(source=source, from_=label.names[0], to=label.names[1])
    try:
        paired = open_data(settings)
    except BowerbirdError:  # the names are not those of folders, or nothing goes together
        return None
    train: Any = paired.train
    complete = 2 * _size(paired) == _size(data)
    return (settings, paired) if complete and resemble(train.given["source"], train.images) else None


def _size(data: Any) -> int:
    return len(data.train) + len(data.val) + len(data.test)


def resemble(sources: Tensor, targets: Tensor) -> bool:
    """Whether pictures, uint8 (n, c, h, w), are more like their own counterparts than like the next ones.

    Files of two classes that are merely numbered alike are not.  Alike are colours or outlines; the difference counts
    beyond ``CHANCE`` standard deviations of tossed coins.
    """
    n = min(len(sources), len(targets), MOST_COMPARED)
    return any(
        (_correlation(a, b) > _correlation(a, b.roll(1, 0))).sum() - n / 2 > CHANCE * math.sqrt(n) / 2
        for a, b in ((look(sources[:n]), look(targets[:n])) for look in (_colours, _outlines))
    )


def _colours(x: Tensor) -> Tensor:
    return x.float().mean(1)


def _outlines(x: Tensor) -> Tensor:
    grey = _colours(x)
    return (grey[:, 1:, 1:] - grey[:, :-1, 1:]).abs() + (grey[:, 1:, 1:] - grey[:, 1:, :-1]).abs()


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of each picture with its counterpart; its size counts, not its sign: a negative resembles too."""
    a, b = (one.flatten(1) - one.flatten(1).mean(1, keepdim=True) for one in (a, b))
    return torch.nn.functional.cosine_similarity(a, b).abs()


def looked_at(source: str, recipe: str | None = None, budget: str | None = None) -> dict[str, Any]:
    """What is there and what training on it costs; BowerbirdError if nothing can be made of it."""
    own = recipe is not None and config.load(recipe).data.source == source
    settings = config.load(recipe).data if own and recipe else config.Data(source=source)
    data = open_data(settings)
    if not own and (pairs := pairs_in(data, source)):
        settings, data = pairs
    fitting = recipes_for(data.spec)
    chosen = recipe or fitting[0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(resolved(run_for(chosen, settings, budget)), RunDir(Path(folder)), data, quiet=True)
    return {
        "summary": data.summary(),
        "medium": data.spec.medium,
        "styles": [] if own or not settings.from_ else [settings.from_, settings.to],
        "recipe": chosen,
        "recipes": fitting if chosen in fitting else [chosen, *fitting],
        "cost": trainer.estimate(),
        "seconds_per_step": trainer.cost.seconds_per_step,
        "parameters": trainer.cost.parameters,
        "memory": trainer.cost.memory,
    }


def main(words: list[str]) -> int:
    try:
        print(json.dumps(looked_at(*words)))
    except BowerbirdError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
