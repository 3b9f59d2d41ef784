"""Changes that facts name outright: optimisers, schedules, data, layers, initial weights, tables, calls of losses."""

import ast
import difflib
import math
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.history.change import Change
from bowerbird.reading.history.trajectory import Parting, near, owners, steps, tables
from bowerbird.reading.history.version import Version, short
from bowerbird.reading.history.wording import range_of

_TECHNICAL = {"foreach", "fused", "capturable", "differentiable", "lr"}
_CONTAINERS = ("Sequential", "ModuleList", "ModuleDict", "Identity")
_LOSS_SETTINGS = ("reduction", "ignore_index", "label_smoothing", "beta", "delta", "log_target", "full", "margin")


def named(a: Version, b: Version) -> list[Change]:
    """All of them, in the order in which a program is read."""
    kinds = (trees, initial, data, optimizers, rates, schedulers, schedules, loss_calls, order, clipping, length)
    return [change for kind in kinds for change in kind(a, b)]


def who(version: Version, roles: tuple[int, ...]) -> str:
    return ", ".join(name for role in roles if (name := version.named(role))) or "the weights"


def trees(a: Version, b: Version) -> Iterator[Change]:
    """Layers of each root module, names of the user's own classes left out."""
    left = {a.role(f.subject): f for f in a.facts.of("module.tree") if f.subject in a.roles}
    right = {b.role(f.subject): f for f in b.facts.of("module.tree") if f.subject in b.roles}
    for role in sorted(set(left) & set(right)):
        x, y = left[role], right[role]
        old, new = _layers(x, a), _layers(y, b)
        if sorted(old) != sorted(new):
            gone, come = _lost_and_new(old, new)
            dropout = all("Dropout" in layer for layer in (*gone, *come))
            yield Change.of(
                "dropout" if dropout else "architecture", "tree", _list(gone), _list(come), who=x.subject,
                phase="model", line_before=x.line, line_after=y.line, words=_word_pattern([*gone, *come]),
            )  # fmt: skip
        if x["parameters"] != y["parameters"]:
            yield Change.of(
                "parameters", "count", x["parameters"], y["parameters"], who=x.subject, phase="model",
                line_before=x.line, line_after=y.line, words=_word_pattern([*_lost_and_new(old, new)[0], "nn"]),
            )  # fmt: skip


def _layers(tree: Fact, version: Version) -> list[str]:
    own = {n.name for t in version.source.trees.values() for n in ast.walk(t) if isinstance(n, ast.ClassDef)}
    found = []
    for row in tree["modules"]:
        bare = row["repr"] == f"{row['class']}()"
        if row["class"] not in own and not (bare and row["class"] in _CONTAINERS):
            found.append(row["repr"])
    return found


def _lost_and_new(old: list[str], new: list[str]) -> tuple[list[str], list[str]]:
    gone, come = [], []
    for tag, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag != "equal":
            gone += old[i:j]
            come += new[k:m]
    return gone, come


def _list(layers: list[str]) -> str:
    names = list(dict.fromkeys(layers))
    return short(", ".join(names[:4]) + (" …" if len(names) > 4 else "")) or "no such layer"


def _word_pattern(layers: list[str]) -> str:
    names = {layer.partition("(")[0] for layer in layers}
    return "|".join(sorted(names)) or "nn"


def initial(a: Version, b: Version) -> Iterator[Change]:
    """Scale of the first weights, beyond what two draws of one distribution may differ."""
    right = {b.roles[f.subject]: f for f in b.roots}
    stepped = {role for fact in a.facts.of("event.step") for role in owners(fact, a)}
    for x in a.roots:
        y = right.get(a.roles[x.subject])
        if stepped and a.roles[x.subject] not in stepped:
            continue
        rows = list(zip(x["parameters"] or [], y["parameters"] or [], strict=False)) if y is not None else []
        for p, q in rows:
            if p["shape"] != q["shape"] or not p["start"] or not q["start"]:
                break
            count = math.prod(p["shape"])
            old, new = (row["start"][0] / math.sqrt(max(count, 1)) for row in (p, q))
            if abs(old - new) > max(0.05, 5 / math.sqrt(2 * max(count, 1))) * max(old, new) + 1e-7:
                yield Change.of("initialisation", "init", old, new, who=x.subject, key=p["name"], phase="model",
                                words="init|normal_|uniform_|std|scale|zero")  # fmt: skip
                break


def data(a: Version, b: Version) -> Iterator[Change]:
    """Batches: their size, order, shape and range."""
    for x, y in zip(a.facts.of("data.loader"), b.facts.of("data.loader"), strict=False):
        if x["batch_size"] != y["batch_size"]:
            yield Change.of("data", "batch_size", x["batch_size"], y["batch_size"], phase="data", decisive=True,
                            line_before=x.line, line_after=y.line, words="batch")  # fmt: skip
        for key in ("shuffle", "drop_last"):
            if bool(x[key]) != bool(y[key]):
                yield Change.of("data", "loader", x[key], y[key], key=key, phase="data", decisive=True,
                                line_before=x.line, line_after=y.line, words=key)  # fmt: skip
    for x, y in zip(a.facts.of("data.batch"), b.facts.of("data.batch"), strict=False):
        for p, q in zip(x["parts"], y["parts"], strict=False):
            if isinstance(p, dict) and isinstance(q, dict) and not _alike(p, q):
                yield Change.of("data range", "data", range_of(p), range_of(q), phase="data", line_before=x.line,
                                line_after=y.line, words="Normalize|transform|ToTensor|255|127|Resize")  # fmt: skip
                return


def _alike(p: dict[str, Any], q: dict[str, Any]) -> bool:
    same = p.get("shape", [])[1:] == q.get("shape", [])[1:]
    scale = max(abs(p.get("max", 0.0)), abs(p.get("min", 0.0)))
    return same and all(abs(p[k] - q[k]) <= 0.02 * scale + 1e-6 for k in ("min", "max") if k in p and k in q)


def optimizers(a: Version, b: Version) -> Iterator[Change]:
    """Class and settings of the optimiser of each role."""
    left, right = _created(a), _created(b)
    for key in [k for k in left if k in right]:
        x, y = left[key], right[key]
        if x["class"] != y["class"]:
            yield Change.of("optimiser", "optimizer", x["class"], y["class"], who=who(a, key[0]), decisive=True,
                            line_before=x.line, line_after=y.line, words="optim")  # fmt: skip
            continue
        old, new = x["defaults"] or {}, y["defaults"] or {}
        for name in sorted((old.keys() | new.keys()) - _TECHNICAL):
            if old.get(name) != new.get(name):
                yield Change.of(
                    "optimiser", "default", old.get(name), new.get(name), who=who(a, key[0]), key=name, decisive=True,
                    line_before=x.line, line_after=y.line, words=f"{name.rstrip('s')}|Adam|SGD|momentum|optim",
                )  # fmt: skip


def _created(version: Version) -> dict[tuple[tuple[int, ...], int], Fact]:
    found: dict[tuple[tuple[int, ...], int], Fact] = {}
    for fact in version.facts.of("optimizer.created"):
        roles = owners(fact, version)
        number = sum(key[0] == roles for key in found)
        found[roles, number] = fact
    return found


def rates(a: Version, b: Version) -> Iterator[Change]:
    """Learning rates at the steps: a setting where they are constant, a schedule where they vary."""
    for found in steps(a, b):
        if found.kind != "rate" or found.fact_before is None or found.fact_after is None:
            continue
        x, y = found.fact_before, found.fact_after
        roles = owners(x, a)
        varied = any(
            len({str(f["lr"]) for f in v.facts.of("event.step") if f["identity"] == fact["identity"]}) > 1
            for v, fact in ((a, x), (b, y))
        )
        yield Change.of(
            "schedule" if varied else "optimiser", "rate", found.before, found.after, who=who(a, roles), n=found.n,
            line_before=None, line_after=None, decisive=True, words="lr|learning_rate|warm|decay|schedul",
        )  # fmt: skip
        return


def schedulers(a: Version, b: Version) -> Iterator[Change]:
    """Classes and settings of PyTorch's schedulers."""
    for x, y in zip(a.facts.of("scheduler.created"), b.facts.of("scheduler.created"), strict=False):
        if x.subject != y.subject:
            yield Change.of("schedule", "scheduler", x.subject, y.subject, key="class", decisive=True,
                            line_before=x.line, line_after=y.line, words="lr_scheduler|schedul")  # fmt: skip
            continue
        old, new = x["settings"] or {}, y["settings"] or {}
        for key in sorted(old.keys() | new.keys()):
            if not key.startswith("_") and key not in ("base_lrs", "last_epoch") and old.get(key) != new.get(key):
                yield Change.of("schedule", "scheduler", old.get(key), new.get(key), who=x.subject, key=key,
                                decisive=True, line_before=x.line, line_after=y.line, words=key)  # fmt: skip


def schedules(a: Version, b: Version) -> Iterator[Change]:
    """Tables of noise levels and the like, in buffers and objects."""
    for found in tables(a, b):
        change = table(found, a)
        if change is not None and change.what == "schedule":
            yield change
            return


def table(found: Parting, a: Version) -> Change | None:
    """A table that differs: of a schedule, or the running average of weights; None for statistics of the data."""
    fact = found.fact_before
    if fact is None:
        return None
    name = fact.subject if fact.topic == "history.table" else _buffer(fact, found)
    last = name.rpartition(".")[2]
    if last in ("running_mean", "running_var", "num_batches_tracked") or name == "":
        return None
    averaged = any(word in name.lower() for word in ("ema", "shadow", "average", "avg"))
    shape = found.before if isinstance(found.before, list) and found.before and isinstance(found.before[0], int) else []
    flat = fact["shape"] if fact.topic == "history.table" else shape or [8]
    if not averaged and (len(flat) != 1 or flat[0] < 4):
        return None
    return Change.of("EMA" if averaged else "schedule", "table", found.before, found.after, who=name, decisive=True,
                     words="ema|decay" if averaged else "beta|alpha|schedule|sigma|linspace|cos|timesteps")  # fmt: skip


def _buffer(fact: Fact, found: Parting) -> str:
    """The name of the buffer that differs, where it is a table."""
    for row in fact["buffers"] or []:
        constant = row["start"] is None or plain_equal(row["start"], row["now"])
        if found.before in (row["ends"], row["shape"]) and len(row["shape"]) == 1 and row["shape"][0] >= 4 and constant:
            return f"{fact.subject}.{row['name']}"
    return ""


def plain_equal(x: list[float], y: list[float]) -> bool:
    """Whether a table stayed as it was: its numbers are rounded to seven figures when they are told."""
    return len(x) == len(y) and all(math.isclose(p, q, rel_tol=1e-5, abs_tol=1e-9) for p, q in zip(x, y, strict=True))


def loss_calls(a: Version, b: Version) -> Iterator[Change]:
    """PyTorch's losses as they are called: function, reduction and what else is set."""
    old, new = _calls(a), _calls(b)
    for tag, i, j, k, m in difflib.SequenceMatcher(None, [t for t, _ in old], [t for t, _ in new]).get_opcodes():
        if tag != "equal":
            x, y = old[i : i + 1] or old[-1:], new[k : k + 1] or new[-1:]
            yield Change.of(
                "loss", "loss_call", ", ".join(t for t, _ in old[i:j]) or "nothing",
                ", ".join(t for t, _ in new[k:m]) or "nothing", line_before=x[0][1].line if x else None,
                line_after=y[0][1].line if y else None, words="loss|criterion|reduction|entropy|mse|ignore_index",
            )  # fmt: skip
            return


def _calls(version: Version) -> list[tuple[str, Fact]]:
    found: dict[tuple[str, int | None, str], tuple[str, Fact]] = {}
    for fact in version.facts.of("loss.call"):
        settings = {"reduction": fact["reduction"]} | (fact["kwargs"] or {})
        told = [f"{k}={settings[k]}" for k in _LOSS_SETTINGS if k in settings and settings[k] not in (None, -100, 0.0)]
        found.setdefault((fact.subject, fact.line, fact.file), (f"{fact.subject}({', '.join(told)})", fact))
    return list(found.values())


def order(a: Version, b: Version) -> Iterator[Change]:
    """Backward passes and steps in their order, and whose parameters each backward pass reaches."""
    old, new = _tokens(a), _tokens(b)
    size = min(len(old), len(new))
    n = next((n for n in range(size) if old[n] != new[n]), None)
    if n is not None:
        left = [f for f in a.facts if f.topic in ("event.backward", "event.step")][n]
        right = [f for f in b.facts if f.topic in ("event.backward", "event.step")][n]
        yield Change.of("update order", "order", " ".join(old[:12]), " ".join(new[:12]), line_before=left.line,
                        line_after=right.line, words="step|backward|critic|% ")  # fmt: skip
        return
    for x, y in zip(a.facts.of("event.backward"), b.facts.of("event.backward"), strict=False):
        reach_a, reach_b = _reach(x, a), _reach(y, b)
        if reach_a != reach_b:
            yield Change.of("gradients", "reach", who(a, reach_a), who(b, reach_b), n=x["n"], line_before=x.line,
                            line_after=y.line, words="detach|no_grad|requires_grad")  # fmt: skip
            return


def _tokens(version: Version) -> list[str]:
    found = []
    for fact in version.facts:
        if fact.topic == "event.backward":
            found.append("B")
        elif fact.topic == "event.step":
            found.append("S" + "".join(map(str, owners(fact, version))))
    return found


def _reach(fact: Fact, version: Version) -> tuple[int, ...]:
    return tuple(sorted({version.role(n) for n, g in (fact["grads"] or {}).items() if n and g.get("trainable", 1)}))


def clipping(a: Version, b: Version) -> Iterator[Change]:
    """Bounds of gradients and of weights."""
    for topic, key in (("event.clip", "max"), ("event.clamp", "bounds")):
        x, y = a.facts.first(topic), b.facts.first(topic)
        if (x is None) != (y is None) or (x is not None and y is not None and not near(x[key], y[key])):
            if a.facts.of("event.step") and b.facts.of("event.step"):
                fact = x or y
                yield Change.of(
                    "clipping", "clip", x[key] if x else "nothing", y[key] if y else "nothing",
                    who=fact.subject if fact and topic == "event.clip" else "clamp_", line_before=x.line if x else None,
                    line_after=y.line if y else None, words="clip|clamp", decisive=x is not None and y is not None,
                )  # fmt: skip


def length(a: Version, b: Version) -> Iterator[Change]:
    """How many rounds the loops around training have."""
    old, new = ([f for f in v.facts.of("run.loop") if f["training"]] for v in (a, b))
    if len(old) != len(new) or _sizes(a) != _sizes(b):
        return
    for x, y in zip(sorted(old, key=lambda f: f.line or 0), sorted(new, key=lambda f: f.line or 0), strict=True):
        if isinstance(x["of"], int) and isinstance(y["of"], int) and x["of"] != y["of"]:
            yield Change.of("training length", "length", x["of"], y["of"], decisive=True, line_before=x.line,
                            line_after=y.line, words="epoch|iters|steps")  # fmt: skip


def _sizes(version: Version) -> list[Any]:
    return [fact["batch_size"] for fact in version.facts.of("data.loader")]
