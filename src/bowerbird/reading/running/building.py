"""Arguments for constructors that a program never calls: by name, annotation, default and what the code compares.

Values that belong together are made to fit: the width of a head to the width of the model, the ends of a noise
schedule to each other.
"""

import ast
import contextlib
import enum
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from bowerbird.reading.running.live import Live
from bowerbird.reading.running.shrinking import smaller
from bowerbird.reading.running.standins import fragments
from bowerbird.reading.running.standins.data import Loader
from bowerbird.reading.running.uses import Use, uses

Replace = Callable[[str, str], None]
BATCH = 8
_PREDICTORS = ("model", "net", "network", "unet", "denoise_fn", "eps_model", "backbone", "nn_model", "denoiser")
_NETWORKS = ("unet", "denoiser", "epsnet", "noisepredictor", "unet2d", "generator", "transformer", "net", "model")
_MODULES = (
    "model net network encoder decoder generator discriminator fn layer sublayer unet denoise_fn eps_model embed "
    "src_embed tgt_embed self_attn src_attn feed_forward backbone module block attn critic prior nn_model denoiser"
).split()
_WIDTH_NAMES = ("d_model", "dim_model", "n_model")
_NOISE_ENDS = re.compile(r"beta_?(t|end|max|2)$|^b2$", re.I)
_STEPS = re.compile(r"^(T|n_?T|(num_|n_)?(time_?steps|diffusion_steps|noise_steps|steps))$")


class StandInNet(nn.Module):
    """A network that scales what it is given, whatever else it is told: for classes that need one that is not there."""

    channels = out_dim = in_channels = out_channels = 3
    self_condition = random_or_learned_sinusoidal_cond = learned_sinusoidal_cond = False
    made: ClassVar[list["StandInNet"]] = []

    def __init__(self) -> None:
        super().__init__()
        self.made.append(self)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.shape: list[int] = []

    def forward(self, x: torch.Tensor, t: Any = None, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.shape = self.shape or list(x.shape)
        return x * self.scale


def module_for(name: str, live: Live, replace: Replace, depth: int, kind: type[nn.Module] | None = None) -> nn.Module:
    """A module for an argument that takes one: of its kind, or of the class whose name fits best."""
    kinds = [k for k in live.classes().values() if issubclass(k, nn.Module)]
    hints = (name.lower().replace("_", ""), *_NETWORKS)
    best = kind or next((k for hint in hints for k in kinds if hint in k.__name__.lower()), None)
    if best is None or depth > 1:
        return StandInNet() if name.lower() in _PREDICTORS else nn.Identity()
    for arguments in candidates(best, live, replace, depth + 1):
        try:
            return best(**arguments)
        except Exception:  # the user's constructor, given guesses: others follow
            continue
    return StandInNet()


def said(value: Any) -> str:
    """How a stand-in is told of."""
    return type(value).__name__ if isinstance(value, nn.Module | fragments.Options) else repr(value)


def candidates(kind: type, live: Live, replace: Replace, depth: int = 0) -> Iterator[dict[str, Any]]:
    """Arguments for a constructor: the usual value of each name first, then all widths alike, then smaller ones."""
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):
        return
    needed = [
        p for p in signature.parameters.values()
        if p.default is inspect.Parameter.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]  # fmt: skip
    chosen, used = compared_strings(kind), uses(kind)
    usual = {p.name: _usual(p, live, replace, depth, used.get(p.name, Use())) for p in needed}
    usual |= {name: words[0] for name, words in chosen.items() if name in usual}
    usual = _fitting(usual)
    small = {p.name: _small(p.name, p.default) for p in signature.parameters.values()}
    changed = {name: value for name, value in small.items() if value is not None}
    if changed:
        yield {**usual, **changed}
    yield usual
    for name, words in chosen.items():  # a default that the constructor itself refuses
        if name in signature.parameters and signature.parameters[name].default not in (*words, None):
            yield {**usual, name: words[-1]}
    for size in (32, 64):
        if any("size" in name for name in usual):
            yield {n: size if "image_size" in n or "img_size" in n else v for n, v in usual.items()}
    numbers = [name for name, value in usual.items() if isinstance(value, int) and not isinstance(value, bool)]
    for width in (64, 16, 8):
        yield {**usual, **{n: width for n in numbers if usual[n] > 12 and "vocab" not in n}}
    yield {**usual, **dict.fromkeys(numbers, 4)}
    yield {**usual, **dict.fromkeys(numbers, 8)}


_WIDTHS = re.compile(r"(^|_)(channels?|dim|n_feat|ch|filters|features|n_embd|d_model)$", re.I)


def _small(name: str, default: Any) -> int | None:
    """A smaller default of a size that makes a network slow; None where it is small, or no such size."""
    if not isinstance(default, int) or isinstance(default, bool):
        return None
    least = min(smaller(name, default), 64 if _WIDTHS.search(name) else default)
    least = 32 if re.search(r"(^|_)channels$", name) and default > 32 else least
    return least if least < default else None


def _fitting(usual: dict[str, Any]) -> dict[str, Any]:
    """Values that belong together, made to fit each other."""
    found = dict(usual)
    width = next(
        (v for n, v in usual.items() if re.fullmatch(r"d_?model|emb(ed)?_?(dim|size)|dim|d_in", n, re.I)), None
    )
    heads = next((v for n, v in usual.items() if re.fullmatch(r"(n_?|num_?)?heads?|nhead|h", n, re.I)), None)
    if isinstance(width, int) and isinstance(heads, int) and heads:
        found |= {n: max(width // heads, 1) for n in usual if re.fullmatch(r"d_?[kqv]|(dim_?head|head_?(dim|size))", n)}
    if any(map(_NOISE_ENDS.search, usual)) and any(map(_STEPS.search, usual)):
        for name in usual:
            if re.search("beta|^b[12]$", name, re.I):
                found[name] = 0.02 if _NOISE_ENDS.search(name) else 1e-4
            elif _STEPS.search(name):
                found[name] = 1000
    if "betas" in usual and any(map(_STEPS.search, usual)):
        found |= {
            name: (1e-4, 0.02) if name == "betas" else 1000 for name in usual if name == "betas" or _STEPS.search(name)
        }
    return found


def compared_strings(kind: type) -> dict[str, list[str]]:
    """The strings that a constructor compares an argument with: ``assert mean_type in ["a", "b"]``."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind.__init__)))  # type: ignore[misc]
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Name):
            continue
        right = node.comparators[0]
        parts = right.elts if isinstance(right, ast.List | ast.Tuple | ast.Set) else [right]
        words = [p.value for p in parts if isinstance(p, ast.Constant) and isinstance(p.value, str)]
        if words and isinstance(node.ops[0], ast.In | ast.NotIn | ast.Eq | ast.NotEq):
            found.setdefault(node.left.id, []).extend(words)
    return found


def _usual(parameter: inspect.Parameter, live: Live, replace: Replace, depth: int, use: Use) -> Any:
    name, note = parameter.name, str(parameter.annotation)
    if re.search(r"loader|batches$", name, re.I):
        return Loader((3, 64, 64), BATCH)
    if "optim" in name.lower():
        return torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=0.1)
    kind = parameter.annotation
    if isinstance(kind, type) and issubclass(kind, nn.Module) and kind is not nn.Module:
        return module_for(name, live, replace, depth, kind)
    if use.is_settings and not _is_module(name):
        return _settings(live, note)
    member = _member(name, live)
    if member is not None:
        return member
    if name == "betas" and "tuple" not in note.lower():
        return np.linspace(1e-4, 0.02, 1000)
    bound = live.namespace.get(name)
    if isinstance(bound, int | float | tuple) and not isinstance(bound, bool):
        return bound
    if name.lower() in ("config", "cfg", "args", "opt", "hparams", "conf"):
        return _settings(live, note)
    if name.lower() in _MODULES or "Module" in note:
        return module_for(name, live, replace, depth)
    if any(k.__name__ == note.rpartition(".")[2].strip("'>") for k in live.classes().values()):
        return _settings(live, note)
    if name in ("act", "activation", "nonlinearity", "act_fn", "norm_layer"):
        return nn.ReLU()
    if (_is_module(name) or use.is_module) and "int" not in note:
        return module_for(name, live, replace, depth)
    if "List" in note or "list" in note or "Sequence" in note:
        return [16, 32]
    if name.endswith(("_mults", "_mult", "dims", "sizes", "channels_list", "widths")):
        return [1, 2]
    if "bool" in note:
        return False
    return fragments.setting(name)


def _is_module(name: str) -> bool:
    return name.lower() in _MODULES or (name.endswith(("_model", "_net")) and name not in _WIDTH_NAMES)


def _member(name: str, live: Live) -> Any:
    """A member of the enumeration whose name an argument has: the usual choice, or the first."""
    plain = name.lower().replace("_", "")
    kinds = [k for k in live.namespace.values() if isinstance(k, enum.EnumMeta) and k.__name__.lower() == plain]
    for kind in kinds:
        members: list[enum.Enum] = list(kind)
        usual = [m for m in members if re.search(r"^(EPS|EPSILON|FIXED_LARGE|MSE|NOISE)$", m.name)]
        return next(iter(usual or members), None)
    return None


def _settings(live: Live, note: str) -> Any:
    """The program's own configuration class, with sizes that run quickly; settings that have every name without one."""
    kinds = [k for k in live.classes().values() if not issubclass(k, nn.Module)]
    named = [k for k in kinds if k.__name__ in note] or [k for k in kinds if "config" in k.__name__.lower()]
    for kind in named:
        try:
            settings = kind()
        except Exception:  # a configuration that needs arguments: settings that have every name will do
            continue
        for name, value in list(vars(settings).items()):
            if isinstance(value, int) and not isinstance(value, bool):
                with contextlib.suppress(AttributeError):
                    setattr(settings, name, smaller(name, value))
        return settings
    return fragments.Options()
