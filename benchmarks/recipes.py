"""Trains recipes that state what to expect, measures them, and says which claims hold.  ``make recipes``.

    python benchmarks/recipes.py [NAME …] [--out runs/recipes] [--start RUN]

A recipe whose model has a part that another run trains (distillation: a run of flow) needs --start.  A finished run in
the output folder is measured again without training.  Exit status 1 when a claim fails.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from bowerbird import api, config
from bowerbird.errors import BowerbirdError
from bowerbird.training.rundir import RunDir


def check(name: str, out: Path, start: str) -> bool:
    """Trains one recipe (or continues it) and compares every claim with its measurement."""
    run, folder = config.load(name), out / name
    run = replace(run, train=replace(run.train, start=start or run.train.start))
    if (folder / "run.toml").exists():
        api.resume(folder)
    else:
        api.train(run, folder)
    minutes = RunDir(folder).status()["seconds"] / 60
    holds = True
    for claim in run.expect:
        found = api.measure(
            [str(folder)], metrics=[claim.metric], extractor=claim.extractor, split=claim.split,
            n_samples=claim.n_samples, n_reference=claim.n_reference,
        )[str(folder)]  # fmt: skip
        (measurement,) = (one for one in found if one.name == claim.metric)
        met = claim.met_by(measurement.value)
        bound = f"≤ {claim.at_most:g}" if claim.at_most is not None else f"≥ {claim.at_least:g}"
        verdict = "holds" if met else "FAILS"
        print(f"{name}: {claim.metric} = {measurement.value:.4g}, claimed {bound}: {verdict} ({minutes:.1f} minutes)")
        holds &= met
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="recipes (default: all that state what to expect)")
    parser.add_argument("--start", default="", help="run folder from which the named recipes begin")
    parser.add_argument("--out", type=Path, default=Path("runs/recipes"))
    arguments = parser.parse_args()
    names = arguments.names or [name for name in config.recipe_names() if config.load(name).expect]
    verdicts = []
    for name in names:
        try:
            verdicts.append(check(name, arguments.out, arguments.start if arguments.names else ""))
        except BowerbirdError as error:
            print(f"{name}: {error}")
            verdicts.append(False)
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
