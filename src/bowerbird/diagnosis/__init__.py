"""Says why a run fails: signals of training, rules over them, findings with evidence and advice.

``Watch`` is the observer that `api.train` gives to the trainer; ``diagnose_run`` reads a run folder afterwards.
"""

from pathlib import Path

from bowerbird.diagnosis.finding import Evidence, Finding
from bowerbird.diagnosis.record import RECORDED
from bowerbird.diagnosis.rules import find
from bowerbird.diagnosis.signals import FILE, Signals, read_signals
from bowerbird.diagnosis.watch import Watch
from bowerbird.errors import BowerbirdError
from bowerbird.training import salvage

__all__ = ["Evidence", "Finding", "Signals", "Watch", "diagnose_run", "find", "read_signals"]


def diagnose_run(folder: Path | str) -> list[Finding]:
    """What the rules find in the signals of a run folder, roots first; empty when nothing is wrong.

    Of a training in another program, which ``integrations`` watched: what they found while it trained.
    """
    recorded = Path(folder) / RECORDED
    try:
        if not (Path(folder) / "run.toml").is_file() and recorded.is_file():
            return [Finding.from_json(table) for table in salvage.objects(salvage.json_object(recorded)["findings"])]
        signals = read_signals(folder)
        if not (signals.rows or signals.probes or signals.failure):
            raise BowerbirdError(
                f"{folder} says nothing about its training: it has no metrics.jsonl with a step in it."
            )
        return find(signals)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        raise BowerbirdError(
            f"The signals of {folder} cannot be judged ({type(error).__name__}: {error}): {FILE}, metrics.jsonl or "
            f"{RECORDED} is damaged."
        ) from error
