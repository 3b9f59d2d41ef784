"""What a run was made with, and in what that differs from what it is to go on with.

A checkpoint carries a record: every setting, the data's fingerprint and summary, and the spec.  Checkpoints of version
0.1 carry none, and nothing is compared with them.
"""

import json
import zlib
from pathlib import Path
from typing import Any

from bowerbird import config
from bowerbird.errors import BowerbirdError
from bowerbird.spec import IN_FILES, spec_to_json

NO_MATTER = ("title", "plugin", "data.source", "expect", "train.trackers")
"""Settings that change no number; the data are known by their fingerprint, wherever they lie."""
MOST_NAMED = 4
"""Settings and classes that a sentence names one by one."""


def record_of(run: config.Run, data: Any) -> dict[str, Any]:
    """What a checkpoint says about the run and its data, as JSON."""
    texts = {name: zlib.crc32(getattr(data.spec, name, "").encode()) for name in IN_FILES}
    record = {
        "run": config.to_table(run),
        "data": {"fingerprint": data.fingerprint, "summary": data.summary()},
        "spec": spec_to_json(data.spec) | {"texts": texts},
    }
    return json.loads(json.dumps(record))  # lists for tuples, as a checkpoint gives them back


def to_go_on(
    folder: Path, record: dict[str, Any], there: config.Run, run: config.Run, data: Any, accept: bool
) -> list[str]:
    """What changes when a run goes on, in words: ``there`` is its run.toml, ``run`` what was asked for.

    BowerbirdError for what was not asked for, unless ``accept``, and for data that the weights cannot fit.
    """
    if not record:
        return []
    now, before = record_of(run, data), settings_of(record, otherwise=there)
    asked, other = settings_changed(there, run), data_changed(record, now)
    unasked = {key: values for key, values in settings_changed(before, there).items() if key not in asked}
    if not weights_fit(record, now):
        raise BowerbirdError(
            f"{folder} cannot continue with these data, which do not fit its weights: {'; '.join(other)}. Start a new "
            f"run from its weights instead: bowerbird train {folder}/run.toml --start {folder} --out NEW"
        )
    if (unasked or other) and not accept:
        undo = "Restore the old values in run.toml" if unasked else "Name the run's own data with --data SRC"
        differing = "; ".join(told(unasked, "run.toml says") + other)
        raise BowerbirdError(
            f"{folder} would not continue as it began: {differing}. {undo}, or continue deliberately with "
            "--accept-changes."
        )
    return told(settings_changed(before, run)) + other


# ------------------------------------------------------------------------------------------- settings


def settings_changed(before: config.Run, now: config.Run) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, each with the value before and now; None is a setting that is not set."""
    a, b = (config.flat(config.to_table(run)) for run in (before, now))
    keys = [key for key in {**a, **b} if key not in NO_MATTER]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)}


def settings_of(record: dict[str, Any], otherwise: config.Run) -> config.Run:
    """The run that a checkpoint was made with; ``otherwise`` where this version cannot tell."""
    table = record.get("run")
    if not isinstance(table, dict):
        return otherwise
    try:
        return config.run_from({key: value for key, value in table.items() if key not in NO_MATTER}, "the checkpoint")
    except BowerbirdError:
        return otherwise


def told(changes: dict[str, tuple[Any, Any]], now: str = "now") -> list[str]:
    """``train.batch_size was 4, now 8`` for each; ``now`` introduces the new value."""
    said = [f"{key} was {_value(a)}, {now} {_value(b)}" for key, (a, b) in list(changes.items())[:MOST_NAMED]]
    return said + ([f"{len(changes) - MOST_NAMED} more settings differ"] if len(changes) > MOST_NAMED else [])


def _value(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False).strip('"')


# ------------------------------------------------------------------------------------------- data


def data_changed(record: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """How the data of one record differ from those of another, in words; empty for the same data."""
    if "data" not in record or "spec" not in record:
        return []
    said = [sentence for sentence, _ in _fields_changed(record["spec"], now["spec"])]
    then, today = record["data"], now["data"]
    if then["fingerprint"] != today["fingerprint"]:
        a, b = (f"{one['summary'].partition(';')[0]} (fingerprint {one['fingerprint']})" for one in (then, today))
        said.append(f"the data were {a}, now {b}")
    return said


def weights_fit(record: dict[str, Any], now: dict[str, Any]) -> bool:
    """Whether a model for the data of one record may take the weights of a model for those of the other."""
    return "spec" not in record or all(fits for _, fits in _fields_changed(record["spec"], now["spec"]))


def _fields_changed(before: dict[str, Any], now: dict[str, Any]) -> list[tuple[str, bool]]:
    """Each field of the spec that differs: how, in words, and whether the shapes of weights stay the same."""
    fields = [{"target": spec["target"], **spec["given"]} for spec in (before, now)]
    found = []
    for name in {**fields[0], **fields[1]}:
        a, b = ({k: v for k, v in one.get(name, {}).items() if k != "counts"} for one in fields)
        if a != b and a.get("type") == b.get("type") == "Classes":
            words = f"the classes of '{name}' were {_names(a['names'])}, now {_names(b['names'])}"
            found.append((words, len(a["names"]) == len(b["names"])))
        elif a != b:
            found.append((f"'{name}' was {_shape(a)}, now {_shape(b)}", False))
    if before["texts"] != now["texts"]:
        found.append(("the tokenizer was a different one", True))
    return found


def _names(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (f" … ({len(names)})" if len(names) > MOST_NAMED else "")


def _shape(field: dict[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in field.items() if key != "type") or "not there"
