"""Errors that a user can act on: one sentence that says what is wrong and what to do."""

from collections.abc import Iterable


class BowerbirdError(Exception):
    """Wrong usage or input.  The command line prints the sentence and ends with this exit status."""

    exit_status = 2


class RunFailed(BowerbirdError):
    """The input was fine, but the work could not be finished (a loss became NaN, a disk filled up)."""

    exit_status = 1


ELSEWHERE = {
    "learning_rate": "lr",
    "epoch": "examples",
    "epochs": "examples",
    "num_epochs": "examples",
    "max_epochs": "examples",
    "iterations": "steps",
    "max_steps": "steps",
    "batch": "batch_size",
    "bs": "batch_size",
    "gpu": "device",
    "workers": "threads",
    "num_workers": "threads",
    "resolution": "size",
    "image_size": "size",
    "scheduler": "schedule",
    "gradient_clip": "clip_norm",
    "fp16": "precision",
    "bf16": "precision",
    "amp": "precision",
    "wandb": "trackers",
    "save_every": "checkpoint_every",
    "output": "out",
    "name": "out",
    "run_name": "out",
    "eval": "measure",
    "evaluate": "measure",
    "generate": "sample",
    "continue": "resume",
    "download": "data get",
}
"""What other tools call a setting or a command, and the last part of its name here."""

ALIKE = 0.7
"""How similar two names must be for one to be a slip of the other; a hint that shares no meaning is worse than none."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: one with the same last part, else one a slip away; None without any."""
    known = sorted(known, key=len)
    dotted = any("." in one for one in known)

    def last(one: str) -> str:
        bare = one.lstrip("-").replace("-", "_").lower()
        part = bare.rpartition(".")[2]
        return part if dotted and part.isidentifier() else bare

    own, theirs = last(name), ELSEWHERE.get(last(name))
    found = [one for word in (theirs, own) for one in known if last(one) == word]
    if not found and len(own) > 2 and own.isidentifier():
        found = [one for one in known if last(one).startswith(own)]
    return next(iter(found or _slips(own, {last(one): one for one in reversed(known)})), None)


def _slips(word: str, known: dict[str, str]) -> list[str]:
    """What is spelled almost like the word, or with its letters in another order."""
    import difflib  # takes long enough to load that no start of the program should wait for it

    close = difflib.get_close_matches(word, known, n=1, cutoff=ALIKE)
    return [known[one] for one in close or (one for one in known if sorted(one) == sorted(word))]


def unknown(kind: str, name: str, known: Iterable[str]) -> BowerbirdError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(set(known))
    near = nearest(name, known)
    hint = f"did you mean '{near}'?" if near is not None else f"known: {', '.join(known) or 'none'}."
    return BowerbirdError(f"There is no {kind} '{name}'; {hint}")
