"""The child that looks at a data source before anything is trained: what it holds, what suits it, what that costs.

    python -m bowerbird.studio.looking SOURCE [RECIPE [BUDGET]]

Answers with one JSON object on standard output.  Exit status as of the command line, with one sentence.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.media import open_data
from bowerbird.spec import Spec, Tensors, Tokens
from bowerbird.training.budget import only, parse_budget
from bowerbird.training.resolving import resolved
from bowerbird.training.rundir import RunDir
from bowerbird.training.trainer import Trainer


def recipes_for(spec: Spec) -> list[str]:
    """The recipes that suit such data, the best first choice in front."""
    if isinstance(spec.target, Tensors):
        return ["flow", "gan", "vae", "diffusion"]
    if isinstance(spec.given.get("source"), Tokens):
        return ["translator"]
    return {"music": ["chorales"], "text": ["shakespeare", "poet"]}.get(spec.medium, ["shakespeare"])


def run_for(recipe: str, source: str, budget: str | None) -> config.Run:
    """The recipe on these data; what it says of its own data does not apply to others."""
    run = config.load(recipe)
    if source != run.data.source:
        run = replace(run, data=config.Data(source=source))
    return replace(run, train=replace(run.train, **only(parse_budget(budget)))) if budget else run


def looked_at(source: str, recipe: str | None = None, budget: str | None = None) -> dict[str, Any]:
    """What is there and what training on it costs; BowerbirdError if nothing can be made of it."""
    data = open_data(
        config.load(recipe).data if recipe and config.load(recipe).data.source == source else config.Data(source=source)
    )
    fitting = recipes_for(data.spec)
    chosen = recipe or fitting[0]
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(resolved(run_for(chosen, source, budget)), RunDir(Path(folder)), data, quiet=True)
    return {
        "summary": data.summary(),
        "medium": data.spec.medium,
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
