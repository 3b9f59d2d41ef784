"""Says why a run fails: signals of training, rules over them, findings with evidence and advice.

``Watch`` is the observer that `api.train` gives to the trainer; ``diagnose_run`` reads a run folder afterwards.
"""

from pathlib import Path

from bowerbird.diagnosis.finding import Evidence, Finding
from bowerbird.diagnosis.rules import find
from bowerbird.diagnosis.signals import FILE, Signals, read_signals
from bowerbird.diagnosis.watch import Watch
from bowerbird.errors import BowerbirdError

__all__ = ["Evidence", "Finding", "Signals", "Watch", "diagnose_run", "find", "read_signals"]


def diagnose_run(folder: Path | str) -> list[Finding]:
    """What the rules find in the signals of a run folder, roots first; empty when nothing is wrong."""
    signals = read_signals(folder)
    try:
        return find(signals)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise BowerbirdError(
            f"The signals of {folder} cannot be judged ({type(error).__name__}: {error}): {FILE} or metrics.jsonl is "
            "damaged."
        ) from error
