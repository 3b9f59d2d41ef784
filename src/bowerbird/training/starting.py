"""Weights to start from: those of another run, as far as they fit.  And weights that stay as they are.

What is taken has the same name and shape, and means the same: rows per token only under the same vocabulary, rows per
class only under the same classes.  Everything else keeps its random first values, and both are said.  A run that is a
whole part of the model, such as the autoencoder of a latent family, becomes that part; where it is several parts, such
as teacher and student, all of them.
"""

import json
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import Tensor

from bowerbird import registry
from bowerbird.data.tensorfile import Damaged, read_tensors
from bowerbird.errors import BowerbirdError, unknown
from bowerbird.models.base import GenerativeModel
from bowerbird.spec import Classes, Spec
from bowerbird.training.rundir import RunDir, renamed

PER_TOKEN = ("embedding.token.weight", "head.weight", "head.bias")
"""Ends of the names of tensors with a row per token of the vocabulary."""
MOST_NAMED = 3


def start_from(model: GenerativeModel, spec: Spec, folder: Path) -> str:
    """Gives the model the weights of a run where they fit, and says in a sentence what was taken and what was not.

    BowerbirdError if the folder is no run, if nothing fits, or if weights that low-rank adapters correct are missing.
    """
    run = RunDir(folder)
    if not run.model_file.is_file():
        raise BowerbirdError(f"train.start = {folder} has no model.safetensors; name a trained run or imported model.")
    own = model.state_dict()
    found = _of_part(renamed(read_tensors(run.model_file)), own)
    same = _meaning_the_same(found, own, spec, run)
    taken = {name: value for name, value in same.items() if name in own and value.shape == own[name].shape}
    left = [name for name in own if name not in taken and name not in model.adapters()]
    if not taken or (left and model.adapters()):
        why = _mismatch(left[0] if taken else next(iter(own)), found, own)
        raise BowerbirdError(
            f"train.start = {folder} does not fit: {_kinds(model, spec, run)}{why}; use its [model.net] and its "
            "tokenizer."
        )
    model.load_state_dict(taken, strict=False)
    share = sum(own[name].numel() for name in taken) / sum(value.numel() for value in own.values())
    sentence = f"{len(taken)} of {len(own)} tensors ({share:.0%} of the weights) were taken from {folder}"
    named = "; ".join(_mismatch(name, found, own) for name in left[:MOST_NAMED])
    more = f"; and {len(left) - MOST_NAMED} more" if len(left) > MOST_NAMED else ""
    return sentence + (f"; new: {named}{more}" if left else "")


def _kinds(model: GenerativeModel, spec: Spec, run: RunDir) -> str:
    """Families and media, where they differ: the reason that most do not fit."""
    with suppress(BowerbirdError):
        theirs = registry.families.name_of(type(run.config().model)), run.spec_of(run.model_file).medium
        own = registry.families.name_of(type(getattr(model, "config", None))), spec.medium
        if theirs != own:
            return f"it holds the family {theirs[0]} ({theirs[1]}), and this is {own[0]} ({own[1]}); "
    return ""


def freeze(model: GenerativeModel, patterns: tuple[str, ...]) -> None:
    """Takes parameters out of training; BowerbirdError for a pattern that fits none."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise unknown("parameter", pattern, [*names, *{f"{name.rpartition('.')[0]}.*" for name in names}])
    for name, p in model.named_parameters():
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            p.requires_grad_(False)


def _of_part(found: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the names that they have here, where the other run is one or more whole parts of this model."""
    parts = {name.partition(".")[0] for name in own}
    whole = [part for part in sorted(parts) if all(f"{part}.{name}" in own for name in found)]
    return {f"{part}.{name}": value for part in whole for name, value in found.items()} or found


def _meaning_the_same(found: dict[str, Tensor], own: dict[str, Tensor], spec: Spec, run: RunDir) -> dict[str, Tensor]:
    """Without rows whose tokens or classes are others; of more rows than the model has tokens only the first."""
    try:
        theirs = run.spec_of(run.model_file)
    except Damaged:  # no run, but weights by our names
        theirs = spec
    same_tokens = _vocabulary(theirs.codec) == _vocabulary(spec.codec)
    classes = [name for name, one in spec.given.items() if isinstance(one, Classes) and _other(one, theirs, name)]
    kept = {}
    for name, value in found.items():
        if name.endswith(PER_TOKEN) and name in own:
            if not same_tokens:
                continue
            if value.shape[1:] == own[name].shape[1:]:
                value = value[: len(own[name])]
        if not any(f".{one}.table." in name for one in classes):
            kept[name] = value
    return kept


def _other(classes: Classes, theirs: Spec, name: str) -> bool:
    found = theirs.given.get(name)
    return isinstance(found, Classes) and found.names != classes.names


def _vocabulary(codec: str) -> Any:
    """What the tokens of a tokenizer.json mean; the text itself where it is another kind of codec."""
    try:
        model = json.loads(codec).get("model", {})
        return model.get("vocab") or codec
    except (ValueError, AttributeError):
        return codec


def _mismatch(name: str, found: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    here = f"'{name}' of shape {tuple(own[name].shape)}"
    if name not in found:
        return f"{here} (not there)"
    there = found[name].shape
    why = "of other tokens or classes" if there == own[name].shape else f"of shape {tuple(there)}"
    return f"{here} ({why} there)"
