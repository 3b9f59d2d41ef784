"""Arguments for constructors that a program never calls, and the objects that come of them.

Values that belong together are made to fit: the width of a head to the width of the model, the ends of a noise
schedule to each other.  A constructor that fails says what it misses.
"""

import collections.abc
import contextlib
import dataclasses
import enum
import inspect
import itertools
import re
import traceback
import types
import typing
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from bowerbird.reading.running.guesses import Guesses
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.standins.anything import Anything
from bowerbird.reading.running.standins.modules import StandInNet
from bowerbird.reading.running.uses import Use, uses

MOST_MENDED = 6
MOST_NESTED = 2
MOST_WIDTH = 64
_TURNED: set[str] = set()
"""Switches that were turned, once each."""
_PREDICTORS = ("model", "net", "network", "unet", "denoise_fn", "eps_model", "backbone", "nn_model", "denoiser")
_NETWORKS = ("unet", "denoiser", "epsnet", "noisepredictor", "unet2d", "generator", "transformer", "net", "model")
_NOISE_ENDS = re.compile(r"beta_?(t|end|max|2)$|^b2$", re.I)
_STEPS = re.compile(r"^(T|n_?T|(num_|n_)?(time_?steps|diffusion_steps|noise_steps|steps))$")
_ENTERED = re.compile(r"(?:\bin |\b(?:len|enumerate|zip|list|tuple)[(]|[*])(?:\w+\.)*(\w+)|(\w+)\[")
"""What a line goes into as into a list."""
_WIDE = re.compile(r"ch(annels?)?$|dim|width|feat|filter|hidden|planes", re.I)


def module_for(
    name: str, guesses: Guesses, depth: int = 0, kind: type[nn.Module] | None = None, but: type | None = None
) -> nn.Module:  # fmt: skip
    """A module for an argument that takes one: of its kind, or of the class whose name fits best."""
    kinds = [k for k in guesses.live.classes().values() if issubclass(k, nn.Module) and k is not but]
    plain = name.lower().replace("_", "")
    hints = ({"d": "discriminator", "g": "generator"}.get(plain, plain), *_NETWORKS)
    best = kind or next((k for hint in hints for k in kinds if hint in k.__name__.lower()), None)
    if best is None or depth > 1:
        return StandInNet() if name.lower() in _PREDICTORS else nn.Identity()
    for arguments in candidates(best, guesses, depth + 1):
        try:
            return best(**arguments)
        except Exception:  # the user's constructor, given guesses: others follow
            continue
    return StandInNet()


def said(value: Any) -> str:
    """How a stand-in is told of."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return type(value).__name__ if isinstance(value, nn.Module | fragments.Options) else repr(value)


def built(kind: type, guesses: Guesses, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """An object of a class and the arguments that it took in the end, those among them that its constructor was found
    to miss; raises its last failure."""
    arguments = dict(arguments)
    for _ in range(MOST_MENDED):
        try:
            torch.manual_seed(0)
            return kind(**arguments), arguments
        except Exception as error:  # the user's constructor, given guesses
            if not (mended(error) or missed(kind, error, arguments, guesses) or _told(error, arguments)):
                raise
    return kind(**arguments), arguments


def mended(error: Exception) -> bool:
    """Changes what was made up so that this failure does not come again, where it is clear how: a setting becomes a
    group of settings, a network that stands for another gets the method that is called, of two switches that an
    assertion compares one is turned."""
    thing = error.obj if isinstance(error, AttributeError) else None
    if type(thing) in (StandInNet, nn.Identity) and not error.name.startswith("__"):  # type: ignore[attr-defined]
        vars(thing)[error.name] = partial(_passed_on, thing)  # type: ignore[attr-defined, arg-type]
        return True
    words = set(re.findall(r"\w+", last_line(error))) if isinstance(error, AssertionError) else set[str]()
    switches = [(options, name) for options, name, value in fragments.Options.given if isinstance(value, bool)]
    for options, name in switches:
        if name in words and name not in _TURNED:
            _TURNED.add(name)
            setattr(options, name, not getattr(options, name))
            fragments.Options.project[name] = getattr(options, name)
            return True
    return fragments.Options.mend(error)


def _passed_on(network: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """What a method that a stand-in lacks answers: what its call does, itself where it is given nothing."""
    return network(*args, **kwargs) if args else network


def missed(called: Any, error: Exception, arguments: dict[str, Any], guesses: Guesses) -> bool:
    """Adds what something further up misses, where a function or class hands on what it is given by name."""
    names = re.findall(r"'(\w+)'", str(error).partition("missing")[2]) if isinstance(error, TypeError) else []
    taken = inspect.signature(called).parameters.values()
    above = {k.__name__ for k in getattr(called, "__mro__", ())}
    own = not above or str(error).partition(".__init__")[0] in above
    if own and any(p.kind is p.VAR_KEYWORD for p in taken) and not set(names) <= set(arguments):
        arguments.update({name: _of_base(called, name, guesses) for name in names})
        return True
    groups = [v for v in arguments.values() if isinstance(v, fragments.Options)]
    groups += [v for _, _, v in fragments.Options.given[-20:] if isinstance(v, fragments.Options)]
    groups = [group for group in groups if not set(names) <= set(group.keys())] if names else []
    for group in groups:
        group.add(names)
    return bool(groups)


def _of_base(called: Any, name: str, guesses: Guesses) -> Any:
    """A value for a parameter of the class above whose constructor has it."""
    for kind in getattr(called, "__mro__", ())[1:]:
        parameter = inspect.signature(kind).parameters.get(name) if kind is not object else None
        if parameter is not None:
            return guesses.of_constructor(
                parameter, uses(kind).get(name, Use()), lambda n, _=None: module_for(n, guesses)
            )
    return fragments.setting(name)


def _told(error: Exception, arguments: dict[str, Any]) -> bool:
    """Makes a list of what was taken for one, numbers larger of which one was refused because another does not divide
    it, and something of what a failure names that settings leave open; whether there was any."""
    words = set(re.findall(r"\w+", str(error)))
    for record in (v for v in arguments.values() if dataclasses.is_dataclass(v) and not isinstance(v, type)):
        for part in (f for f in dataclasses.fields(record) if f.name in words and getattr(record, f.name) is None):
            shape = "uple" in str(part.type) and re.search("shape|size|dim", part.name)
            setattr(record, part.name, (1, 28, 28) if shape else fragments.setting(part.name))
            return True
    if re.search(r"'(int|float|bool)' (object )?is not (iterable|subscriptable)|'int' has no len", str(error)):
        named = {
            a or b
            for a, b in re.findall(
                r"(?:\bin |\b(?:len|enumerate|zip|list|tuple)[(]|[*])(?:\w+\.)*(\w+)|(\w+)\[", last_line(error)
            )
        }
        lists = [n for n in _numbers(arguments) if n[1] in named and n[0].get(n[1]) == n[2]]
        for holder, name, value in lists:
            holder[name] = [value, value]
        return bool(lists)
    found = re.search(r"\b(\d+)\D*?divisible by \D*?(\d+)", str(error))
    have, divisor = map(int, found.groups()) if found else (0, 0)
    if not have or have % divisor == 0 or divisor > MOST_WIDTH:
        return False
    wrong = [n for n in _numbers(arguments) if n[2] > 0 and have % n[2] == 0 and n[0].get(n[1]) == n[2]]
    wrong = [(holder, name, value) for holder, name, value in wrong if value > 1 or _WIDE.search(name)]
    for holder, name, _ in wrong:
        holder[name] = divisor
    return bool(wrong)


def _numbers(arguments: dict[str, Any]) -> list[tuple[dict[str, Any], str, int]]:
    """The whole numbers that were given, as arguments or as settings, with what holds them."""
    given = [(arguments, name, value) for name, value in arguments.items()]
    given += [(vars(options), name, value) for options, name, value in fragments.Options.given]
    return [(holder, name, value) for holder, name, value in given if type(value) is int]


def last_line(error: BaseException) -> str:
    """The text of the innermost line that an exception came through."""
    frames = traceback.extract_tb(error.__traceback__)
    return (frames[-1].line or "") if frames else ""


def candidates(kind: type, guesses: Guesses, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Arguments for a constructor: the usual value of each name first, then all widths alike, then smaller ones."""
    try:
        signature = signature_of(kind)
    except (TypeError, ValueError):
        return
    parameters, used = signature.parameters.values(), uses(kind)
    needed = [p for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]

    def module(name: str, wanted: type[nn.Module] | None = None) -> nn.Module:
        return module_for(name, guesses, depth, wanted, kind)

    usual = _fitting(
        {
            p.name: asked[0] if (asked := list(itertools.islice(annotated(p.annotation, guesses, depth), 1)))
            else guesses.of_constructor(p, used.get(p.name, Use()), module)
            for p in needed
        }
    )  # fmt: skip
    small = {p.name: least for p in parameters if (least := _small(p.name, p.default)) is not None}
    if small:
        yield {**usual, **small}
    yield usual
    if single := {name: 4 for name, value in usual.items() if type(value) is int and value == 1}:
        yield {**usual, **single}  # what is split into halves has more than one
    for p in parameters:  # a default that the constructor itself refuses
        choices = used.get(p.name, Use()).choices
        if choices and p.default is not p.empty and p.default not in (*choices, None):
            yield {**usual, p.name: choices[-1]}
    for size in (32, 64):
        if any("size" in name for name in usual):
            yield {n: size if "image_size" in n or "img_size" in n else v for n, v in usual.items()}
    numbers = [name for name, value in usual.items() if isinstance(value, int) and not isinstance(value, bool)]
    for width in (64, 16, 8):
        yield {**usual, **{n: width for n in numbers if usual[n] > 12 and "vocab" not in n}}
    yield from ({**usual, **dict.fromkeys(numbers, width)} for width in (4, 8, 32))


def signature_of(called: Any) -> inspect.Signature:
    """The signature of a class or function, with its annotations as objects where they can be evaluated."""
    try:
        return inspect.signature(called, eval_str=True)
    except Exception:  # an annotation that is only meant to be read
        return inspect.signature(called)


def annotated(kind: Any, guesses: Guesses, depth: int = 0) -> Iterator[Any]:
    """Values that an annotation asks for: members, choices, an array, a picture, an object of a class of records, or
    several of these; none for numbers, tensors and modules, of which the name says more."""
    if typing.get_origin(kind) is typing.Literal:
        yield from typing.get_args(kind)
    elif typing.get_origin(kind) in (typing.Union, types.UnionType):
        yield from annotated(next((k for k in typing.get_args(kind) if k is not type(None)), None), guesses, depth)
    elif typing.get_origin(kind) in (list, tuple, collections.abc.Sequence) and typing.get_args(kind):
        inner = next(annotated(typing.get_args(kind)[0], guesses, depth), None)
        yield from () if inner is None else ([inner, inner],)
    elif isinstance(kind, Anything):
        yield kind
    elif not isinstance(kind, type) or issubclass(kind, nn.Module | torch.Tensor):
        return
    elif thing := guesses.of_kind(kind):
        yield thing
    elif issubclass(kind, enum.Enum):
        yield from kind
    elif kind is np.ndarray:
        yield np.random.default_rng(0).random((4, 16), dtype=np.float32)
    elif issubclass(kind, Image.Image):
        yield Image.new("RGB", (32, 32))
    elif (dataclasses.is_dataclass(kind) or guesses.live.line_of(kind) is not None) and depth < MOST_NESTED:
        for arguments in itertools.islice(candidates(kind, guesses, depth + 1), 2):
            with contextlib.suppress(Exception):  # the user's constructor, given guesses
                yield built(kind, guesses, arguments)[0]


def _small(name: str, default: Any) -> int | None:
    """A smaller default of a size that makes a network slow; None where it is small, or no such size."""
    least = fragments.sized(name, default)
    return least if type(default) is int and 0 <= least < default else None


def _fitting(usual: dict[str, Any]) -> dict[str, Any]:
    """Values that belong together, made to fit each other."""
    found = dict(usual)
    width = next(
        (v for n, v in usual.items() if re.fullmatch(r"d_?model|emb(ed)?_?(dim|size)|dim|d_in", n, re.I)), None
    )
    heads = next((v for n, v in usual.items() if re.fullmatch(r"(n_?|num_?)?heads?|nhead|h", n, re.I)), None)
    if isinstance(width, int) and isinstance(heads, int) and heads:
        found |= {n: max(width // heads, 1) for n in usual if re.fullmatch(r"d_?[kqv]|(dim_?head|head_?(dim|size))", n)}
    if any(map(_STEPS.search, usual)) and ("betas" in usual or any(map(_NOISE_ENDS.search, usual))):
        found |= {name: 1000 for name in usual if _STEPS.search(name)}
        ends = {name for name in usual if re.search("beta|^b[12]$", name, re.I)} - {"betas"}
        found |= {name: 0.02 if _NOISE_ENDS.search(name) else 1e-4 for name in ends}
        found |= {"betas": (1e-4, 0.02)} if "betas" in usual else {}
    return found
