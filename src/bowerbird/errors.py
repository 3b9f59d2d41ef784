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
    "epochs": "examples",
    "num_epochs": "examples",
    "max_epochs": "examples",
    "iterations": "steps",
    "max_steps": "steps",
    "batch": "batch_size",
    "gpu": "device",
    "resolution": "size",
    "image_size": "size",
    "scheduler": "schedule",
    "gradient_clip": "clip_norm",
}
"""What other tools call a setting, and the last part of its name here."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: one with the same last part, else the most similar; None without any."""
    import difflib  # takes long enough to load that no start of the program should wait for it

    def last(dotted: str) -> str:
        return dotted.lstrip("-").rpartition(".")[2].replace("-", "_")

    known = sorted(known, key=len)
    word = ELSEWHERE.get(last(name), last(name))
    same = [one for one in known if last(one) == word] or [one for one in known if last(one).startswith(word)]
    same = same if word.isidentifier() else []
    return next(iter(same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)), None)


def unknown(kind: str, name: str, known: Iterable[str]) -> BowerbirdError:
    """The error for a name that does not exist, with the nearest one that does."""
    known = sorted(known)
    near = nearest(name, known)
    hint = f"did you mean '{near}'?" if near is not None else f"known: {', '.join(known) or 'none'}."
    return BowerbirdError(f"There is no {kind} '{name}'; {hint}")
