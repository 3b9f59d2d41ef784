"""What the usual layers compute: an equation and a clause for each, in both languages.  General knowledge."""

import re
from dataclasses import dataclass

from bowerbird.reading.explain.cards import Language


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
    (r"Embedding", "y = W[token]", "looks up a learned vector for a token", "为每个 token 查一个学到的向量"),
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
    (r"TransformerEncoderLayer", "x + Attn(LN x), then x + MLP(LN x)",
     "attention and a network for each position, each with a shortcut",
     "注意力和逐位置网络，各带残差"),
    (r"TransformerDecoderLayer", "x + Attn(x), x + Attn(x, source), x + MLP(x)", "a decoder block of a transformer",
     "Transformer 解码块"),
)  # fmt: skip


_RESIDUAL = re.compile(
    r"\bx\s*=\s*x\s*\+|\breturn\s+x\s*\+"
    r"|\+\s*(?:x|res\w*|identity|shortcut\w*|h|self\.\w*(?:res|skip|shortcut)\w*\(x\))\s*$",
    re.MULTILINE,
)


def known(kind: str) -> Layer | None:
    """What is known of a layer's class, or None."""
    for pattern, equation, en, zh in _KNOWN:
        if re.fullmatch(pattern, kind):
            return Layer(equation, {"en": en, "zh": zh})
    return None


def residual(code: str) -> bool:
    """Whether the text of a ``forward`` adds something to its own input."""
    return _RESIDUAL.search(code) is not None


def attention(code: str) -> bool:
    """Whether the text of a ``forward`` writes attention out."""
    return "softmax" in code and re.search(r"transpose\(-?[12], -?[12]\)|\.mT|einsum|matmul|bmm| @ ", code) is not None
