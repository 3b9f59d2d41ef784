"""What the text alone says of optimisers: handed on twice, never stepped, or given each other's parameters."""

import ast
import re
from collections.abc import Iterator

from bowerbird.reading.findings import Finding
from bowerbird.reading.program import Function, OptimizerSite, Program, Unit, dotted, last_name, names_in, receiver
from bowerbird.reading.rules.messages import say

_READS = ("zero_grad", "state_dict", "load_state_dict")


def handed_twice(program: Program) -> Iterator[Finding]:
    """One optimiser for two arguments of a function of the program, where one of another name is at hand."""
    for unit in program:
        for call in unit.all(ast.Call):
            function = unit.functions.get(last_name(call))
            given = [a.id if isinstance(a, ast.Name) else "" for a in call.args]
            if function is None or len(set(filter(None, given))) == len(list(filter(None, given))):
                continue
            wanted = [a.arg for a in function.args.args]
            scope = unit.function(call) or unit.tree
            known = {n.id for n in unit.all(ast.Name, under=scope) if isinstance(n.ctx, ast.Store)}
            for place, (name, argument) in enumerate(zip(given, wanted, strict=False)):
                if name and name in given[:place] and argument != name and argument in known and "opt" in name.lower():
                    yield say(
                        "G07b", "warning", call.args[place].lineno, file=unit.file, name=name, function=function,
                        argument=argument, wanted_2=", ".join(wanted),
                    )  # fmt: skip


def never_stepped(program: Program) -> Iterator[Finding]:
    """An optimiser that is cleared for a backward pass and then not stepped, beside others that are."""
    for unit in program:
        for site in unit.optimizers:
            scope = unit.function(site.call) or unit.tree
            holder = unit.class_around(site.call) if site.name.startswith("self.") else None
            under = holder or scope
            if not site.name or site.name.rpartition(".")[0] not in ("", "self") or used(unit, site.name, under):
                continue
            others = [s for s in unit.optimizers if s.name != site.name and stepped(unit, s.name, under)]
            cleared = [
                c for c in unit.calls("zero_grad", under=under) if dotted(receiver(c)) == site.name
            ]  # fmt: skip
            if not others or not cleared:
                continue
            backward = _next_backward(unit, cleared[0], under)
            for line in dict.fromkeys((backward or site.line, site.line)):
                yield say("G07", "warning", line, file=unit.file, site=site, cleared=cleared)


def used(unit: Unit, name: str, under: ast.AST) -> bool:
    """Whether an optimiser is stepped, returned, kept, or handed to something that may step it."""
    for node in unit.all(ast.Name, ast.Attribute, under=under):
        if dotted(node) != name or not isinstance(node.ctx, ast.Load):
            continue
        holder = unit.parents.get(node)
        if isinstance(holder, ast.Attribute):
            if holder.attr not in (*_READS, "param_groups", "defaults"):
                return True
        elif not (isinstance(holder, ast.Call) and _only_reads(unit, holder)):
            return True
    return False


def _only_reads(unit: Unit, call: ast.Call) -> bool:
    """Whether a call that is given an optimiser surely does not step it: a scheduler, or a function without a step."""
    inner = unit.functions.get(last_name(call))
    if inner is not None:
        return ".step" not in ast.unparse(inner)
    return last_name(call).endswith("LR") or last_name(call) in ("print", "len", "id")


def stepped(unit: Unit, name: str, under: ast.AST) -> bool:
    """Whether the text steps an optimiser of this name."""
    return any(dotted(receiver(c)) == name for c in unit.calls("step", under=under))


def _next_backward(unit: Unit, cleared: ast.Call, under: ast.AST) -> int | None:
    calls = [c.lineno for c in unit.all(ast.Call, under=under) if last_name(c) == "backward"]
    return min((line for line in calls if line > cleared.lineno), default=None)


def exchanged(program: Program) -> Iterator[Finding]:
    """Two optimisers of one function whose names say what each other's parameters are."""
    for unit in program:
        by_scope: dict[Function | None, list[OptimizerSite]] = {}
        for site in unit.optimizers:
            by_scope.setdefault(unit.function(site.call), []).append(site)
        for sites in by_scope.values():
            for site in sites:
                for other in sites:
                    if other is not site and _fits(site, other) and not _fits(site, site) and not _fits(other, other):
                        yield say(
                            "G07c", "warning", site.line, file=unit.file, site=site, given=_given(site),
                            given_2=_given(other), other=other,
                        )  # fmt: skip


def given_alike(program: Program) -> Iterator[Finding]:
    """Two optimisers of one module, while another module, which the name of one speaks of, has none."""
    for unit in program:
        owned = {name for site in unit.optimizers for name in site.modules}
        for place, site in enumerate(unit.optimizers):
            for other in unit.optimizers[:place]:
                same = len(site.modules) == 1 and site.modules == other.modules and site.name != other.name
                if not same or unit.function(site.call) is not unit.function(other.call):
                    continue
                free = [name for name in unit.modules if name not in owned and name.count(".") < 2]
                for wrong in (site, other):
                    missed = [name for name in free if _letters(wrong) & {name.rpartition(".")[2][0].lower()}]
                    if missed and not _fits(wrong, wrong):
                        yield say(
                            "G07d", "warning", wrong.line, file=unit.file, wrong=wrong, site=site,
                            name=(other if wrong is site else site).name, missed=missed, other=other,
                        )  # fmt: skip


def _given(site: OptimizerSite) -> str:
    return ast.unparse(site.parameters)[:50] if site.parameters is not None else "nothing"


def _letters(optimizer: OptimizerSite) -> set[str]:
    """The first letters of the words of an optimiser's name that say whose it is."""
    words = re.split(r"_|(?<=[a-z])(?=[A-Z])", optimizer.name.rpartition(".")[2])
    return {w[0].lower() for w in words if w and not re.match(r"(optim|optm|opt|trainer|solver)", w, re.I)}


def _fits(optimizer: OptimizerSite, parameters: OptimizerSite) -> bool:
    """Whether the name of one optimiser begins with the letter of the module that another was given."""
    letters = _letters(optimizer)
    given = parameters.parameters
    if given is None:
        return False
    owners = {n.attr for n in ast.walk(given) if isinstance(n, ast.Attribute)} | names_in(given)
    owners = {re.sub(r"_?(params|parameters|vars)$|^net_?", "", owner) for owner in owners}
    return bool(letters & {o[0].lower() for o in owners if o and o not in ("self", "model", "parameters", "list")})
