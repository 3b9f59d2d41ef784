"""The library of broken runs, the shortened healthy ones, and the table of what diagnosis says of them.

``CAUSE.WHAT.toml`` is a run in which one thing is wrong, and CAUSE is what diagnosis has to name first.  Each can be
trained by hand: bowerbird train tests/broken_runs/kl-scale.beta-100.toml.  Plugins break what configuration cannot.

Healthy runs are the shipped recipes with their own losses, schedules and optimisers, but smaller: images of 14 × 14
pixels, networks of a third of the width or less, 300 steps (``shortened``).
"""

import dataclasses
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

from bowerbird import api, config
from bowerbird.api import training
from bowerbird.data import catalogue
from bowerbird.errors import RunFailed

HERE = Path(__file__).parent
SAMPLE = (
    "non-finite.data",
    "disconnected-layer.encoder",
    "padding-counted.lines",
)
"""Broken runs of the test suite; all others are run by `make diagnosis`."""


STANDS_FOR = {"multi30k": "tatoeba", "emoji-motion": "bouncing-digits"}
"""Data that are there, in place of those that have to be fetched; of images digits."""


@dataclass(frozen=True)
class Outcome:
    name: str
    expected: str
    """Empty for a healthy run."""
    causes: list[str]
    """What stands by itself, in order; consequences follow."""
    live: list[str]
    """What was said while it trained."""
    cpu_seconds: float

    @property
    def right(self) -> bool:
        return self.causes[:1] == [self.expected] if self.expected else not self.causes


def broken_names() -> list[str]:
    return sorted(path.stem for path in HERE.glob("*.toml"))


def shortened(name: str) -> config.Run:
    """A shipped recipe as a run of some seconds."""
    run = config.load(name)
    built_in = {record.name for record in catalogue.RECORDS if record.kind == "data" and record.built_in}
    source = run.data.source if run.data.source in built_in else STANDS_FOR.get(run.data.source, "digits")
    return replace(
        run,
        model=_narrow(run.model),
        data=replace(
            run.data, source=source, size=14,
            text=replace(run.data.text, context=64), music=replace(run.data.music, context=64),
        ),
        train=replace(
            run.train, steps=300, examples=None, seconds=None, flops=None, batch_size=min(run.train.batch_size, 32),
            warmup_steps=min(run.train.warmup_steps, 30), ema_decay=min(run.train.ema_decay, 0.98), validate_every=0,
            checkpoint_every=100_000, sample_every=0, log_every=10, device="cpu", precision="fp32", threads=1,
        ),
    )  # fmt: skip


SMALL = {"channels": 16, "hidden": (128, 256), "n_embd": 64, "n_layer": 2, "n_encoder_layer": 2, "n_head": 4}


def _narrow(model: config.ModelConfig) -> config.ModelConfig:
    changes = {}
    for field in dataclasses.fields(model):
        net = getattr(model, field.name)
        if isinstance(net, config.NetworkConfig):
            known = {f.name for f in dataclasses.fields(net)}
            smaller = {name: value for name, value in SMALL.items() if name in known and getattr(net, name) is not None}
            changes[field.name] = replace(net, **smaller)
    return replace(model, **changes)


def outcome(name: str, healthy: bool, keep: Path | None = None) -> Outcome:
    """Trains one run in a process of its own, because plugins change what they touch, and says what was found."""
    folder = (keep or Path(tempfile.mkdtemp(prefix="broken-"))) / name
    shutil.rmtree(folder, ignore_errors=True)
    process = get_context("fork").Process(target=_train, args=(name, healthy, folder))
    process.start()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{name} ended with exit status {process.exitcode}; see above.")
    table = json.loads((folder / "outcome.json").read_text())
    if keep is None:
        shutil.rmtree(folder.parent)
    return Outcome(name, "" if healthy else name.partition(".")[0], **table)


def _train(name: str, healthy: bool, folder: Path) -> None:
    start = time.process_time()
    run = shortened(name) if healthy else config.load(str(HERE / f"{name}.toml"), allow_plugin=True)
    watch = training.Watch()
    training.Watch = lambda: watch  # type: ignore[misc,assignment]
    try:
        api.train(run, folder, quiet=True)
    except RunFailed as error:
        print(f"    {error}", file=sys.stderr)
    found = api.diagnose(folder)
    table = {
        "causes": [finding.cause for finding in found if not finding.because],
        "live": sorted(watch.record.said),
        "cpu_seconds": round(time.process_time() - start, 1),
    }
    (folder / "outcome.json").write_text(json.dumps(table))


def table(outcomes: list[Outcome]) -> str:
    """What was named first, by what was broken, as Markdown; then every run that was not named rightly."""
    rows = ["| what is broken | runs | named first | named at all | otherwise first |", "|---|---|---|---|---|"]
    for cause in sorted({o.expected for o in outcomes if o.expected}):
        own = [o for o in outcomes if o.expected == cause]
        others = sorted({(o.causes or ["nothing"])[0] for o in own if not o.right})
        named = sum(cause in o.causes for o in own)
        rows.append(f"| {cause} | {len(own)} | {sum(o.right for o in own)} | {named} | {', '.join(others) or '–'} |")
    broken, healthy = ([o for o in outcomes if bool(o.expected) == kind] for kind in (True, False))
    first, at_all = sum(o.right for o in broken), sum(o.expected in o.causes for o in broken)
    rows.append(f"| **all** | {len(broken)} | {first} | {at_all} | |")
    alarms = [f"{o.name}: {', '.join([*o.causes, *o.live])}" for o in healthy if o.causes or o.live]
    rows += ["", f"Healthy runs: {len(healthy)}, false alarms: {len(alarms)}. {'; '.join(alarms)}".strip()]
    rows += [
        f"CPU time: {sum(o.cpu_seconds for o in outcomes):.0f} s, longest {max(o.cpu_seconds for o in outcomes)} s."
    ]
    rows += [f"{o.name}: {', '.join(o.causes) or 'nothing'}" for o in broken if not o.right]
    return "\n".join(rows)
