"""Words to dataclasses with tyro, and tyro's boxed errors to one sentence each."""

import contextlib
import dataclasses
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from bowerbird import ranges
from bowerbird.errors import BowerbirdError, nearest

T = TypeVar("T")

_VALUES = ConstructorRegistry()


@_VALUES.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """``T | None`` on the command line is written as T is, or as the word none."""
    if info.type_origin not in (Union, UnionType) or NoneType not in (options := get_args(info.type)):
        return None
    (inner,) = [option for option in options if option is not NoneType]
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(inner, info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        instance_from_str=lambda words: None if words in (["none"], ["None"]) else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
        choices=(*spec.choices, "none") if spec.choices else None,
    )


def parse_flags(command: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """The command with its flags; an error is one sentence instead of tyro's box."""
    argv = _once(argv, command, prog, default)
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            parsed, left = _tyro(command, argv, prog, default)
            ranges.check(parsed, "--")
    except SystemExit as stop:
        if not stop.code:
            raise
        raise BowerbirdError(f"{_sentence(box.getvalue())}; see {prog} --help.") from None
    except ValueError as error:  # of a dataclass of flags that looks at its values
        raise BowerbirdError(str(error)) from error
    if left:
        wrong = next((word.partition("=")[0] for word in left if word.startswith("-")), None)
        if wrong is None:
            takes_data = os.path.exists(left[0]) and "--data" in flags_of(command, prog, default)
            hint = f"for data write --data {left[0]}." if takes_data else f"see {prog} --help."
            raise BowerbirdError(f"Unexpected argument '{left[0]}'; {hint}")
        near = "bowerbird resume RUN" if wrong == "--resume" else nearest(wrong, flags_of(command, prog, default))
        hint = f"did you mean {near}?" if near is not None else f"see {prog} --help."
        raise BowerbirdError(f"There is no flag {wrong}; {hint}")
    return parsed


def _once(argv: Sequence[str], command: type, prog: str, default: Any) -> list[str]:
    """The words, where a list's flags are joined into one; BowerbirdError for another flag that is given twice."""
    flags = Counter(word.partition("=")[0] for word in argv if re.match(r"--?[a-z][\w.-]*(=|$)", word))
    for flag in [flag for flag, n in flags.items() if n > 1]:
        if not re.search(rf"{re.escape(flag)} \[", _help(command, prog, default)):
            raise BowerbirdError(f"{flag} is given twice; give it once.")
        argv = together(flag, argv)
    return list(argv)


def together(flag: str, argv: Sequence[str]) -> list[str]:
    """Several ``flag A``, ``flag B`` as one ``flag A B``, which is what a flag of several values takes."""
    values: list[str] = []
    others: list[str] = []
    taking = False
    for word in argv:
        taking = word == flag or word.startswith(f"{flag}=") or (taking and not word.startswith("-"))
        if not taking:
            others.append(word)
        elif word != flag:
            values.append(word.removeprefix(f"{flag}="))
    return [*others, flag, *values] if values else list(argv)


def _tyro(command: type[T], argv: Sequence[str], prog: str, default: T | None) -> tuple[T, list[str]]:
    return tyro.cli(
        command,
        prog=prog,
        args=argv,
        default=tyro.MISSING_NONPROP if default is None else default,
        registry=_VALUES,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
        return_unknown_args=True,
    )


def flags_of(command: type, prog: str, default: Any = None) -> list[str]:
    """Every flag of a command, read from its help."""
    found = re.findall(r"(?<![\w-])--[a-z][\w.-]*", _help(command, prog, default))
    return [flag for flag in dict.fromkeys(found) if flag != "--help"]


def _help(command: type, prog: str, default: Any) -> str:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _tyro(command, ["--help"], prog, default)
    return text.getvalue()


_WORDING = (
    (r" Got errors:.*", ""),
    (r"Error parsing (--\S+): ", r"\1: "),
    (r"Error parsing [^-\s]\S*: ", ""),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (r"invalid choice (.*) for argument '(.*)'\. Expected one of \((.*)\)", r"\2 cannot be \1, only one of \3"),
    (r"Missing value for argument '(.*)'\. Expected (\d+) values", r"\1 needs \2 value(s)"),
    (r"(--\S+): Failed to parse key-value pairs", r"\1: write names and numbers in turn, such as \1 D 2 G 1"),
    (r"Missing from [^:]*: (\S+).*", r"\1 is missing"),
)


def _sentence(box: str) -> str:
    """The first paragraph of tyro's boxed error, in our words."""
    lines = [line.strip(" │|") for line in re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()]
    rules = [i for i, line in enumerate(lines) if line.startswith(("─", "╭", "╰", "+-", "---"))] or [-1, len(lines)]
    said = " ".join(lines[rules[0] + 1 : rules[1]])
    for pattern, wording in _WORDING:
        said = re.sub(pattern, wording, said)
    return said.strip().rstrip(".!")


def value_of(flag: str, argv: Sequence[str]) -> str | None:
    """The value of one flag before the real parsing, which depends on it."""
    for i, word in enumerate(argv):
        if word == flag and i + 1 < len(argv):
            return argv[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None
