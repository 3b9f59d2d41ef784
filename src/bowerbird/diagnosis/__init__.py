"""Says why a run fails: signals of training, rules over them, findings with evidence and advice.

``Watch`` is the observer that `api.train` gives to the trainer; ``diagnose_run`` reads a run folder afterwards.
"""

from pathlib import Path

from bowerbird.diagnosis.finding import Evidence, Finding
from bowerbird.diagnosis.rules import find
from bowerbird.diagnosis.signals import Signals, read_signals
from bowerbird.diagnosis.watch import Watch

__all__ = ["Evidence", "Finding", "Signals", "Watch", "diagnose_run", "find", "read_signals"]


def diagnose_run(folder: Path | str) -> list[Finding]:
    """What the rules find in the signals of a run folder, roots first; empty when nothing is wrong."""
    return find(read_signals(folder))
