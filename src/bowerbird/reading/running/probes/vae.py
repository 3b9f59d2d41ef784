"""Probes of the KL term: the expressions of the source as functions of what the encoder gives."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bowerbird.reading.program import Unit, dotted, last_name, names_in, targets_of
from bowerbird.reading.running.formula import Formulas, batch_sizes, calls_in, coefficient, evaluate, terms, units
from bowerbird.reading.running.live import Live
from bowerbird.reading.running.probes import probe

_MEAN = re.compile(
    r"^(z_?|q_?|post_?|posterior_|latent_|enc_|encoded_|weight_|bias_)?"
    r"(mu|mus|mean|means|loc|μ)(_?(z|q|x|post|enc|phi))?$",
    re.I,
)
_SCALE = re.compile(
    r"^(z_?|q_?|post_?|posterior_|latent_|enc_|encoded_|weight_|bias_)?"
    r"(log_?var(iance)?|logv|lv|ln_?var|log_?sigma(_?(sq|2|squared))?|log_?std|log_?scale|logstd|logsigma|"
    r"sigma(_?(sq|2|squared))?|std|stddev|stdev|scale|var|variance|σ)(_?(z|q|x|post|enc|phi))?$",
    re.I,
)
DRAWS = frozenset("randn randn_like rand rand_like normal normal_ sample rsample new_empty".split())
_TERM = re.compile(r"kl|latent|reg|divergence|dkl|prior", re.I)
READINGS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "the logarithm of the variance": lambda s: s.exp(),
    "the standard deviation": lambda s: s.square(),
    "the variance": lambda s: s,
    "the logarithm of the standard deviation": lambda s: (2 * s).exp(),
}


def is_mean(name: str) -> bool:
    return bool(_MEAN.match(name))


def is_scale(name: str) -> bool:
    return bool(_SCALE.match(name))


def is_latent(name: str) -> bool:
    """Whether a name is one that the parameters of a posterior have."""
    return is_mean(name) or is_scale(name)


def claimed(name: str) -> str:
    """What the name of a scale says that it is."""
    lower = name.lower().replace("_", "")
    if re.search(r"(log|ln)(var|v$|sigmasq|sigma2|sigmasquared)|^lv$|logv", lower):
        return "the logarithm of the variance"
    if re.search(r"log(std|sigma|scale)", lower):
        return "the logarithm of the standard deviation"
    if re.search(r"var|sigma2|sigmasq", lower):
        return "the variance"
    return "the standard deviation"


@dataclass
class Site:
    """An expression of the user's over the parameters of a posterior."""

    line: int
    statement: ast.stmt
    written: ast.expr
    expanded: ast.expr
    mean: str
    scale: str

    def value(self, namespace: dict[str, Any], mean: torch.Tensor, scale: torch.Tensor, others: dict[str, Any]) -> Any:
        return evaluate(self.expanded, namespace, {**others, self.mean: mean, self.scale: scale})


def site_of(formulas: Formulas, statement: ast.stmt, written: ast.expr) -> Site | None:
    expanded = batch_sizes(formulas.expand(written, statement), is_latent)
    names = names_in(expanded)
    means, scales = [n for n in names if is_mean(n)], [n for n in names if is_scale(n)]
    if len(means) != 1 or len(scales) != 1:
        return None
    return Site(written.lineno, statement, written, expanded, means[0], scales[0])


def free_of(site: Site, namespace: dict[str, Any]) -> dict[str, Any] | None:
    """Values for the other names of a site: weights are one; None where a name stands for something else."""
    found: dict[str, Any] = {}
    for name in names_in(site.expanded) - {site.mean, site.scale}:
        if name in namespace or name in __builtins__:  # type: ignore[operator]
            continue
        if name == "self" or re.search(r"weight|beta|lambda|alpha|gamma|coef|eps|annea|kld|kl_|scale", name, re.I):
            found[name] = Anything() if name == "self" else 1.0
        elif re.search(r"batch|^(b|n|bs)$", name, re.I):
            found[name] = 4
        elif re.fullmatch(r"(x|data|input|inputs|img|imgs|images|recon_x|x_hat|batch)", name):
            found[name] = torch.zeros(4, 12)
        else:
            return None
    return found


class Anything:
    """Stands for ``self`` where a formula only takes a weight from it."""

    def __getattr__(self, name: str) -> float:
        return 1.0


def kl_sites(formulas: Formulas) -> list[Site]:
    """Where the source writes a divergence of a posterior."""
    found = []
    for statement, value in formulas.statements():
        for term in terms(value, is_latent):
            site = site_of(formulas, statement, term)
            if site is None or calls_in(site.expanded) & DRAWS:
                continue
            words = calls_in(term)
            inside = {n.attr for n in ast.walk(term) if isinstance(n, ast.Attribute)}
            formula = any(map(is_mean, names_in(term) | inside)) and any(map(is_scale, names_in(site.expanded)))
            if "kl_divergence" in words or (formula and any(isinstance(n, ast.BinOp) for n in ast.walk(term))):
                if "Normal" not in words or "kl_divergence" in words:
                    found.append(site)
        if (
            isinstance(value, ast.expr)
            and not any(map(is_latent, names_in(value)))
            and "kl_divergence" in calls_in(value)
        ):
            for call in ast.walk(value):
                if isinstance(call, ast.Call) and last_name(call) == "kl_divergence":
                    site = site_of(formulas, statement, call)
                    if site is not None:
                        found.append(site)
    return found


def _divergence(mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
    q = torch.distributions.Normal(mean, variance.sqrt())
    return torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0))


def _grid(size: tuple[int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(size, generator=generator, dtype=torch.float64),
        torch.rand(size, generator=generator, dtype=torch.float64) * 1.5 + 0.3,
    )


def _identify(site: Site, namespace: dict[str, Any]) -> dict[str, Any] | None:
    """Which reading of the scale makes the term a multiple of the true divergence, and the multiple at two sizes."""
    others = free_of(site, namespace)
    if others is None:
        return None
    sizes = ((4, 6), (8, 6), (4, 12))
    values: dict[tuple[int, int], list[float]] = {size: [] for size in sizes}
    truths: dict[str, dict[tuple[int, int], list[float]]] = {name: {size: [] for size in sizes} for name in READINGS}
    shape: list[int] = []
    for size in sizes:
        for seed in range(5):
            mean, scale = _grid(size, seed)
            out = site.value(namespace, mean, scale, {**others, **{k: size[0] for k, v in others.items() if v == 4}})
            if not isinstance(out, torch.Tensor) or not out.is_floating_point() or not bool(out.isfinite().all()):
                return None
            shape = list(out.shape) if size == (4, 6) else shape
            values[size].append(float(out.sum()))
            for name, variance in READINGS.items():
                truths[name][size].append(float(_divergence(mean, variance(scale)).sum()))
    zero = {}
    for name, (at_mean, at_scale) in {"log": (0.0, 0.0), "plain": (0.0, 1.0)}.items():
        mean = torch.full((4, 6), at_mean, dtype=torch.float64)
        zero[name] = float(site.value(namespace, mean, torch.full_like(mean, at_scale), others).sum())
    fits = {}
    for name in READINGS:
        factors, errors = [], []
        for size in sizes:
            a, b = torch.tensor(truths[name][size]), torch.tensor(values[size])
            factor = float(a @ b / (a @ a))
            factors.append(factor)
            errors.append(float((b - factor * a).abs().max() / (b.abs().max() + 1e-12)))
        fits[name] = (max(errors), factors)
    best = min(fits, key=lambda name: fits[name][0])
    return {
        "reading": best if fits[best][0] < 1e-3 else "",
        "error": fits[best][0],
        "factors": fits[best][1],
        "shape": shape,
        "at_prior": zero["log" if "log" in claimed(site.scale) else "plain"],
        "negative": min(min(v) for v in values.values()) < -1e-6,
    }


@probe("vae_kl", cheap=True)
def kl_terms(live: Live) -> None:
    """Every divergence that the source writes, against torch.distributions on a grid."""
    for unit in units(live.files):
        formulas = Formulas(unit, is_latent)
        seen: set[int] = set()
        for site in kl_sites(formulas):
            if id(site.statement) in seen:
                continue
            try:
                found = _identify(site, live.namespace)
            except Exception:  # the expression needs what is not at hand
                continue
            if found is None:
                continue
            seen.add(id(site.statement))
            target = next((dotted(t) or "" for t in targets_of(site.statement)), "")
            function = unit.function(site.statement)
            named = bool(_TERM.search(target) or (function is not None and _TERM.search(function.name)))
            bounded = bool(calls_in(site.expanded) & {"clamp", "clamp_", "max", "maximum", "relu", "clip", "min"})
            value = {
                **found,
                "scale": site.scale,
                "claimed": claimed(site.scale),
                "named": named,
                "bounded": bounded,
                "target": target,
                "text": ast.unparse(site.written)[:160],
                "sign": _sign_in_loss(formulas, site, live),
                "scalar_then_reduced": _reduced_twice(formulas, site, live),
                "statement": site.statement.lineno,
                "function": function.name if function is not None else "",
            }
            live.record("probe.kl", target or "kl", value, line=site.line, file=unit.file)


def _number(live: Live, unit: Unit) -> Callable[[ast.expr], float | None]:
    def number(node: ast.expr) -> float | None:
        constant = unit.constant(node)
        if isinstance(constant, int | float) and not isinstance(constant, bool):
            return float(constant)
        try:
            value = evaluate(node, live.namespace, {})
        except Exception:  # a weight that only exists while the program runs
            return 1.0
        return float(value) if isinstance(value, int | float) else 1.0

    return number


def _sign_in_loss(formulas: Formulas, site: Site, live: Live) -> dict[str, Any] | None:
    """With which sign and factor a divergence enters what is returned or differentiated; None where it is not seen."""
    unit = formulas.unit
    function = unit.function(site.statement)
    names = [t.id for t in targets_of(site.statement) if isinstance(t, ast.Name)]
    inside = 1.0
    if names or isinstance(site.statement, ast.Return):
        value = site.statement.value  # type: ignore[attr-defined]
        marked = _marked(value, site.written)
        first = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
        within = coefficient(marked, "__kl__", _number(live, unit)) if not isinstance(value, ast.Tuple) else None
        if within is None:
            within = coefficient(_marked(first, site.written), "__kl__", _number(live, unit))
        if within is None:
            return None
        inside = within
        if isinstance(site.statement, ast.Return) or (marked is not value and not isinstance(marked, ast.Name)):
            return {"factor": inside, "line": site.line, "with_other": isinstance(value, ast.BinOp)}
    for statement, value in formulas.statements():
        if unit.function(statement) is not function or statement.lineno <= site.statement.lineno:
            continue
        whole = value.elts[0] if isinstance(value, ast.Tuple) and value.elts else value
        for name in names:
            if not isinstance(whole, ast.BinOp) or name not in names_in(whole) or len(names_in(whole)) < 2:
                continue
            if _folded(whole, name):
                continue
            factor = coefficient(whole, name, _number(live, unit))
            if factor is not None and any(
                isinstance(n, ast.BinOp) and isinstance(n.op, ast.Add | ast.Sub) for n in ast.walk(whole)
            ):
                negated = _negated_later(formulas, statement)
                return {"factor": inside * factor * negated, "line": statement.lineno, "with_other": True}
    return None


def _folded(whole: ast.expr, name: str) -> bool:
    """Whether a name stands inside an absolute value or a square, as a KL does that is held at a capacity: |C - KL|."""
    calls = (n for n in ast.walk(whole) if isinstance(n, ast.Call) and last_name(n) in ("abs", "square", "pow"))
    return any(name in names_in(call) for call in calls)


def _negated_later(formulas: Formulas, statement: ast.stmt) -> float:
    """-1 where the sum (an ELBO) is negated before it is minimised."""
    names = {t.id for t in targets_of(statement) if isinstance(t, ast.Name)}
    unit = formulas.unit
    for node in unit.all(ast.UnaryOp):
        if isinstance(node.op, ast.USub) and names & names_in(node.operand):
            return -1.0
    if any(re.search("elbo|lower_?bound", name, re.I) for name in names):
        return 0.0
    if isinstance(statement, ast.Return):
        function = unit.function(statement)
        if function is not None and re.search("elbo|lower_?bound", function.name, re.I):
            return 0.0
    return 1.0


def _marked(value: ast.expr, written: ast.expr) -> ast.expr:
    """A copy of an expression with a marker where the term stands."""

    class Mark(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> Any:
            if node is written:
                return ast.copy_location(ast.Name("__kl__", ast.Load()), node)
            return _copied(self, node)

    return Mark().visit(value)


def _copied(visitor: ast.NodeTransformer, node: ast.AST) -> ast.AST:
    fields = {}
    for name, value in ast.iter_fields(node):
        if isinstance(value, list):
            fields[name] = [visitor.visit(v) if isinstance(v, ast.AST) else v for v in value]
        else:
            fields[name] = visitor.visit(value) if isinstance(value, ast.AST) else value
    return ast.copy_location(type(node)(**fields), node) if hasattr(node, "lineno") else type(node)(**fields)


def _reduced_twice(formulas: Formulas, site: Site, live: Live) -> int | None:
    """The line at which a mean or a mask is taken of a divergence that is one number already."""
    others = free_of(site, live.namespace) or {}
    mean, scale = _grid((4, 6), 0)
    for node in ast.walk(site.written):
        if not isinstance(node, ast.Call) or last_name(node) not in ("mean", "sum"):
            continue
        operand = node.func.value if isinstance(node.func, ast.Attribute) else None
        if operand is None or dotted(operand) in ("torch", "np"):
            operand = node.args[0] if node.args else None
        if operand is None or isinstance(operand, ast.Name) or last_name(node) == "sum":
            continue
        expanded = formulas.expand(operand, site.statement)
        try:
            value = evaluate(expanded, live.namespace, {**others, site.mean: mean, site.scale: scale})
        except Exception:  # only a part of a formula
            continue
        if isinstance(value, torch.Tensor) and value.ndim == 0:
            return node.lineno
    return None
