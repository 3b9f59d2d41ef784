"""Flags that a family brings along: the fields of the sampling options of the runs that a command names."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from tyro.conf import arg

from bowerbird.cli.flags import parse_flags

C = TypeVar("C")


def parse_with_options(command: type[C], argv: Sequence[str], prog: str) -> C:
    """The command with its flags and those of the runs among its words; without a run it has only its own."""
    runs = [Path(word) for word in argv if not word.startswith("-") and (Path(word) / "run.toml").is_file()]
    if not runs:
        return parse_flags(command, argv, prog)
    from bowerbird import api

    kinds = list(dict.fromkeys(api.options_of(run) for run in runs))
    leaves = [kind for kind in kinds if not any(other is not kind and issubclass(other, kind) for other in kinds)]
    together = (
        leaves[0] if len(leaves) == 1 else dataclasses.make_dataclass("Options", [], bases=tuple(leaves), frozen=True)
    )
    field = ("options", Annotated[together, arg(name="")], dataclasses.field(default=together()))
    extended: Any = dataclasses.make_dataclass(command.__name__, [field], bases=(command,), frozen=True, kw_only=True)
    extended.__doc__ = command.__doc__
    return parse_flags(extended, argv, prog)


def chosen(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults: those that were given."""
    if options is None:
        return {}
    usual = type(options)()
    names = [field.name for field in dataclasses.fields(options)]
    return {name: getattr(options, name) for name in names if getattr(options, name) != getattr(usual, name)}
