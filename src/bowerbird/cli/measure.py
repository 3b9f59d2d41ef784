"""The command that measures."""

import json as jsonlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self

from tyro.conf import Fixed, FlagCreatePairsOff, Positional, Suppress, arg

from bowerbird import registry
from bowerbird.cli.command import Command, Switch
from bowerbird.cli.options import chosen, parse_with_options
from bowerbird.cli.printing import heard, only_json, print_columns, print_measurements
from bowerbird.errors import BowerbirdError, RunFailed
from bowerbird.measuring.request import Measuring


@dataclass(frozen=True)
class MeasuringFlags(Measuring):
    """The request without the sampling options, which have flags of their own."""

    options: Annotated[Mapping[str, Any], Fixed, Suppress] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Measure(Command):
    """Measures runs or folders of images, all under one protocol."""

    targets: Positional[tuple[str, ...]] = ()
    """Run folders, or folders or zips of images."""
    request: Annotated[MeasuringFlags, arg(name=""), FlagCreatePairsOff] = MeasuringFlags()
    plugin: Path | None = None
    """A Python file that registers metrics of your own."""
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

        if self.plugin is not None:
            registry.load_plugin(self.plugin)
        with heard() as notes, only_json(self.json):
            results = api.measure(list(self.targets), self.request.but(options=chosen(self.options)))
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
