"""Suggestions that are no findings: what helps programs of this kind, where a fact says that it is missing."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bowerbird.reading.explain.cards import Language
from bowerbird.reading.explain.study import Study
from bowerbird.reading.facts import Fact
from bowerbird.reading.patching import Patch, insert_before, replace_line


@dataclass(frozen=True)
class Suggestion:
    """``card`` says why; ``fact`` is what made it apply, at the line to change."""

    card: str
    fact: Fact
    said: dict[Language, str]
    patch: Patch | None = None


def suggestions(study: Study) -> Iterator[Suggestion]:
    """All that apply, the best founded first; not what a finding has already said at that line."""
    if study.shown:  # a driver of ours: what it leaves out is the trainer's
        return
    said = {(f.file, f.line) for f in study.findings if f.severity in ("error", "warning")}
    for offer in (_logits, _first_beta, _clipping, _averaged, _seed):
        for found in offer(study):
            if (found.fact.file, found.fact.line) not in said:
                yield found


def _family(study: Study) -> str:
    fact = study.facts.first("program.family")
    return fact.subject if fact is not None else "other"


def _logits(study: Study) -> Iterator[Suggestion]:
    """Probabilities and their logarithm in two steps."""
    call = study.facts.first("loss.call", "binary_cross_entropy")
    if call is None or _family(study) != "gan":
        return
    fact = study.add(
        "suggest.logits", "binary_cross_entropy", {"function": call.subject, "because": call.id}, like=call
    )
    yield Suggestion("sigmoid-logits", fact, {
        "en": "let the network end in its logit and use binary_cross_entropy_with_logits, which stays exact where the "
        "sigmoid saturates.",
        "zh": "让网络直接输出 logit，改用 binary_cross_entropy_with_logits，它在 sigmoid 饱和处仍然精确。",
    })  # fmt: skip


def _first_beta(study: Study) -> Iterator[Suggestion]:
    if _family(study) != "gan":
        return
    for optimizer in study.facts.of("optimizer.created"):
        betas = optimizer["betas"]
        if betas and betas[0] > 0.8 and optimizer.file in study.files:
            lines = study.source.texts[optimizer.file].splitlines()
            old = study.text(optimizer.file, optimizer.line or 0)
            patch = None
            if "betas" not in old and re.search(r"\)\s*$", old):
                new = re.sub(r"\)\s*$", f", betas=(0.5, {betas[1]}))", old)
                patch = replace_line(optimizer.file, optimizer.line or 0, old, new, lines, label="betas (0.5, …)")
            fact = study.add(
                "suggest.beta", optimizer.subject, {"betas": betas, "because": optimizer.id}, like=optimizer
            )
            yield Suggestion("gan-adam", fact, {
                "en": "lower Adam's first beta to 0.5 or 0: its memory chases an opponent that moved on.",
                "zh": "把 Adam 的第一个 beta 降到 0.5 或 0：对旧梯度的记忆会追逐一个已经改变的对手。",
            }, patch)  # fmt: skip
            return


def _clipping(study: Study) -> Iterator[Suggestion]:
    if _family(study) not in ("transformer", "recurrent") or study.facts.first("event.clip") is not None:
        return
    step = study.facts.first("event.step")
    if step is None or step.file not in study.files or not isinstance(step["grad_norm"], int | float):
        return
    unit = study.program.units[step.file]
    call = next((c for c in unit.calls("*.step") if c.lineno == step.line), None)
    owner = next(iter(step["owners"] or {}), "")
    patch = None
    if call is not None and owner.isidentifier() and owner in unit.text and isinstance(unit.statement(call), ast.Expr):
        new = f"torch.nn.utils.clip_grad_norm_({owner}.parameters(), 1.0)"
        patch = insert_before(step.file, step.line or 1, new, unit.lines, label="clip gradients")
    value = {"grad_norm": step["grad_norm"], "because": step.id}
    fact = study.add("suggest.clip", step.subject, value, like=step)
    yield Suggestion("gradient-clipping", fact, {
        "en": "clip the gradient's norm: one bad batch cannot then undo what was learned.",
        "zh": "裁剪梯度范数：这样一个坏批次不会毁掉已学到的东西。",
    }, patch)  # fmt: skip


def _averaged(study: Study) -> Iterator[Suggestion]:
    text = study.source.texts[study.file]
    if _family(study) not in ("diffusion", "gan") or re.search(
        r"\bema\b|moving average|AveragedModel", text, re.IGNORECASE
    ):
        return
    step = _sampled(study)
    if step is None:
        return
    fact = study.add("suggest.ema", step.subject, {"because": step.id}, like=step)
    yield Suggestion("ema", fact, {
        "en": "sample from a moving average of the weights: single steps of training leave their noise in the samples.",
        "zh": "用权重的滑动平均来采样：训练中单独一步的噪声会留在样本里。",
    })  # fmt: skip


def _sampled(study: Study) -> Fact | None:
    """The last step of what is sampled: in a GAN of the network that judges nothing, else of any."""
    judges = {f.subject for f in study.facts.of("event.forward") if f["from"]}
    steps = study.facts.of("event.step")
    makers = {o.subject for o in study.optimizers if not judges & set(o["moves"] or [])}
    own = [s for s in steps if s.subject in makers] if _family(study) == "gan" else []
    return (own or steps)[-1] if steps else None


def _seed(study: Study) -> Iterator[Suggestion]:
    unit = study.program.units[study.file]
    if re.search(r"manual_seed|seed_everything|set_seed", unit.text) or not study.facts.of("random.draw"):
        return
    if not study.facts.of("event.step"):
        return
    after = next(
        (n for n in unit.tree.body if not isinstance(n, ast.Import | ast.ImportFrom) and not _docstring(n)), None
    )
    imports = any(isinstance(n, ast.Import) and any(a.name == "torch" for a in n.names) for n in unit.tree.body)
    if after is None:
        return
    patch = None
    if imports and not study.source.cells:
        line = min([after.lineno, *(d.lineno for d in getattr(after, "decorator_list", []))])
        patch = insert_before(unit.file, line, "torch.manual_seed(0)", unit.lines, label="seed")
    draws = study.facts.of("random.draw")
    value = {"draws": len(draws), "because": draws[0].id}
    fact = study.add("suggest.seed", "torch.manual_seed", value, file=unit.file, line=after.lineno)
    said: dict[Language, str] = {
        "en": "set a seed, and give results over several: two runs differ by chance alone.",
        "zh": "设定随机种子，并在多个种子上报告结果：两次运行之间本就有偶然差异。",
    }
    yield Suggestion("error-bars", fact, said, patch)


def _docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


Offer = Callable[[Study], Iterator[Suggestion]]
