"""Makes a program smaller where it would not run within the time: batch sizes, widths and depths that are written out.

Only whole numbers bound to a telling name are touched (``batch_size = 128``, ``default=768`` of ``--n_embd``), so that
what depends on them stays consistent.
"""

import ast
import re

_MOST = (
    (re.compile(r"(batch_?size|^bs$|_bs$|^B$)", re.I), 8),
    (re.compile(r"(n_?layers?|num_(hidden_)?layers|^depth$|^N$|nlayers)", re.I), 2),
    (re.compile(r"(block_size|max_?len(gth)?|seq_?len(gth)?|context_length|bptt)", re.I), 32),
    (re.compile(r"^eval_(iters|steps)$", re.I), 2),
    (
        re.compile(
            r"(n_embd|d_model|embed_dim|emb_size|emb_dim|hidden_size|hidden_dim|hid_dim|nhid|emsize|d_ff|ffn_dim)", re.I
        ),
        96,
    ),
    (re.compile(r"(^n?(gf|df)$|base_channels|model_channels)", re.I), 16),
    (re.compile(r"^(img|image|im)_?(size|height|width|dim)$|^(height|width)$|^(hr|lr)_(height|width)$", re.I), 64),
    (re.compile(r"n_?res(idual)?_?(blocks)?$", re.I), 2),
    (re.compile(r"(gradient_accumulation_steps|accumulation_steps|grad_accum)", re.I), 2),
    (re.compile(r"^(n_?heads?|num_heads|num_attention_heads)$", re.I), 4),
    (re.compile(r"(vocab_size|n_vocab|ntokens?)", re.I), 512),
)


def smaller(name: str, value: int) -> int:
    """What a setting of this name may be at most."""
    most = next((most for pattern, most in _MOST if pattern.search(name)), value)
    return min(value, most)


def shrink(tree: ast.Module) -> list[str]:
    """Changes the tree in place and says what was changed: ``batch_size 128 → 8``."""
    said = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp):
            _fold(node)
        for name, value in _settings(node):
            most = next((most for pattern, most in _MOST if pattern.search(name)), None)
            if most is None or not isinstance(value.value, int) or isinstance(value.value, bool) or value.value <= most:
                continue
            said.append(f"{name} {value.value} → {most}")
            value.value = most
    return list(dict.fromkeys(said))


def _fold(node: ast.Assign) -> None:
    """``n = 5 * 8`` becomes ``n = 40``."""
    parts = (node.value.left, node.value.right) if isinstance(node.value, ast.BinOp) else ()
    if len(parts) == 2 and all(isinstance(p, ast.Constant) and isinstance(p.value, int) for p in parts):
        value = eval(compile(ast.Expression(node.value), "<sizes>", "eval"), {"__builtins__": {}})
        node.value = ast.copy_location(ast.Constant(value), node.value)


def _settings(node: ast.AST) -> list[tuple[str, ast.Constant]]:
    if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Constant):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [
            t.id if isinstance(t, ast.Name) else t.attr for t in targets if isinstance(t, ast.Name | ast.Attribute)
        ]
        return [(name, node.value) for name in names]
    if isinstance(node, ast.Call):
        found = [(k.arg, k.value) for k in node.keywords if k.arg and isinstance(k.value, ast.Constant)]
        flags = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument" and flags:
            name = max(flags, key=len).lstrip("-").replace("-", "_")
            return [(name, value) for key, value in found if key == "default"]
        return found
    if isinstance(node, ast.Dict):
        keyed = zip(node.keys, node.values, strict=True)
        return [(str(k.value), v) for k, v in keyed if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)]
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args]
        pairs = list(zip(reversed(arguments), reversed(node.args.defaults), strict=False))
        pairs += [(a, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d is not None]
        return [(a.arg, d) for a, d in pairs if isinstance(d, ast.Constant)]
    return []
