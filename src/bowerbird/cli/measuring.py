"""The command that measures."""

import json as jsonlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from tyro.conf import Positional, Suppress

from bowerbird.cli.command import Command, Switch
from bowerbird.cli.options import chosen, parse_with_options
from bowerbird.cli.printing import heard, only_json, print_columns, print_measurements
from bowerbird.errors import BowerbirdError, RunFailed


@dataclass(frozen=True)
class Measure(Command):
    """Measures runs or folders of images, all under one protocol."""

    targets: Positional[tuple[str, ...]] = ()
    """Run folders, or folders or zips of images."""
    against: str | None = None
    """Reference: a folder of images, or data (default: what the run was trained on)."""
    metrics: tuple[str, ...] | None = None
    """Which metrics (default: all that apply and are cheap)."""
    n_samples: int | None = None
    """How many samples to draw (default: 10,000 images, 200 texts, 20 pieces of music)."""
    n_reference: int | None = None
    """How many reference examples to use (default: all of the split)."""
    extractor: str = "auto"
    """Where features come from: digits, inception-2015, efficientnet-lite0 or dinov2:FILE."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of inception-2015; bf16 is several times faster, and its values compare only with one another."""
    split: str | None = None
    """Which split of the reference data (default: test; of a folder, all of its images)."""
    seed: int = 0
    """Seed of the samples."""
    seeds: int = 1
    """Sample sets of each run, for error bars."""
    pairs: Path | None = None
    """A PNG to write: the samples that look most like copies, each beside its nearest training image."""
    best: Switch = False
    """Of a run trained with --train.evaluate-every: the weights that scored best instead of the last ones."""
    self_test: Switch = False
    """Recompute known constants instead, and fail where one is missed."""
    json: Switch = False
    """Print JSON."""
    options: Suppress[Any] = None

    @classmethod
    def parse(cls, argv: Sequence[str], prog: str) -> Self:
        return parse_with_options(cls, argv, prog)

    def __call__(self) -> None:
        if self.self_test:
            _self_test(self.json)
            return
        if not self.targets:
            raise BowerbirdError("Say what to measure: bowerbird measure RUN|FOLDER …")
        from bowerbird import api

        with heard() as notes, only_json(self.json):
            results = api.measure(
                list(self.targets),
                against=self.against,
                metrics=None if self.metrics is None else list(self.metrics),
                n_samples=self.n_samples,
                n_reference=self.n_reference,
                extractor=self.extractor,
                precision=self.precision,
                split=self.split,
                seed=self.seed,
                seeds=self.seeds,
                pairs=self.pairs,
                best=self.best,
                options=chosen(self.options),
            )
        print_measurements(results, notes, self.json)


def _self_test(json: bool) -> None:
    from bowerbird import api

    with only_json(json):
        checks, missing = api.self_test()
    failed = [check for check in checks if not check.passed]
    if json:
        print(
            jsonlib.dumps({"passed": not failed, "checks": [c.to_json() for c in checks], "missing": missing}, indent=2)
        )
    else:
        print_columns([["ok" if c.passed else "FAILED", f"{c.found:.6g}", f"{c.expected:.6g}", c.name] for c in checks])
        print(*missing, sep="\n", end="\n" if missing else "")
    if failed:
        raise RunFailed(f"{len(failed)} of {len(checks)} checks failed, the first: {failed[0].name}.")
