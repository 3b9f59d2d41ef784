"""Changes that facts name outright: optimisers, schedules, data, layers, initial weights, tables, calls of losses."""

import ast
import difflib
import math
from collections.abc import Iterator
from typing import Any

from bowerbird.reading.facts import Fact
from bowerbird.reading.history.change import Change, range_of
from bowerbird.reading.history.trajectory import Parting, near, owners, steps, tables
from bowerbird.reading.history.version import Version, short

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
        gone, come = _lost_and_new(old, new)
        if sorted(old) != sorted(new):
            kind = "dropout" if all("Dropout" in layer for layer in (*gone, *come)) else "architecture"
            words = _word_pattern([*gone, *come])
            yield Change.of("tree", _list(gone), _list(come), x, y, what=kind, who=x.subject, words=words)
        if x["parameters"] != y["parameters"]:
            words = _word_pattern([*gone, "nn"])
            yield Change.of("count", x["parameters"], y["parameters"], x, y, who=x.subject, words=words)


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
                yield Change.of("init", old, new, who=x.subject, key=p["name"])
                break


def data(a: Version, b: Version) -> Iterator[Change]:
    """Batches: their size, order, shape and range."""
    for x, y in zip(a.facts.of("data.loader"), b.facts.of("data.loader"), strict=False):
        if x["batch_size"] != y["batch_size"]:
            yield Change.of("batch_size", x["batch_size"], y["batch_size"], x, y)
        for key in ("shuffle", "drop_last"):
            if bool(x[key]) != bool(y[key]):
                yield Change.of("loader", x[key], y[key], x, y, key=key, words=key)
    for x, y in zip(a.facts.of("data.batch"), b.facts.of("data.batch"), strict=False):
        for p, q in zip(x["parts"], y["parts"], strict=False):
            if isinstance(p, dict) and isinstance(q, dict) and not _alike(p, q):
                yield Change.of("data", range_of(p), range_of(q), x, y)
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
            yield Change.of("optimizer", x["class"], y["class"], x, y, who=who(a, key[0]))
            continue
        old, new = x["defaults"] or {}, y["defaults"] or {}
        for name in sorted((old.keys() | new.keys()) - _TECHNICAL):
            if old.get(name) != new.get(name):
                words = f"{name.rstrip('s')}|Adam|SGD|momentum|optim"
                yield Change.of(
                    "default", old.get(name), new.get(name), x, y, who=who(a, key[0]), key=name, words=words
                )


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
        what = "schedule" if varied else "optimiser"
        yield Change.of("rate", found.before, found.after, what=what, who=who(a, roles), n=found.n)
        return


def schedulers(a: Version, b: Version) -> Iterator[Change]:
    """Classes and settings of PyTorch's schedulers."""
    for x, y in zip(a.facts.of("scheduler.created"), b.facts.of("scheduler.created"), strict=False):
        if x.subject != y.subject:
            yield Change.of("scheduler", x.subject, y.subject, x, y, key="class")
            continue
        old, new = x["settings"] or {}, y["settings"] or {}
        for key in sorted(old.keys() | new.keys()):
            if not key.startswith("_") and key not in ("base_lrs", "last_epoch") and old.get(key) != new.get(key):
                yield Change.of("scheduler", old.get(key), new.get(key), x, y, who=x.subject, key=key, words=key)


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
    own: dict[str, Any] = {"what": "EMA", "words": "ema|decay"} if averaged else {}
    return Change.of("table", found.before, found.after, who=name, **own)


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
            one, other = (", ".join(t for t, _ in calls) or "nothing" for calls in (old[i:j], new[k:m]))
            yield Change.of("loss_call", one, other, x[0][1] if x else None, y[0][1] if y else None)
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
        yield Change.of("order", " ".join(old[:12]), " ".join(new[:12]), left, right)
        return
    for x, y in zip(a.facts.of("event.backward"), b.facts.of("event.backward"), strict=False):
        reach_a, reach_b = _reach(x, a), _reach(y, b)
        if reach_a != reach_b:
            yield Change.of("reach", who(a, reach_a), who(b, reach_b), x, y, n=x["n"])
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
        differ = (x is None) != (y is None) or (x is not None and y is not None and not near(x[key], y[key]))
        if differ and a.facts.of("event.step") and b.facts.of("event.step"):
            one, other = (fact[key] if fact is not None else "nothing" for fact in (x, y))
            name = next(fact.subject for fact in (x, y) if fact) if topic == "event.clip" else "clamp_"
            yield Change.of("clip", one, other, x, y, who=name, decisive=x is not None and y is not None)


def length(a: Version, b: Version) -> Iterator[Change]:
    """How many rounds the loops around training have."""
    old, new = ([f for f in v.facts.of("run.loop") if f["training"]] for v in (a, b))
    if len(old) != len(new) or _sizes(a) != _sizes(b):
        return
    for x, y in zip(sorted(old, key=lambda f: f.line or 0), sorted(new, key=lambda f: f.line or 0), strict=True):
        if isinstance(x["of"], int) and isinstance(y["of"], int) and x["of"] != y["of"]:
            yield Change.of("length", x["of"], y["of"], x, y)


def _sizes(version: Version) -> list[Any]:
    return [fact["batch_size"] for fact in version.facts.of("data.loader")]
