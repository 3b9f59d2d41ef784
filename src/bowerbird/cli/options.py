"""Flags that a family adds: the fields of the sampling options of the runs that a command names."""

import dataclasses
import os
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from tyro.conf import Suppress, arg

from bowerbird.cli.flags import parse_flags, together
from bowerbird.errors import BowerbirdError
from bowerbird.shipped import folder_of

C = TypeVar("C")


def parse_with_options(command: type[C], argv: Sequence[str], prog: str) -> C:
    """The command with its own flags and those of the runs among its arguments; without a run, only its own.

    Inputs that the runs do not take are left out of the help.
    """
    argv = together("--given", argv)
    words = [word for word in argv if not word.startswith("-")]
    runs = [word for word in words if os.path.isfile(folder_of(word) / "model.safetensors")]  # False for long prompts
    if not runs:
        return _parse_without_run(command, argv, prog)
    from bowerbird import api

    options = _together([api.options_of(run) for run in runs])
    shown = _flags_for([field for run in runs for field in api.inputs_of(run).items()])
    return extended(command, options, shown, argv, prog)


def parse_action(command: type[C], argv: Sequence[str], prog: str) -> C:
    """The command, of which the first two words are a run and an action, with the options of that action as flags."""
    argv = together("--given", argv)
    names = [word for word in argv[:2] if not word.startswith("-")]
    if len(names) < 2 or not os.path.isfile(folder_of(names[0]) / "model.safetensors"):
        return _parse_without_run(command, argv, prog)
    from bowerbird import api, registry

    action: Any = registry.actions.get(names[1])
    return extended(command, action, _flags_for([*api.inputs_of(names[0]).items()]) | {*action.takes}, argv, prog)


def extended(command: type[C], options: type, shown: set[str], argv: Sequence[str], prog: str) -> C:
    """The command with flags for ``options`` too; ``INPUTS`` that are not ``shown`` are left out of its help."""
    fields: list[Any] = [("options", Annotated[options, arg(name="")], dataclasses.field(default=options()))]
    hidden: Any = Suppress
    hints = typing.get_type_hints(command, include_extras=True)
    fields += [
        (field.name, hidden[hints[field.name]], field)
        for field in dataclasses.fields(command)  # type: ignore[arg-type]
        if field.name in INPUTS and field.name not in shown and not any(w.startswith(f"--{field.name}") for w in argv)
    ]
    longer: Any = dataclasses.make_dataclass(command.__name__, fields, bases=(command,), frozen=True, kw_only=True)
    longer.__doc__ = command.__doc__
    return parse_flags(longer, argv, prog)


def _parse_without_run(command: type[C], argv: Sequence[str], prog: str) -> C:
    """The command's own flags; if there is no run, the error says that this is why a flag is unknown."""
    try:
        return parse_flags(command, argv, prog)
    except BowerbirdError as error:
        named = next((word for word in argv if not word.startswith("-")), None)
        needs_run = any(field.name == "run" for field in dataclasses.fields(command))  # type: ignore[arg-type]
        if named is None or not needs_run or "There is no flag" not in str(error):
            raise
        raise BowerbirdError(f"{named} is not a run folder with a model in it, so its options are unknown.") from None


INPUTS = ("label", "prompt", "given", "source", "mask")
"""Flags for what samples are made from."""


def _flags_for(inputs: list[tuple[str, Any]]) -> set[str]:
    """Which of ``INPUTS`` apply to these fields of a spec."""
    kinds = {type(field).__name__ for _, field in inputs}
    names = {name for name, _ in inputs}
    found = {"label"} & names
    found |= {"prompt"} if "Tokens" in kinds else set()
    found |= {"source"} if "Tensors" in kinds else set()
    return found | ({"given"} if names - {"prompt", "source", "label"} else set())


def _together(kinds: list[type]) -> type:
    """A dataclass with the fields of all of these."""
    distinct = list(dict.fromkeys(kinds))
    leaves = [kind for kind in distinct if not any(other is not kind and issubclass(other, kind) for other in distinct)]
    if len(leaves) == 1:
        return leaves[0]
    return dataclasses.make_dataclass("Options", [], bases=tuple(leaves), frozen=True)


def chosen(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults, that is, those that were given."""
    if options is None:
        return {}
    usual = type(options)()
    names = [field.name for field in dataclasses.fields(options)]
    return {name: getattr(options, name) for name in names if getattr(options, name) != getattr(usual, name)}
