"""What the usual layers compute: an equation and a clause for each, in both languages.  General knowledge."""

import ast
import re
import textwrap
from dataclasses import dataclass

from bowerbird.reading.explain.cards import Language

Values = dict[str, list[ast.expr]]
"""What each name of a function was assigned."""


@dataclass(frozen=True)
class Layer:
    equation: str
    meaning: dict[Language, str]


_KNOWN: tuple[tuple[str, str, str, str], ...] = (
    (r"Linear|LazyLinear", "y = W x + b", "mixes all features", "把所有特征线性混合"),
    (r"Conv[123]d", "yₒ(p) = bₒ + Σ_c Σ_k Wₒ,c(k) · x_c(s·p + k)", "mixes neighbours; its stride shrinks the image",
     "混合邻域；步幅缩小图像"),
    (r"ConvTranspose[123]d", "y(s·p + k) += W(k) · x(p)", "a transposed convolution: its stride enlarges the image",
     "卷积的转置：步幅放大图像"),
    (r"BatchNorm[123]d", "y = γ (x − E_batch[x]) / √(Var_batch[x] + ε) + β",
     "normalises each channel over the batch in training, with running averages in evaluation",
     "训练时按批对每个通道归一化，评估时用滑动平均"),
    (r"LayerNorm", "y = γ (x − E[x]) / √(Var[x] + ε) + β", "normalises the features of each position by themselves",
     "对每个位置自身的特征归一化"),
    (r"RMSNorm", "y = γ x / √(E[x²] + ε)", "divides by the root mean square of the features", "除以特征的均方根"),
    (r"GroupNorm|InstanceNorm[123]d", "y = γ (x − E_group[x]) / √(Var_group[x] + ε) + β",
     "normalises groups of channels of each example by themselves", "对每个样本的通道组归一化"),
    (r"Embedding", "y = W[token]", "looks up a learned vector for a token", "为每个词元查一个学到的向量"),
    (r"MultiheadAttention", "softmax(Q Kᵀ / √d_k) V", "each position takes a weighted mean of the others' values",
     "每个位置对其他位置的值取加权平均"),
    (r"LSTM|LSTMCell", "c = f ⊙ c + i ⊙ g,  h = o ⊙ tanh(c)", "carries a cell state through gates",
     "用门控传递细胞状态"),
    (r"GRU|GRUCell", "h = (1 − z) ⊙ n + z ⊙ h", "mixes the old state and a new one through gates",
     "用门控混合旧状态与新状态"),
    (r"RNN|RNNCell", "h = tanh(W x + U h + b)", "carries a state from step to step", "逐步传递状态"),
    (r"ReLU|ReLU6", "y = max(0, x)", "a non-linearity", "非线性"),
    (r"LeakyReLU|PReLU", "y = max(x, a x)", "a non-linearity that lets some gradient through everywhere",
     "处处保留一点梯度的非线性"),
    (r"GELU", "y = x Φ(x)", "a smooth non-linearity", "平滑的非线性"),
    (r"SiLU|Swish", "y = x σ(x)", "a smooth non-linearity", "平滑的非线性"),
    (r"Tanh", "y = tanh(x) ∈ (−1, 1)", "bounds the output", "把输出限制在区间内"),
    (r"Sigmoid", "y = 1 / (1 + e^(−x)) ∈ (0, 1)", "turns a score into a probability", "把分数变成概率"),
    (r"Softmax|LogSoftmax", "y = e^x / Σ e^x", "turns scores into probabilities that sum to one",
     "把分数变成和为一的概率"),
    (r"Dropout[123]?d?", "y = m ⊙ x / (1 − p)", "sets random activations to zero in training", "训练时随机置零"),
    (r"MaxPool[123]d|AvgPool[123]d|AdaptiveAvgPool[123]d", "y(p) = max or mean of x near p", "shrinks the image",
     "缩小图像"),
    (r"Upsample|UpsamplingNearest2d|PixelShuffle", "y(p) = x(p / s)", "enlarges the image without weights",
     "不带权重地放大图像"),
    (r"TransformerEncoderLayer", "LN(x + Attn(x)), then LN(x + MLP(x)); norm_first: x + Attn(LN x), x + MLP(LN x)",
     "attention and a network for each position, each with a shortcut",
     "注意力和逐位置网络，各带残差"),
    (r"TransformerDecoderLayer", "x + Attn(x), x + Attn(x, source), x + MLP(x)", "a decoder block of a transformer",
     "Transformer 解码块"),
)  # fmt: skip


def known(kind: str) -> Layer | None:
    """What is known of a layer's class, or None."""
    for pattern, equation, en, zh in _KNOWN:
        if re.fullmatch(pattern, kind):
            return Layer(equation, {"en": en, "zh": zh})
    return None


def residual(code: str) -> bool:
    """Whether code adds something that was computed from a value to that value: ``x + f(x)``."""
    tree = ast.parse(textwrap.dedent(code))
    values = _assigned(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            pairs = [(node.left, node.right), (node.right, node.left)]
        elif isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
            pairs = [(node.target, node.value)]
        else:
            continue
        if any(kept and _computed(other, kept, values) for one, other in pairs for kept in _kept(one, values)):
            return True
    return False


def _assigned(tree: ast.AST) -> Values:
    found: Values = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]:
                    found.setdefault(name, []).append(node.value)
    return found


def _kept(node: ast.expr, values: Values) -> set[str]:
    """The names whose value an expression passes on: itself, another name for it, a shortcut of it."""
    if isinstance(node, ast.Name):
        others = {v.id for v in values.get(node.id, []) if isinstance(v, ast.Name)}
        return {node.id} | others
    if isinstance(node, ast.Call) and re.search(r"res|skip|shortcut|identity|downsample", ast.unparse(node.func)):
        return {n.id for a in node.args for n in ast.walk(a) if isinstance(n, ast.Name)}
    return set()


def _computed(node: ast.expr, name: str, values: Values) -> bool:
    """Whether a call that was given ``name`` enters an expression."""
    calls = [n for e in _sources(node, values, but=name) for n in ast.walk(e) if isinstance(n, ast.Call)]
    return any(isinstance(n, ast.Name) and n.id == name for c in calls for a in c.args for n in ast.walk(a))


def _sources(node: ast.expr, values: Values, but: str = "") -> list[ast.expr]:
    """An expression and all that its names were assigned, and the names in that; not what ``but`` was assigned."""
    found, seen = [node], {but}
    for expression in found:
        for name in {n.id for n in ast.walk(expression) if isinstance(n, ast.Name)} - seen:
            seen.add(name)
            found += values.get(name, [])
    return found


def attention(code: str) -> bool:
    """Whether code takes the softmax of a product, or has PyTorch do so: attention written out."""
    tree = ast.parse(textwrap.dedent(code))
    values = _assigned(tree)
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        called = ast.unparse(call.func).rpartition(".")[2]
        if called == "scaled_dot_product_attention":
            return True
        if called in ("softmax", "Softmax"):
            inner = [*call.args, *([call.func.value] if isinstance(call.func, ast.Attribute) else [])]
            if any(_product(part, values) for part in inner):
                return True
    return False


def _product(node: ast.expr, values: Values) -> bool:
    """Whether an expression is a product of two tensors, scaled or masked."""
    parts = [part for e in _sources(node, values) for part in ast.walk(e)]
    named = [ast.unparse(part.func).rpartition(".")[2] for part in parts if isinstance(part, ast.Call)]
    return bool({"matmul", "bmm", "einsum", "baddbmm"} & set(named)) or any(
        isinstance(part, ast.BinOp) and isinstance(part.op, ast.MatMult) for part in parts
    )
