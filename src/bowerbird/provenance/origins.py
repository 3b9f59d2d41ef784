"""What a label says of a run: its family, and fingerprints of its model and data, and under which licence those are."""

import hashlib
import json
from pathlib import Path
from typing import Any

from bowerbird.data.catalogue import data_record
from bowerbird.errors import BowerbirdError
from bowerbird.registry import families
from bowerbird.training.rundir import RunDir

DIGITS = 16


def fingerprint(weights: Path) -> str:
    """Of a run's weights: a hash of the file's header, which holds a checksum of every byte behind it."""
    with open(weights, "rb") as file:
        head = file.read(8)
        return hashlib.sha256(head + file.read(int.from_bytes(head, "little"))).hexdigest()[:DIGITS]


def of_data(source: str) -> dict[str, str]:
    """Name and licence of data that the catalogue knows; nothing of a user's own, whose name is theirs."""
    record = data_record(source)
    return {} if record is None else {"data": record.name, "data_licence": record.licence}


def origin(run_dir: Path | str) -> dict[str, Any]:
    """What labels of a run's samples say; no path and no name of a folder."""
    rundir = RunDir.open(run_dir)
    run = rundir.config()
    about: dict[str, Any] = {"family": families.name_of(type(run.model))}
    if rundir.model_file.is_file():
        about["model"] = fingerprint(rundir.model_file)
    about |= of_data(run.data.source)
    if known := recorded(rundir.path).get("fingerprint"):
        about["data_fingerprint"] = str(known)
    return about


def recorded(folder: Path) -> dict[str, Any]:
    """environment.json of a run folder; empty where there is none."""
    try:
        found = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def matching(model: str, runs: list[Path]) -> Path | None:
    """The run whose weights have this fingerprint; BowerbirdError for a folder that is no run."""
    for run in runs:
        weights = RunDir.open(run).model_file
        if not weights.is_file():
            raise BowerbirdError(f"{run} holds no model yet; continue the run with: bowerbird resume {run}")
        if fingerprint(weights) == model:
            return run
    return None
