"""The model card of an export: README.md with the header that the Hugging Face Hub reads.

It says what the run folder knows and no more: recipe, data with their fingerprint and licence, what was measured and
under which protocol, how the export was compared, what training cost, and the limits that follow from these.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from bowerbird import __version__, config, registry
from bowerbird.data import builtin
from bowerbird.data.catalogue import RECORDS, Record
from bowerbird.export.target import BY, Parity, Target, Trained
from bowerbird.report.numbers import with_error
from bowerbird.report.run import facts
from bowerbird.spec import Classes, Field, Spec, Tensors
from bowerbird.training import salvage
from bowerbird.training.rundir import RunDir

TASKS = {
    "image": "unconditional-image-generation",
    "text": "text-generation",
    "music": "text-to-audio",
    "speech": "text-to-audio",
    "video": "image-to-video",
}
LICENCES = {
    "Apache-2.0": "apache-2.0",
    "MIT": "mit",
    "CC0 1.0": "cc0-1.0",
    "CC BY-SA 3.0": "cc-by-sa-3.0",
    "CC BY 2.0 FR": "cc-by-2.0",
}
"""Licences of the catalogue by the Hub's names; any other is "other", with its name beside."""


def card(trained: Trained, target: Target, to: str, parity: list[Parity]) -> str:
    """The text of README.md."""
    rundir, run = RunDir.open(trained.path), trained.run
    record = next((one for one in RECORDS if one.name == run.data.source), None)
    title = run.title or trained.path.name
    sections = [
        _header(trained, record),
        f"# {title}",
        f"{_what(trained.spec)} Family {registry.families.name_of(type(run.model))}; exported to {to} {BY} "
        f"{__version__}. What this model generates is synthetic: say so when you show it.",
        _section("Use", [usage] if (usage := target.usage(trained)) else []),
        _section("Recipe", [f"```toml\n{config.dumps(public(run)).strip()}\n```"]),
        _section("Data and licence", list(_data(run, record, rundir))),
        _section("Measurements", [_measurements(rundir)]),
        _section("This export", [_parity(target, parity)]),
        _section("Cost of training", [_cost(rundir)]),
        _section("Limits", [f"- {limit}" for limit in _limits(trained, record, rundir)], "\n"),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def public(run: config.Run) -> config.Run:
    """The configuration without the folders of this machine."""
    data, start = replace(run.data, source=Path(run.data.source).name or run.data.source), Path(run.train.start).name
    return replace(run, data=data, train=replace(run.train, start=start), plugin=Path(run.plugin).name)


def _header(trained: Trained, record: Record | None) -> str:
    spec = trained.spec
    task = "image-to-image" if isinstance(spec.given.get("source"), Tensors) else TASKS.get(spec.medium, "other")
    if "source" in spec.given and spec.medium == "text":
        task = "translation"
    licence = record.licence if record else ""
    lines = [f"license: {LICENCES.get(licence, 'other')}"]
    if licence not in LICENCES:
        lines.append(f"license_name: {json.dumps(licence or 'see the licence of the training data')}")
    lines += [f"pipeline_tag: {task}", "library_name: bowerbird", "tags:", "- bowerbird"]
    lines.append(f"- {registry.families.name_of(type(trained.run.model))}")
    return "\n".join(["---", *lines, "---"])


def _section(title: str, parts: list[str], between: str = "\n\n") -> str:
    return f"## {title}\n\n{between.join(parts)}" if any(parts) else ""


def _what(spec: Spec) -> str:
    given = [f"{name} ({_kind(field)})" for name, field in spec.given.items() if name != "prompt"]
    target = spec.target
    made = f"pictures of {'x'.join(map(str, target.shape))} numbers" if isinstance(target, Tensors) else spec.medium
    return f"Generates {made}{' from ' + ', '.join(given) if given else ''}."


def _kind(field: Field) -> str:
    if isinstance(field, Classes):
        return f"one of {len(field.names)} classes"
    return "a picture" if isinstance(field, Tensors) else "tokens"


def _data(run: config.Run, record: Record | None, rundir: RunDir) -> Iterator[str]:
    known = rundir.record().get("data", {})
    said = record.description if record else "the user's own data; their licence is not known to Bowerbird"
    yield f"Trained on **{public(run).data.source}**: {said}."
    if known.get("summary"):
        yield f"Summary: {known['summary']}."
    yield f"Fingerprint of the examples: `{known.get('fingerprint', 'not recorded')}`."
    if record:
        yield f"Licence of the data: {record.licence}."
    if record and builtin.licence(record.ships_as).is_file():
        text = builtin.licence(record.ships_as).read_text(encoding="utf-8").strip()
        yield f"<details><summary>Licence and attribution in full</summary>\n\n```text\n{text}\n```\n\n</details>"


def _measurements(rundir: RunDir) -> str:
    rows = salvage.objects(salvage.json_object(rundir.path / "measurements.json").get("measurements"))
    if not rows:
        return f"None are stored with the run. `bowerbird measure {rundir.path.name}` measures it."
    return "\n".join(["| metric | value | unit | protocol |", "|---|---|---|---|", *map(_measured, rows)])


def _measured(row: dict[str, Any]) -> str:
    said = {key: value for key, value in row.get("protocol", {}).items() if value not in ("", 0, {}, None)}
    protocol = ", ".join(f"{key} {value}" for key, value in said.items())
    value = with_error(row.get("value"), row.get("stderr"))
    return f"| {row.get('name')} | {value} | {row.get('unit', '')} | {protocol} |"


def _parity(target: Target, parity: list[Parity]) -> str:
    rows = [
        f"| {one.what} | {', '.join(map(str, one.batches))} | {one.difference:.1e} | {one.magnitude:.3g} |"
        for one in parity
    ]
    head = "| part | rows per batch | largest difference | largest output |\n|---|---|---|---|"
    return f"Loaded back in {target.runtime} and compared with the run's model in PyTorch:\n\n" + "\n".join(
        [head, *rows]
    )


def _cost(rundir: RunDir) -> str:
    machine = salvage.json_object(rundir.path / "environment.json")
    rows = [f"| {row['name']} | {row['value']} | {row['note']} |" for row in facts(rundir.status())]
    where = (
        f"On {machine.get('processor', 'an unknown processor')}, accelerator {machine.get('accelerator', 'unknown')}."
    )
    return "\n".join([where, "", "| what | how much | how it is known |", "|---|---|---|", *rows]) if rows else where


def _limits(trained: Trained, record: Record | None, rundir: RunDir) -> Iterator[str]:
    status = rundir.status()
    if status and not status.get("finished", True):
        yield f"The training was not finished: it stopped at step {status['step']:,}."
    yield "It reproduces its training data, with their gaps and biases, and may repeat single training examples."
    if isinstance(trained.spec.target, Tensors):
        yield f"It makes pictures of one size, {'x'.join(map(str, trained.spec.target.shape[1:]))} pixels."
    else:
        yield f"It reads at most {trained.spec.target.context} tokens at once."  # type: ignore[union-attr]
    if record is None:
        yield "The licence of the training data is not known to Bowerbird; settle it before you pass the model on."
