"""The static model of a program: what its source alone says, as queries that rules and readings share.

A ``Unit`` is one file with its tree; a ``Program`` is the main unit and those beside it.  Names are dotted source text
(``self.model.fc``); nothing is executed.  Constants are folded through names that are assigned once.
"""

import ast
import fnmatch
import io
import operator
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar, overload

from bowerbird.reading.source import Source

N = TypeVar("N", bound=ast.AST)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.Module)
OPTIMIZERS = frozenset(
    "Adadelta Adagrad Adam AdamW SparseAdam Adamax ASGD LBFGS NAdam RAdam RMSprop Rprop SGD Adafactor Lion Muon "
    "AdamOptimizer RAdamW Adan".split()
)
_TRANSPARENT = {"to", "cuda", "cpu", "train", "eval", "apply", "float", "half", "double", "type", "requires_grad_"}


def dotted(node: ast.AST | None) -> str | None:
    """``a.b.c`` of a name or an attribute chain, else None."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted(node.value)
        return None if base is None else f"{base}.{node.attr}"
    return None


def last_name(node: ast.AST | None) -> str:
    """The last word of what is called or named: ``step`` of ``opt.step()``; empty where there is none."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def receiver(call: ast.Call) -> ast.expr | None:
    """What a method is called on: ``opt`` of ``opt.step()``."""
    return call.func.value if isinstance(call.func, ast.Attribute) else None


def keyword(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """The argument of this name, or at this position, or None."""
    for argument in call.keywords:
        if argument.arg == name:
            return argument.value
    if position is not None and position < len(call.args):
        return call.args[position]
    return None


def names_in(node: ast.AST) -> set[str]:
    """Every plain name that is read below a node."""
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def words_in(node: ast.AST) -> set[str]:
    """Every plain name and every attribute below a node: ``net``, ``layer`` of ``net.layer``."""
    return names_in(node) | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def targets_of(statement: ast.AST) -> list[ast.expr]:
    """What an assignment, a loop or a with-statement binds, tuples taken apart."""
    found: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        found = list(statement.targets)
    elif isinstance(statement, ast.AnnAssign | ast.AugAssign | ast.For | ast.AsyncFor):
        found = [statement.target]
    elif isinstance(statement, ast.With | ast.AsyncWith):
        found = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    flat: list[ast.expr] = []
    while found:
        target = found.pop(0)
        if isinstance(target, ast.Tuple | ast.List):
            found = [*target.elts, *found]
        else:
            flat.append(target.value if isinstance(target, ast.Starred) else target)
    return flat


@dataclass(frozen=True)
class ClassInfo:
    """A class of the program; ``is_module`` when it derives from nn.Module, however far."""

    name: str
    node: ast.ClassDef
    bases: tuple[str, ...]
    is_module: bool

    @property
    def methods(self) -> dict[str, Function]:
        return {n.name: n for n in self.node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}


@dataclass(frozen=True)
class OptimizerSite:
    """Where an optimiser is built: its name, ``kind`` (Adam), what it is given, the modules that are named there."""

    name: str
    kind: str
    call: ast.Call
    parameters: ast.expr | None
    modules: tuple[str, ...]
    line: int


class Unit:
    """One file: text, tree, and the questions that are asked of them."""

    def __init__(self, file: str, text: str, tree: ast.Module) -> None:
        self.file, self.text, self.tree = file, text, tree
        self.lines = text.splitlines()
        self.parents: dict[ast.AST, ast.AST] = {}
        self.nodes: list[ast.AST] = []
        queue: list[ast.AST] = [tree]
        while queue:
            node = queue.pop()
            self.nodes.append(node)
            for child in ast.iter_child_nodes(node):
                self.parents[child] = node
                queue.append(child)
        self.nodes.sort(key=lambda n: (getattr(n, "lineno", 0), getattr(n, "col_offset", 0)))

    @overload
    def all(self, kind: type[N], /, *, under: ast.AST | None = None) -> Iterator[N]: ...

    @overload
    def all(self, *kinds: type[ast.AST], under: ast.AST | None = None) -> Iterator[Any]: ...

    def all(self, *kinds: type[ast.AST], under: ast.AST | None = None) -> Iterator[Any]:
        """Nodes of these kinds in source order, of the whole file or below (and including) one node."""
        if under is None:
            yield from (n for n in self.nodes if isinstance(n, kinds))
        else:
            below = [n for n in ast.walk(under) if isinstance(n, kinds)]
            yield from sorted(below, key=lambda n: (getattr(n, "lineno", 0), getattr(n, "col_offset", 0)))

    def calls(self, pattern: str = "*", under: ast.AST | None = None) -> Iterator[ast.Call]:
        """Calls whose dotted name, or last word, matches: ``calls("*.backward")``, ``calls("randn")``."""
        for call in self.all(ast.Call, under=under):
            name = dotted(call.func)
            if fnmatch.fnmatchcase(last_name(call), pattern) or (name and fnmatch.fnmatchcase(name, pattern)):
                yield call
            elif name is None and "." in pattern and fnmatch.fnmatchcase(f"?.{last_name(call)}", pattern):
                yield call

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """What a node stands in, innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def statement(self, node: ast.AST) -> ast.stmt | None:
        """The statement that a node belongs to."""
        return next((n for n in (node, *self.ancestors(node)) if isinstance(n, ast.stmt)), None)

    def function(self, node: ast.AST) -> Function | None:
        """The innermost function around a node."""
        return next((n for n in self.ancestors(node) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)), None)

    def class_around(self, node: ast.AST) -> ast.ClassDef | None:
        """The innermost class around a node."""
        return next((n for n in self.ancestors(node) if isinstance(n, ast.ClassDef)), None)

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module whose names a node sees first."""
        return next((n for n in self.ancestors(node) if isinstance(n, _SCOPES)), self.tree)

    def loops(self, node: ast.AST) -> list[ast.For | ast.While]:
        """The loops around a node within its function, innermost first."""
        found = []
        for ancestor in self.ancestors(node):
            if isinstance(ancestor, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
                break
            if isinstance(ancestor, ast.For | ast.While):
                found.append(ancestor)
        return found

    @cached_property
    def comments(self) -> dict[int, str]:
        """The comment of each line that has one."""
        found = {}
        try:
            for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
                if token.type == tokenize.COMMENT:
                    found[token.start[0]] = token.string.lstrip("# ")
        except (tokenize.TokenError, IndentationError, SyntaxError):
            pass
        return found

    @cached_property
    def classes(self) -> dict[str, ClassInfo]:
        """The classes of the file by name."""
        nodes = {n.name: n for n in self.all(ast.ClassDef)}
        bases = {name: tuple(filter(None, (dotted(b) for b in node.bases))) for name, node in nodes.items()}
        elsewhere = {a.asname or a.name for n in self.all(ast.ImportFrom, ast.Import) for a in n.names}
        calling = {name for name, node in nodes.items() if any(_is_forward(part) for part in node.body)}

        def is_module(name: str, seen: frozenset[str] = frozenset()) -> bool:
            for base in bases.get(name, ()):
                word = base.rpartition(".")[2]
                if word in ("Module", "Sequential", "ModuleList", "LightningModule") or base.startswith("nn."):
                    return True
                if name in calling and base.partition(".")[0] in elsewhere and word != "Function":
                    return True
                if word in bases and word not in seen and is_module(word, seen | {name}):
                    return True
            return False

        return {name: ClassInfo(name, node, bases[name], is_module(name)) for name, node in nodes.items()}

    @cached_property
    def functions(self) -> dict[str, Function]:
        """Every function of the file; methods as ``Class.method``."""
        found: dict[str, Function] = {}
        nodes: Iterator[Any] = self.all(ast.FunctionDef, ast.AsyncFunctionDef)
        for node in nodes:
            holder = self.parents[node]
            found[f"{holder.name}.{node.name}" if isinstance(holder, ast.ClassDef) else node.name] = node
        return found

    @cached_property
    def given(self) -> set[str]:
        """Every name that anything in the file may give an object as an attribute."""
        stored = {n.attr for n in self.all(ast.Attribute) if isinstance(n.ctx, ast.Store)}
        stored |= {n.id for n in self.all(ast.Name) if isinstance(n.ctx, ast.Store)}
        said = {n.value for n in self.all(ast.Constant) if isinstance(n.value, str)}
        named = {n.arg for n in self.all(ast.keyword) if n.arg is not None}
        return stored | said | named | {name.rpartition(".")[2] for name in self.functions}

    @cached_property
    def assignments(self) -> dict[str, list[tuple[ast.expr, ast.stmt]]]:
        """Every value that is assigned to a dotted name anywhere in the file, with its statement."""
        found: dict[str, list[tuple[ast.expr, ast.stmt]]] = {}
        statements: Iterator[Any] = self.all(ast.Assign, ast.AnnAssign)
        for statement in statements:
            if statement.value is None:
                continue
            for target in targets_of(statement):
                name = dotted(target)
                if name is not None:
                    found.setdefault(name, []).append((_element(statement, target), statement))
        return found

    @cached_property
    def modules(self) -> dict[str, str]:
        """Names that are bound to a module, and its class: ``{"generator": "Generator", "self.fc": "Linear"}``."""
        known = {name for name, info in self.classes.items() if info.is_module}
        found = {}
        for name, values in self.assignments.items():
            for value, _ in values:
                kind = self._module_class(value, known)
                if kind:
                    found[name] = kind
        return found

    def _module_class(self, value: ast.AST, known: set[str]) -> str | None:
        while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _TRANSPARENT:
            value = value.func.value
        if not isinstance(value, ast.Call):
            return None
        name, word = dotted(value.func), last_name(value)
        if word in known:
            return word
        if name and name.rpartition(".")[0] in ("nn", "torch.nn") and word[:1].isupper() and word != "Parameter":
            return word
        return word if word in ("Sequential", "ModuleList", "DataParallel") else None

    @cached_property
    def optimizers(self) -> list[OptimizerSite]:
        """Every place where an optimiser is built."""
        found = []
        for call in self.all(ast.Call):
            kind = last_name(call)
            if kind not in OPTIMIZERS:
                continue
            statement = self.statement(call)
            names = [dotted(t) for t in targets_of(statement) if _holds(statement, t, call)] if statement else []
            given = keyword(call, "params", 0)
            inner = [n for n in ast.walk(given) if isinstance(n, ast.Call)] if given is not None else []
            asked = [n for n in inner if last_name(n) in ("parameters", "named_parameters")]
            owners = [owner for n in asked if (owner := dotted(receiver(n))) is not None]
            found.append(OptimizerSite(next(filter(None, names), ""), kind, call, given, tuple(owners), call.lineno))
        return found

    @cached_property
    def training_loops(self) -> list[ast.For | ast.While]:
        """The innermost loops that hold a backward() or an optimiser's step()."""
        steps = [c for c in self.calls("step") if self.is_optimizer(receiver(c))]
        around = [self.loops(call) for call in sorted([*self.calls("backward"), *steps], key=lambda c: c.lineno)]
        return list(dict.fromkeys(loops[0] for loops in around if loops))

    def is_optimizer(self, node: ast.AST | None) -> bool:
        """Whether an expression looks like an optimiser: built as one, or named so."""
        name = dotted(node)
        if name is None:
            return False
        word = name.rpartition(".")[2].lower()
        built = {site.name.rpartition(".")[2].lower() for site in self.optimizers}
        return word in built or "optim" in word or word in ("opt", "opt_g", "opt_d", "g_opt", "d_opt", "trainer")

    def constant(self, node: ast.AST | None, depth: int = 8) -> Any:
        """The value of an expression that is constant, through names assigned once and arithmetic; None if unknown."""
        if node is None or depth == 0:
            return None
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Tuple | ast.List):
            values = [self.constant(element, depth - 1) for element in node.elts]
            return None if None in values else tuple(values)
        name = dotted(node)
        if name is not None:
            assigned = self.assignments.get(name, [])
            if len(assigned) == 1:
                return self.constant(assigned[0][0], depth - 1)
            return self.options.get(name.rpartition(".")[2]) if "." in name and not assigned else None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self.constant(node.operand, depth - 1)
            return -value if isinstance(value, int | float) else None
        if isinstance(node, ast.BinOp):
            return _arithmetic(node.op, self.constant(node.left, depth - 1), self.constant(node.right, depth - 1))
        return None

    @cached_property
    def options(self) -> dict[str, Any]:
        """The defaults of argparse by name."""
        found: dict[str, Any] = {}
        for call in self.calls("add_argument"):
            flags = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            default = keyword(call, "default")
            if flags and isinstance(default, ast.Constant):
                found[max(flags, key=len).lstrip("-").replace("-", "_")] = default.value
        return found


class Program:
    """The main unit and the units beside it; what is asked of the program is asked of the main unit."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.units = {file: Unit(file, source.texts[file], source.trees[file]) for file in source.texts}
        self.main = self.units[source.main]

    @property
    def file(self) -> str:
        return self.main.file

    def __iter__(self) -> Iterator[Unit]:
        return iter(self.units.values())

    def line(self, number: int, file: str | None = None) -> str:
        """The text of a line, empty where there is none."""
        lines = (self.units.get(file or self.file) or self.main).lines
        return lines[number - 1] if 0 < number <= len(lines) else ""


def _is_forward(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "forward"


def _holds(statement: ast.stmt, target: ast.expr, call: ast.Call) -> bool:
    """Whether a target is given a call, or something with the call in it."""
    whole = not isinstance(statement, ast.Assign | ast.AnnAssign) or statement.value is None
    return whole or any(node is call for node in ast.walk(_element(statement, target)))  # type: ignore[arg-type]


def _element(statement: ast.Assign | ast.AnnAssign, target: ast.expr) -> ast.expr:
    """The part of the value that goes to a target: ``a, b = f(), g()`` gives ``g()`` for ``b``."""
    value = statement.value
    assert value is not None
    if isinstance(statement, ast.Assign) and isinstance(value, ast.Tuple):
        for whole in statement.targets:
            if isinstance(whole, ast.Tuple) and len(whole.elts) == len(value.elts) and target in whole.elts:
                return value.elts[whole.elts.index(target)]
    return value


_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow,
}  # fmt: skip


def _arithmetic(kind: ast.operator, left: Any, right: Any) -> Any:
    numbers = isinstance(left, int | float) and isinstance(right, int | float)
    if not numbers or type(kind) not in _OPERATORS or (isinstance(kind, ast.Pow) and abs(right) >= 64):
        return None
    try:
        return _OPERATORS[type(kind)](left, right)
    except (ZeroDivisionError, OverflowError):
        return None
