"""Errors that a user can act on: one sentence that says what is wrong and what to do."""

from collections.abc import Iterable


class BowerbirdError(Exception):
    """Wrong usage or input.  The command line prints the sentence and ends with this exit status."""

    exit_status = 2


class RunFailed(BowerbirdError):
    """The input was fine, but the work could not be finished (a loss became NaN, a disk filled up)."""

    exit_status = 1


def unknown(kind: str, name: str, known: Iterable[str]) -> BowerbirdError:
    """The error for a name that does not exist, with the nearest one that does."""
    import difflib  # takes long enough to load that no start of the program should wait for it

    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean '{nearest[0]}'?" if nearest else f"known: {', '.join(known) or 'none'}."
    return BowerbirdError(f"There is no {kind} '{name}'; {hint}")
