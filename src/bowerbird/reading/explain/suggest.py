"""Suggestions that are no findings: what helps programs of this kind, where a fact says that it is missing."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact
from bowerbird.reading.patching import Patch, insert_before, replace_line


@dataclass(frozen=True)
class Suggestion:
    """``card`` says why; ``fact`` made it apply, at the line to change, and its topic is the key of its sentence."""

    card: str
    fact: Fact
    patch: Patch | None = None


def suggestions(study: Study) -> Iterator[Suggestion]:
    """All that apply, the best founded first; not what a finding has already said at that line."""
    if study.shown:  # a driver of ours: what it leaves out is the trainer's
        return
    said = {(f.file, f.line) for f in study.findings if f.severity in ("error", "warning")}
    for offer in (_logits, _first_beta, _clipping, _averaged, _seed):
        found = offer(study)
        if found is not None and (found.fact.file, found.fact.line) not in said:
            yield found


def _logits(study: Study) -> Suggestion | None:
    """Probabilities and their logarithm in two steps."""
    call = study.facts.first("loss.call", "binary_cross_entropy")
    if call is None or study.family.like != "gan":
        return None
    value = {"function": call.subject, "because": call.id}
    return Suggestion("sigmoid-logits", study.add("suggest.logits", call.subject, value, like=call))


def _first_beta(study: Study) -> Suggestion | None:
    adams = [f for f in study.facts.of("optimizer.created") if f["betas"] and f["betas"][0] > 0.8]
    created = next((f for f in adams if f.file in study.files), None)
    if created is None or study.family.like != "gan":
        return None
    old, patch = study.text(created.file, created.line or 0), None
    if "betas" not in old and re.search(r"\)\s*$", old):
        new = re.sub(r"\)\s*$", f", betas=(0.5, {created['betas'][1]}))", old)
        lines = study.source.texts[created.file].splitlines()
        patch = replace_line(created.file, created.line or 0, old, new, lines, label="betas (0.5, …)")
    value = {"betas": created["betas"], "because": created.id}
    return Suggestion("gan-adam", study.add("suggest.beta", created.subject, value, like=created), patch)


def _clipping(study: Study) -> Suggestion | None:
    step = study.facts.first("event.step")
    sequences = study.family.like in ("transformer", "recurrent")
    if step is None or not sequences or study.facts.first("event.clip") is not None or step.file not in study.files:
        return None
    if not isinstance(step["grad_norm"], int | float):
        return None
    value = {"grad_norm": step["grad_norm"], "because": step.id}
    return Suggestion(
        "gradient-clipping", study.add("suggest.clip", step.subject, value, like=step), _clip(study, step)
    )


def _clip(study: Study, step: Fact) -> Patch | None:
    """The patch that clips what a step moves, where that has a name and the step is a statement."""
    unit, owner = study.program.units[step.file], next(iter(step["owners"] or {}), "")
    call = next((c for c in unit.calls("*.step") if c.lineno == step.line), None)
    named = owner.isidentifier() and owner in unit.text
    if call is None or not named or not isinstance(unit.statement(call), ast.Expr):
        return None
    new = f"torch.nn.utils.clip_grad_norm_({owner}.parameters(), 1.0)"
    return insert_before(step.file, step.line or 1, new, unit.lines, label="clip gradients")


def _averaged(study: Study) -> Suggestion | None:
    known = re.search(r"\bema\b|moving average|AveragedModel", study.source.texts[study.file], re.IGNORECASE)
    step = None if known or study.family.like not in ("diffusion", "gan") else _sampled(study)
    if step is None:
        return None
    return Suggestion("ema", study.add("suggest.ema", step.subject, {"because": step.id}, like=step))


def _sampled(study: Study) -> Fact | None:
    """The last step of what is sampled: in a GAN of the network that judges nothing, else of any."""
    judges = {f.subject for f in study.facts.of("event.forward") if f["from"]}
    steps = study.facts.of("event.step")
    makers = {o.subject for o in study.optimizers if not judges & set(o["moves"] or [])}
    own = [s for s in steps if s.subject in makers] if study.family.like == "gan" else []
    return (own or steps)[-1] if steps else None


def _seed(study: Study) -> Suggestion | None:
    unit, draws = study.program.units[study.file], study.facts.of("random.draw")
    seeded = re.search(r"manual_seed|seed_everything|set_seed", unit.text)
    body = [n for n in unit.tree.body if not isinstance(n, ast.Import | ast.ImportFrom) and not _docstring(n)]
    if seeded or not draws or not study.facts.of("event.step") or not body:
        return None
    imports = any(isinstance(n, ast.Import) and any(a.name == "torch" for a in n.names) for n in unit.tree.body)
    patch = None
    if imports and not study.source.cells:
        line = min([body[0].lineno, *(d.lineno for d in getattr(body[0], "decorator_list", []))])
        patch = insert_before(unit.file, line, "torch.manual_seed(0)", unit.lines, label="seed")
    value = {"draws": len(draws), "because": draws[0].id}
    fact = study.add("suggest.seed", "torch.manual_seed", value, file=unit.file, line=body[0].lineno)
    return Suggestion("error-bars", fact, patch)


def _docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
